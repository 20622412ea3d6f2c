"""Audio files for the tests of speech data, made on the spot."""

import io
import random

import numpy as np
import soundfile
import torch


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


def disturb_random_state():
    """Nothing that these tests are about may depend on a process's random state."""
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
