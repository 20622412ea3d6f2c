"""Synthetic speech for the demo, spoken by eSpeak NG: many voices and clear words, but far from natural.

It shows that a run works and how long it takes. It does not show how good a model is.
"""

from __future__ import annotations

import csv
import ctypes
import json
import math
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly
from transformers.utils import logging

from ..runtime.files import staged_directory


# Sentence patterns of each language, and the lists that fill their names. {number} becomes digits, which eSpeak NG reads
# out in the language of the voice.
LANGUAGES: dict[str, dict[str, list[str]]] = {
    "en": {
        "patterns": [
            "{person} {deed} {number} {things} {place}",
            "please {order} the {device} {place}, and then {order} the {device}",
            "{order} the {device} {place} in {number} minutes",
            "{person} {place} {deed} the {things} again",
            "did {person} say that {person} {deed} the {things}",
            "{number}, {number}, {number} and {number}",
        ],
        "person": "my sister|the old captain|a young doctor|our neighbour|Margaret|Oliver|the farmer|nobody"
        "|your uncle".split("|"),
        "deed": "found|carried|counted|washed|painted|forgot|borrowed|dropped|measured|sold".split("|"),
        "things": "red boxes|wooden chairs|glass bottles|letters|oranges|green jackets|horses|shovels"
        "|yellow birds".split("|"),
        "place": "in the kitchen|behind the house|near the river|on Thursday|before breakfast|under the bridge"
        "|at school".split("|"),
        "order": "switch on|turn off|stop|open|close|follow|check|lower|raise".split("|"),
        "device": "light|radio|window|front door|heating|music|alarm|camera|garage".split("|"),
    },
    "de": {
        "patterns": ["{person} {deed} {number} {things} {place}", "{place} {deed} {person} die {things}"],
        "person": "meine Schwester|der Nachbar|die Lehrerin|Johannes|niemand|unser Kapitän".split("|"),
        "deed": "findet|trägt|zählt|vergisst|verkauft|wäscht".split("|"),
        "things": "Kisten|Stühle|Flaschen|Briefe|Äpfel|Jacken".split("|"),
        "place": "in der Küche|hinter dem Haus|am Donnerstag|vor dem Frühstück|unter der Brücke".split("|"),
    },
    "fr": {
        "patterns": ["{person} {deed} {number} {things} {place}", "{place}, {person} {deed} les {things}"],
        "person": "ma sœur|le voisin|la maîtresse|Juliette|personne|notre capitaine".split("|"),
        "deed": "trouve|porte|compte|oublie|regarde|lave".split("|"),
        "things": "boîtes rouges|chaises|bouteilles|lettres|pommes|vestes vertes".split("|"),
        "place": "dans la cuisine|derrière la maison|jeudi matin|avant le déjeuner|sous le pont".split("|"),
    },
    "es": {
        "patterns": ["{person} {deed} {number} {things} {place}", "{place} {person} {deed} las {things}"],
        "person": "mi hermana|el vecino|la maestra|Carlos|nadie|nuestro capitán".split("|"),
        "deed": "encuentra|lleva|cuenta|olvida|mira|lava".split("|"),
        "things": "cajas rojas|sillas|botellas|cartas|manzanas|chaquetas verdes".split("|"),
        "place": "en la cocina|detrás de la casa|el jueves|antes del desayuno|debajo del puente".split("|"),
    },
}
# Voices of eSpeak NG, each with the language of `LANGUAGES` that it speaks.
VOICES = [
    *((voice, "en") for voice in ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029")),
    *((voice, "en") for voice in ("en-us-nyc", "en-gb-x-gbcwmd")),
    *(("de", "de"), ("fr", "fr"), ("es", "es"), ("es-419", "es")),
]
# Variants change the timbre of a voice: seven male, five female, and some with names of their own.
VARIANTS = [*(f"m{number}" for number in range(1, 8)), *(f"f{number}" for number in range(1, 6))]
VARIANTS += ["Andy", "Annie", "Alicia", "Denis", "Lee", "Mike", "anika", "belinda", "edward", "linda", "steph", "zac"]
# Words per minute. Slower and faster speech is hard to understand.
SPEEDS = (120, 195)
# On eSpeak NG's scale of 0 to 100; 50 is the voice's own.
PITCHES = (25, 80)
PITCH_RANGES = (20, 80)
# Allowed length of a clip, in seconds.
SECONDS = (2.0, 6.0)
# Peak scale that leaves room for the overshoot of resampling.
PEAK_SCALE = 0.9
SETTINGS_FILE = "settings.json"
# Constants of eSpeak NG's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
CHARACTERS_UTF8 = 1
PARAMETER_RATE, PARAMETER_PITCH, PARAMETER_RANGE = 1, 3, 4


class SpeechSynthesizer:
    """eSpeak NG in its initial state: two synthesizers with one seed give the same samples.

    Args:
        seed: Random seed of the breath noise of the voices.

    Raises:
        ImportError: If espeakng-loader is not installed.
        RuntimeError: If eSpeak NG does not start.
    """

    def __init__(self, seed: int):
        try:
            import espeakng_loader
        except ImportError as error:
            raise ImportError(
                "The demo's speech is synthesised with eSpeak NG, which is not installed: pip install espeakng-loader"
            ) from error
        # eSpeak NG keeps the state of its voices in global variables. A library loaded from a copy has its own.
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
        # The library keeps no reference to the callback, so this object must.
        self._callback = callback_type(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: int | None, count: int, events: int) -> int:
        if samples and count > 0:
            self._pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    def has_voice(self, voice: str) -> bool:
        """Selects a voice and returns whether it exists.

        Args:
            voice: Name of a voice, or "VOICE+VARIANT".
        """
        return self._library.espeak_SetVoiceByName(voice.encode()) == 0

    def say(self, text: str, voice: str, speed: int, pitch: int, pitch_range: int) -> np.ndarray:
        """Speaks a sentence.

        Args:
            text: Sentence in the language of the voice.
            voice: Name of a voice, or "VOICE+VARIANT".
            speed: Words per minute.
            pitch: Base pitch, 0 to 100.
            pitch_range: Range of the intonation, 0 to 100.

        Returns:
            Samples of shape (samples,), float32, at `self.sampling_rate`.

        Raises:
            RuntimeError: If the voice does not exist or the synthesis fails.
        """
        if not self.has_voice(voice):
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
    """Returns a random sentence.

    Args:
        generator: Random generator.
        language: Key of `LANGUAGES`.
    """
    lists = LANGUAGES[language]
    sentence = str(generator.choice(lists["patterns"]))
    while "{" in sentence:
        name = sentence[sentence.index("{") + 1 : sentence.index("}")]
        word = str(generator.integers(2, 1000)) if name == "number" else str(generator.choice(lists[name]))
        sentence = sentence.replace("{" + name + "}", word, 1)
    return sentence + "."


def make_clip(
    synthesizer: SpeechSynthesizer, generator: np.random.Generator, sampling_rate: int
) -> tuple[np.ndarray, str, str]:
    """Synthesises sentences until one has an allowed length.

    Args:
        synthesizer: Source of the speech.
        generator: Random generator of sentence, voice, speed and pitch.
        sampling_rate: Sampling rate of the clip, in Hz.

    Returns:
        Samples of shape (samples,), float32; the voice; the text.
    """
    while True:
        voice, language = VOICES[generator.integers(len(VOICES))]
        voice = f"{voice}+{generator.choice(VARIANTS)}"
        text = make_sentence(generator, language)
        speed, pitch = int(generator.integers(*SPEEDS)), int(generator.integers(*PITCHES))
        spoken = synthesizer.say(text, voice, speed, pitch, int(generator.integers(*PITCH_RANGES)))
        divisor = math.gcd(synthesizer.sampling_rate, sampling_rate)
        samples = resample_poly(spoken, sampling_rate // divisor, synthesizer.sampling_rate // divisor)
        if SECONDS[0] <= len(samples) / sampling_rate <= SECONDS[1]:
            return samples, voice, text


def make_speech(
    output_dir: str | os.PathLike, num_clips: int = 600, seed: int = 0, sampling_rate: int = 16000
) -> Path:
    """Writes a folder of mono 16-bit FLAC clips and a `metadata.csv` with voice and text of each.

    The folder appears when it is complete. A complete folder made with the same settings is used again.

    Args:
        output_dir: Output folder.
        num_clips: Number of clips, 1 or more, of 2 to 6 seconds each.
        seed: Random seed of sentences and voices, 0 or more.
        sampling_rate: Sampling rate of the clips, in Hz.

    Returns:
        The folder.

    Raises:
        ImportError: If espeakng-loader is not installed.
        FileExistsError: If the folder exists and was made with other settings.
        ValueError: If `num_clips` is below 1.
    """
    output_dir = Path(output_dir)
    settings = {"num_clips": num_clips, "seed": seed, "sampling_rate": sampling_rate}
    if num_clips < 1:
        raise ValueError(f"num_clips is {num_clips}; it must be 1 or more.")
    if _is_complete(output_dir, settings):
        return output_dir
    synthesizer = SpeechSynthesizer(seed)
    generator = np.random.default_rng(seed)
    with staged_directory(output_dir) as folder:
        rows = []
        for index in logging.tqdm(range(num_clips), desc="Synthesising speech", unit="clip"):
            samples, voice, text = make_clip(synthesizer, generator, sampling_rate)
            file_name = f"clip_{index:05d}.flac"
            soundfile.write(folder / file_name, PEAK_SCALE * samples, sampling_rate, subtype="PCM_16")
            rows.append((file_name, voice, text))
        with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file_name", "voice", "text"), *rows])
        (folder / SETTINGS_FILE).write_text(json.dumps(settings) + "\n", encoding="utf-8")
    return output_dir


def _is_complete(folder: Path, settings: dict[str, int]) -> bool:
    if not folder.exists():
        return False
    found = folder / SETTINGS_FILE
    made_with = json.loads(found.read_text(encoding="utf-8")) if found.is_file() else None
    if made_with != settings or len(list(folder.glob("clip_*.flac"))) != settings["num_clips"]:
        raise FileExistsError(
            f"{folder} exists and is not speech made with {settings} (its settings: {made_with}). Delete it or give "
            "another folder."
        )
    return True
