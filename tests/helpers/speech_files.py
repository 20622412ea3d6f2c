"""Audio files for the tests of speech data, made on the spot."""

import io
import random
import tarfile

import numpy as np
import soundfile
import torch

from hf_prunable.data.speech_dataset import load_speech_dataset


RATE = 16000


def tone(seconds, rate=RATE, frequency=440.0):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path, samples, rate=RATE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return {"path": str(path), "bytes": None}


def wav_bytes(samples):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV")
    return buffer.getvalue()


def write_truncated_flac(path):
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    item = write(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return item


def clips_of_constants(folder):
    """A data set of seven clips, each of a constant value and a length of its own: 1000 to 1006 samples."""
    for index in range(7):
        write(folder / f"{index}.wav", np.full(1000 + index, index / 10), subtype="FLOAT")
    return load_speech_dataset(folder)


def disturb_random_state():
    """Changes the global random state, on which nothing under test may depend."""
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)


def write_speech_commands(root, clips, validation=(), test=(), seconds=0.05, extension="wav"):
    """A tree in the layout of Speech Commands.

    Args:
        root: Folder of the tree.
        clips: Names of the clips, such as "word/speaker_nohash_0".
        validation, test: Names of the clips on the two lists.
        seconds: Length of each clip in seconds.
        extension: File name extension of the clips; on the lists it is always .wav.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(seconds), RATE, format=extension.upper())
    for clip in clips:
        path = root / f"{clip}.{extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    write(root / "_background_noise_" / "pink_noise.wav", tone(0.1))
    for name, listed in (("validation_list.txt", validation), ("testing_list.txt", test)):
        (root / name).write_text("".join(f"{clip}.wav\n" for clip in listed))
    return root


def pack(root, archive, top="."):
    """A folder as a .tar.gz, its members under `top`."""
    with tarfile.open(archive, "w:gz") as file:
        file.add(root, top)
    return archive
