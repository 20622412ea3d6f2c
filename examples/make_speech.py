"""Synthesises demonstration speech, so that the other examples have something to run on.

    pip install espeakng-loader
    python examples/make_speech.py --output_dir demo_speech
    python examples/make_speech.py --output_dir demo_speech_small --num_clips 60 --seed 1

The speech comes from eSpeak NG: many voices, clear words, and far from natural. It shows that a run works and what it
costs, never how good a model is.
"""

from __future__ import annotations

import csv
import ctypes
import json
import math
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly
from transformers import HfArgumentParser
from transformers.utils import logging

from hf_prunable.runtime.files import staged_directory


# One sentence: a pattern whose names are filled from the lists, and {number} with digits, which eSpeak NG reads out in
# the language of the voice.
LANGUAGES = {
    "en": {
        "patterns": [
            "{person} {deed} {number} {things} {place}",
            "please {order} the {device} {place}, and then {order} the {device}",
            "{order} the {device} {place} in {number} minutes",
            "{person} {place} {deed} the {things} again",
            "did {person} say that {person} {deed} the {things}",
            "{number}, {number}, {number} and {number}",
        ],
        "person": "my sister|the old captain|a young doctor|our neighbour|Margaret|Oliver|the farmer|nobody|your uncle",
        "deed": "found|carried|counted|washed|painted|forgot|borrowed|dropped|measured|sold",
        "things": "red boxes|wooden chairs|glass bottles|letters|oranges|green jackets|horses|shovels|yellow birds",
        "place": "in the kitchen|behind the house|near the river|on Thursday|before breakfast|under the bridge|at school",
        "order": "switch on|turn off|stop|open|close|follow|check|lower|raise",
        "device": "light|radio|window|front door|heating|music|alarm|camera|garage",
    },
    "de": {
        "patterns": ["{person} {deed} {number} {things} {place}", "{place} {deed} {person} die {things}"],
        "person": "meine Schwester|der Nachbar|die Lehrerin|Johannes|niemand|unser Kapitän",
        "deed": "findet|trägt|zählt|vergisst|verkauft|wäscht",
        "things": "Kisten|Stühle|Flaschen|Briefe|Äpfel|Jacken",
        "place": "in der Küche|hinter dem Haus|am Donnerstag|vor dem Frühstück|unter der Brücke",
    },
    "fr": {
        "patterns": ["{person} {deed} {number} {things} {place}", "{place}, {person} {deed} les {things}"],
        "person": "ma sœur|le voisin|la maîtresse|Juliette|personne|notre capitaine",
        "deed": "trouve|porte|compte|oublie|regarde|lave",
        "things": "boîtes rouges|chaises|bouteilles|lettres|pommes|vestes vertes",
        "place": "dans la cuisine|derrière la maison|jeudi matin|avant le déjeuner|sous le pont",
    },
    "es": {
        "patterns": ["{person} {deed} {number} {things} {place}", "{place} {person} {deed} las {things}"],
        "person": "mi hermana|el vecino|la maestra|Carlos|nadie|nuestro capitán",
        "deed": "encuentra|lleva|cuenta|olvida|mira|lava",
        "things": "cajas rojas|sillas|botellas|cartas|manzanas|chaquetas verdes",
        "place": "en la cocina|detrás de la casa|el jueves|antes del desayuno|debajo del puente",
    },
}
# eSpeak NG voices: each an accent or a language, with the list above that it reads.
VOICES = [
    *((voice, "en") for voice in ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029")),
    *((voice, "en") for voice in ("en-us-nyc", "en-gb-x-gbcwmd")),
    *(("de", "de"), ("fr", "fr"), ("es", "es"), ("es-419", "es")),
]
# Variants change the timbre of a voice: male, female, and some with names of their own.
VARIANTS = [*(f"m{number}" for number in range(1, 8)), *(f"f{number}" for number in range(1, 6))]
VARIANTS += ["Andy", "Annie", "Alicia", "Denis", "Lee", "Mike", "anika", "belinda", "edward", "linda", "steph", "zac"]
# From calm to brisk, in words a minute; lower and higher than that is hard to understand.
SPEEDS = (120, 195)
# On eSpeak NG's scale of 0 to 100, on which 50 is the voice's own.
PITCHES = (25, 80)
SECONDS = (2.0, 6.0)
SETTINGS_FILE = "settings.json"
# Values from espeak_ng's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
CHARACTERS_UTF8 = 1
PARAMETER_RATE, PARAMETER_PITCH, PARAMETER_RANGE = 1, 3, 4


@dataclass
class SpeechArguments:
    """What to synthesise."""

    output_dir: str = field(
        metadata={"help": "The folder to make; it must not exist, or be one of the same settings."}
    )
    num_clips: int = field(default=600, metadata={"help": "How many clips, of 2 to 6 seconds each."})
    seed: int = field(default=0, metadata={"help": "Chooses sentences, voices, speed and pitch; 0 or more."})
    sampling_rate: int = field(default=16000, metadata={"help": "The rate of the clips, in Hz."})


class Synthesiser:
    """eSpeak NG, fresh from its start: two of these say the same thing in the same way.

    Args:
        seed: Seeds the breath noise of the voices.

    Raises:
        ImportError: If espeakng-loader is not installed.
        RuntimeError: If eSpeak NG does not start.
    """

    def __init__(self, seed: int):
        try:
            import espeakng_loader
        except ImportError as error:
            raise ImportError(
                "Speech is synthesised with eSpeak NG, which is not installed: pip install espeakng-loader"
            ) from error
        # eSpeak NG keeps the state of its voices in global variables, from one utterance to the next. A library loaded
        # from a copy has its own.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self._library = ctypes.CDLL(shutil.copy(espeakng_loader.get_library_path(), folder))
        data_path = espeakng_loader.get_data_path().encode()
        self.sampling_rate = self._library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data_path, 0)
        if self.sampling_rate <= 0:
            raise RuntimeError(
                "eSpeak NG does not start: reinstall it with pip install --force-reinstall espeakng-loader"
            )
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._pieces: list[bytes] = []
        callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        # The library holds no reference to the callback, so this object must.
        self._callback = callback_type(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: int | None, count: int, events: int) -> int:
        if samples and count > 0:
            self._pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    def say(self, text: str, voice: str, speed: int, pitch: int, pitch_range: int) -> np.ndarray:
        """Speaks a sentence.

        Returns:
            Samples of shape (samples,), float32, at `self.sampling_rate`.

        Raises:
            RuntimeError: If there is no such voice or nothing is said.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"eSpeak NG has no voice {voice!r}.")
        for parameter, value in ((PARAMETER_RATE, speed), (PARAMETER_PITCH, pitch), (PARAMETER_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces.clear()
        encoded = text.encode() + b"\0"
        size = ctypes.c_size_t(len(encoded))
        status = self._library.espeak_Synth(encoded, size, 0, 1, 0, CHARACTERS_UTF8, None, None)
        if status != 0 or not self._pieces:
            raise RuntimeError(f"eSpeak NG did not say {text!r} with the voice {voice!r} (status {status}).")
        return np.frombuffer(b"".join(self._pieces), dtype=np.int16).astype(np.float32) / 32768


def make_sentence(generator: np.random.Generator, language: str) -> str:
    """A sentence of a language, from its patterns and lists."""
    lists = LANGUAGES[language]
    sentence = str(generator.choice(lists["patterns"]))
    while "{" in sentence:
        name = sentence[sentence.index("{") + 1 : sentence.index("}")]
        word = str(generator.integers(2, 1000)) if name == "number" else str(generator.choice(lists[name].split("|")))
        sentence = sentence.replace("{" + name + "}", word, 1)
    return sentence + "."


def make_clip(synthesiser: Synthesiser, generator: np.random.Generator, sampling_rate: int) -> tuple:
    """One clip of allowed length.

    Returns:
        Samples of shape (samples,), float32; the voice; the text.
    """
    while True:
        voice, language = VOICES[generator.integers(len(VOICES))]
        voice = f"{voice}+{generator.choice(VARIANTS)}"
        text = make_sentence(generator, language)
        speed, pitch = int(generator.integers(*SPEEDS)), int(generator.integers(*PITCHES))
        spoken = synthesiser.say(text, voice, speed, pitch, int(generator.integers(20, 80)))
        divisor = math.gcd(synthesiser.sampling_rate, sampling_rate)
        samples = resample_poly(spoken, sampling_rate // divisor, synthesiser.sampling_rate // divisor)
        if SECONDS[0] <= len(samples) / sampling_rate <= SECONDS[1]:
            return samples, voice, text


def make_speech(output_dir: str | Path, num_clips: int = 600, seed: int = 0, sampling_rate: int = 16000) -> Path:
    """Makes a folder of mono 16-bit FLAC clips and a `metadata.csv` with their voices and texts.

    The clips are written aside and the folder takes its name when it is complete; a complete one is used again.

    Args:
        output_dir: The folder.
        num_clips: How many clips, 1 or more.
        seed: The same seed gives the same samples.
        sampling_rate: In Hz.

    Returns:
        The folder.

    Raises:
        ImportError: If espeakng-loader is not installed.
        FileExistsError: If the folder exists and was not made with these settings.
        ValueError: If `num_clips` is below 1.
    """
    output_dir = Path(output_dir)
    settings = {"num_clips": num_clips, "seed": seed, "sampling_rate": sampling_rate}
    if num_clips < 1:
        raise ValueError(f"num_clips is {num_clips}; it must be 1 or more.")
    if _is_complete(output_dir, settings):
        return output_dir
    synthesiser = Synthesiser(seed)
    generator = np.random.default_rng(seed)
    with staged_directory(output_dir) as folder:
        rows = []
        for index in logging.tqdm(range(num_clips), desc="Synthesising speech", unit="clip"):
            samples, voice, text = make_clip(synthesiser, generator, sampling_rate)
            file_name = f"clip_{index:05d}.flac"
            # 0.9 leaves room for what resampling adds to the peaks.
            soundfile.write(folder / file_name, 0.9 * samples, sampling_rate, subtype="PCM_16")
            rows.append((file_name, voice, text))
        with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file_name", "voice", "text"), *rows])
        (folder / SETTINGS_FILE).write_text(json.dumps(settings) + "\n")
    return output_dir


def _is_complete(folder: Path, settings: dict) -> bool:
    if not folder.exists():
        return False
    found = folder / SETTINGS_FILE
    made_with = json.loads(found.read_text()) if found.is_file() else None
    if made_with != settings or len(list(folder.glob("clip_*.flac"))) != settings["num_clips"]:
        raise FileExistsError(
            f"{folder} exists and is not speech made with {settings} (its settings: {made_with}). Delete it or give "
            "another folder."
        )
    return True


if __name__ == "__main__":
    (arguments,) = HfArgumentParser(SpeechArguments).parse_args_into_dataclasses()
    print(f"{arguments.num_clips} clips in {make_speech(**asdict(arguments))}")
