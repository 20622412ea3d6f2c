"""Audio clips, from files or bytes to mono float32 samples, and data sets with a column of undecoded ones."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence

import numpy as np
import soundfile
from datasets import Audio, Dataset, IterableDataset
from scipy.signal import resample_poly


# The formats soundfile reads without further libraries.
AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
# The only storage in which a sample can be NaN or infinite.
FLOATING_SUBTYPES = ("FLOAT", "DOUBLE")
# What libsndfile reports for a stream that does not know its length, such as FLAC written to a pipe; soundfile fails on
# reading it.
UNKNOWN_FRAMES = 2**63 - 1

UNREADABLE = "unreadable"
EMPTY = "empty"
NOT_FINITE = "with NaN or infinite samples"


class AudioError(ValueError):
    """One audio item that cannot be used.

    Args:
        message: Names the item and the cause.
        cause: The kind of fault in a few words, by which many such errors can be counted.
    """

    def __init__(self, message: str, cause: str = UNREADABLE):
        super().__init__(message)
        self.cause = cause


def audio_name(audio: dict | None) -> str:
    """The name by which a message speaks of an item: its path, or its size where it has no path."""
    audio = audio or {}
    if audio.get("path"):
        return str(audio["path"])
    return f"{len(audio['bytes'])} bytes without a name" if audio.get("bytes") else "an item without path and bytes"


def decode_audio(audio: dict | None, sampling_rate: int) -> np.ndarray:
    """Decodes one item to mono at a given rate.

    Several channels are averaged; another rate is converted with a polyphase filter.

    Args:
        audio: `{"path": ..., "bytes": ...}` as `datasets.Audio(decode=False)` gives it; bytes go before the path.
        sampling_rate: The rate of the result, in Hz.

    Returns:
        Samples of shape (samples,), float32.

    Raises:
        AudioError: If the item cannot be read, has no sample, or has one that is NaN or infinite.
    """
    try:
        with _open(audio) as sound_file:
            rate = sound_file.samplerate
            samples = sound_file.read(dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{audio_name(audio)}: cannot be decoded ({_reason(error)})") from error
    if len(samples) == 0:
        raise AudioError(f"{audio_name(audio)}: holds no samples", EMPTY)
    if not np.isfinite(samples).all():
        raise AudioError(f"{audio_name(audio)}: holds NaN or infinite samples", NOT_FINITE)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if rate != sampling_rate:
        divisor = math.gcd(rate, sampling_rate)
        mono = resample_poly(mono, sampling_rate // divisor, rate // divisor)
    return np.ascontiguousarray(mono, dtype=np.float32)


def count_samples(audio: dict | None, sampling_rate: int) -> int:
    """How many samples `decode_audio` will return, from the header alone where that suffices.

    Floating-point files, which may hold NaN, are decoded in full.

    Args:
        audio: `{"path": ..., "bytes": ...}` as `datasets.Audio(decode=False)` gives it.
        sampling_rate: The rate the count is for, in Hz.

    Raises:
        AudioError: If the item cannot be used.
    """
    with _open(audio) as sound_file:
        frames, rate, subtype = sound_file.frames, sound_file.samplerate, sound_file.subtype
    if subtype in FLOATING_SUBTYPES:
        return len(decode_audio(audio, sampling_rate))
    if frames == 0:
        raise AudioError(f"{audio_name(audio)}: holds no samples", EMPTY)
    return -(-frames * sampling_rate // rate)


def audio_dataset(files: Sequence[str | os.PathLike], **columns: Sequence) -> Dataset:
    """A data set of audio files, which stay undecoded, and further columns of the same length."""
    dataset = Dataset.from_dict({"audio": [os.path.abspath(file) for file in files], **columns})
    # Not by `features=`: that would ask for torchcodec.
    return dataset.cast_column("audio", Audio(decode=False))


def with_audio_column(dataset: Dataset | IterableDataset, name: str) -> Dataset | IterableDataset:
    """Finds the column that holds audio, makes it undecoded and names it `audio`.

    Args:
        dataset: The data set.
        name: How messages call it.

    Raises:
        ValueError: If there is no such column, or several and none is named `audio`; or a stream does not tell.
    """
    features = dataset.features
    if features is None:
        raise ValueError(f"{name}: its columns are not known before it is read; it cannot be streamed.")
    columns = [column for column, feature in features.items() if isinstance(feature, Audio)]
    if not columns:
        # What is left of an Audio feature when a parquet file was written without datasets.
        columns = [
            column
            for column, feature in features.items()
            if isinstance(feature, dict) and {"bytes"} <= feature.keys() <= {"bytes", "path"}
        ]
    if not columns:
        raise ValueError(f"{name}: no column holds audio; the columns are {', '.join(features)}.")
    if len(columns) > 1 and "audio" not in columns:
        raise ValueError(f"{name}: several columns hold audio ({', '.join(columns)}); name the right one 'audio'.")
    column = "audio" if "audio" in columns else columns[0]
    dataset = dataset.cast_column(column, Audio(decode=False))
    return dataset if column == "audio" else dataset.rename_column(column, "audio")


def undecoded_audio(dataset: Dataset) -> Dataset:
    """The column `audio` alone, as `{"path": ..., "bytes": ...}`, whatever the data set's own form.

    Raises:
        ValueError: If there is no such column.
    """
    if "audio" not in dataset.column_names:
        raise ValueError(f"There is no column 'audio'; the columns are {', '.join(dataset.column_names)}.")
    clips = dataset.select_columns("audio").with_format(None)
    return (
        clips.cast_column("audio", Audio(decode=False)) if getattr(clips.features["audio"], "decode", True) else clips
    )


def _open(audio: dict | None) -> soundfile.SoundFile:
    audio = audio or {}
    content, path = audio.get("bytes"), audio.get("path")
    if content is None and not path:
        raise AudioError(f"{audio_name(audio)}: nothing to decode")
    if content is not None and len(content) == 0:
        raise AudioError(f"{audio_name(audio)}: holds no bytes", EMPTY)
    if content is None and not os.path.isfile(path):
        raise AudioError(f"{path}: there is no such file")
    if content is None and os.path.getsize(path) == 0:
        raise AudioError(f"{path}: holds no bytes", EMPTY)
    try:
        sound_file = soundfile.SoundFile(io.BytesIO(content) if content is not None else path)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{audio_name(audio)}: cannot be opened ({_reason(error)})") from error
    if sound_file.frames == UNKNOWN_FRAMES:
        sound_file.close()
        raise AudioError(f"{audio_name(audio)}: its header does not tell its length; encode it again")
    return sound_file


def _reason(error: soundfile.LibsndfileError) -> str:
    # Without the prefix, which repeats a path or shows a memory address.
    return error.error_string.strip().rstrip(".")
