"""Decoding of audio from files or bytes to mono float32 samples, and data sets of undecoded audio."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
import soundfile
from datasets import Audio, Dataset
from scipy.signal import resample_poly

from ..runtime.messages import printable


# Usual endings of the formats that libsndfile reads.
AUDIO_EXTENSIONS = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3",
    ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".rf64", ".w64", ".sph", ".nist", ".voc",
)  # fmt: skip
# The only storage formats in which a sample can be NaN or infinite.
FLOATING_SUBTYPES = ("FLOAT", "DOUBLE")
# Sampling rates in Hz outside of which a header is taken to be damaged: the number of samples after resampling and the
# length of the resampling filter grow without limit. 768 kHz is the highest rate of audio converters.
MIN_RATE, MAX_RATE = 1_000, 768_000
# Values that are checked at a time when only the length of a file is needed.
BLOCK_VALUES = 2**20
# Length that libsndfile reports if the header does not give it, as in FLAC written to a pipe; soundfile then fails to
# read the samples.
UNKNOWN_FRAMES = 2**63 - 1

# An empty tag to be put before MP3 in memory that has none: libsndfile skips its first 12 bytes there, and then mostly does
# not recognise the rest.
ID3_TAG = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10)

UNREADABLE = "unreadable"
EMPTY = "empty"
NOT_FINITE = "with NaN or infinite samples"
IMPOSSIBLE_RATE = "with an impossible sampling rate"

# Errors of soundfile about one file: TypeError for audio without a header, ValueError and MemoryError for a length in the
# header that no array can have, ValueError for a file name that is not UTF-8.
FILE_ERRORS = (soundfile.SoundFileError, TypeError, ValueError, MemoryError)


class EncodedAudio(TypedDict, total=False):
    """One audio item before decoding, in the form of `datasets.Audio(decode=False)`.

    Attributes:
        path: Path of the file; only its name if `bytes` is given.
        bytes: Content of the file, which is decoded instead of the file at `path`.
    """

    path: str | None
    bytes: bytes | None


class AudioError(ValueError):
    """One audio item that cannot be used.

    Args:
        message: Message that names the item and the cause.
        cause: Kind of fault in a few words, by which errors are counted.
    """

    def __init__(self, message: str, cause: str = UNREADABLE):
        super().__init__(message)
        self.cause = cause


def audio_name(audio: EncodedAudio | None) -> str:
    """Name of an audio item for messages: its path, or its size if it has no path.

    Args:
        audio: The item; `None` if a data set has none in this row.
    """
    audio = audio or {}
    if audio.get("path"):
        return printable(str(audio["path"]))
    content = audio.get("bytes")
    return f"{len(content)} bytes without a name" if content else "an item without path and bytes"


def clip_name(audio: EncodedAudio | None, row: int) -> str:
    """Name of a clip of a data set for messages: its path, or its row if it has no path.

    Args:
        audio: The clip's audio item.
        row: Index of the clip in the data set.
    """
    return audio_name(audio) if audio is not None and audio.get("path") else f"row {row}"


def decode_audio(audio: EncodedAudio | None, sampling_rate: int) -> np.ndarray:
    """Decodes one audio item to mono at a given sampling rate.

    Channels are averaged. Another sampling rate is converted with a polyphase filter (`scipy.signal.resample_poly`).

    Args:
        audio: The item before decoding.
        sampling_rate: Sampling rate of the result in Hz.

    Returns:
        Samples of shape (samples,), float32.

    Raises:
        AudioError: If the item cannot be read, has no samples, or has NaN or infinite samples.
    """
    with open_audio(audio) as sound_file:
        rate = sound_file.samplerate
        samples = read_frames(audio, sound_file, sound_file.frames)
    return to_waveform(audio, samples, rate, sampling_rate)


def count_samples(audio: EncodedAudio | None, sampling_rate: int) -> int:
    """Number of samples that `decode_audio` will return, mostly from the header alone.

    Floating-point files are read in full, because they can hold NaN.

    Args:
        audio: The item before decoding.
        sampling_rate: Sampling rate of the decoded samples in Hz.

    Raises:
        AudioError: If the item cannot be used.
    """
    with open_audio(audio) as sound_file:
        frames, rate = sound_file.frames, sound_file.samplerate
        if sound_file.subtype in FLOATING_SUBTYPES:
            frames = _count_finite_frames(audio, sound_file)
    if frames < 1:
        raise AudioError(f"{audio_name(audio)}: holds no samples", EMPTY)
    return resampled_length(frames, rate, sampling_rate)


def resampled_length(frames: int, rate: int, sampling_rate: int) -> int:
    """Number of samples after resampling, rounded up as `resample_poly` does.

    Args:
        frames: Number of samples before.
        rate: Sampling rate before in Hz.
        sampling_rate: Sampling rate after in Hz.
    """
    return -(-frames * sampling_rate // rate)


def read_frames(
    audio: EncodedAudio | None, sound_file: soundfile.SoundFile, num_frames: int, start: int | None = None
) -> np.ndarray:
    """Reads samples of an open file.

    Args:
        audio: The item that was opened, for messages.
        sound_file: The open file.
        num_frames: Number of samples. If the file ends before, fewer are returned.
        start: First sample; by default the current position, which works in formats without seeking as well.

    Returns:
        Samples of shape (samples, channels), float32.

    Raises:
        AudioError: If they cannot be decoded.
    """
    try:
        if start is not None:
            sound_file.seek(start)
        # The number is always given: without it, soundfile refuses formats without seeking, such as GSM 6.10.
        return sound_file.read(num_frames, dtype="float32", always_2d=True)
    except FILE_ERRORS as error:
        raise AudioError(f"{audio_name(audio)}: cannot be decoded ({_reason(error)})") from error


def to_waveform(audio: EncodedAudio | None, samples: np.ndarray, rate: int, sampling_rate: int) -> np.ndarray:
    """Averages channels and converts the sampling rate.

    Args:
        audio: The item that the samples are from, for messages.
        samples: Samples of shape (samples, channels), float32.
        rate: Their sampling rate in Hz.
        sampling_rate: Sampling rate of the result in Hz.

    Returns:
        Samples of shape (samples,), float32.

    Raises:
        AudioError: If there are no samples, or NaN or infinite ones.
    """
    if len(samples) == 0:
        raise AudioError(f"{audio_name(audio)}: holds no samples", EMPTY)
    _check_finite(audio, samples)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if rate != sampling_rate:
        divisor = math.gcd(rate, sampling_rate)
        mono = resample_poly(mono, sampling_rate // divisor, rate // divisor)
    return np.ascontiguousarray(mono, dtype=np.float32)


def audio_dataset(
    files: Sequence[str | os.PathLike], metadata: Mapping[str, Sequence] | None = None, /, **columns: Sequence
) -> Dataset:
    """Makes a data set of audio files, which stay undecoded.

    Args:
        files: Paths of the audio files.
        metadata: Further columns by name, each with one value per file.
        **columns: The same as keyword arguments.

    Returns:
        A data set with the column `audio` (`Audio(decode=False)`) and the further columns.
    """
    dataset = Dataset.from_dict({"audio": [os.path.abspath(file) for file in files], **(metadata or {}), **columns})
    # Not with `features=`, which would need torchcodec.
    return dataset.cast_column("audio", Audio(decode=False))


def undecoded_audio(dataset: Dataset) -> Dataset:
    """Selects the column `audio` of a data set, with items as `EncodedAudio` whatever the data set's own format.

    Args:
        dataset: Data set with a column `audio`.

    Raises:
        ValueError: If there is no such column.
    """
    if "audio" not in dataset.column_names:
        raise ValueError(f"There is no column 'audio'; the columns are {', '.join(dataset.column_names)}.")
    clips = dataset.select_columns("audio").with_format(None)
    return (
        clips.cast_column("audio", Audio(decode=False)) if getattr(clips.features["audio"], "decode", True) else clips
    )


def open_audio(audio: EncodedAudio | None) -> soundfile.SoundFile:
    """Opens one audio item and reads its header.

    Args:
        audio: The item.

    Raises:
        AudioError: If it cannot be opened, its length is not known or its sampling rate is out of range.
    """
    audio = audio or {}
    content, path = audio.get("bytes"), audio.get("path")
    if content is not None:
        if len(content) == 0:
            raise AudioError(f"{audio_name(audio)}: holds no bytes", EMPTY)
        is_untagged_mp3 = content[0] == 0xFF and content[1:2] >= b"\xe0"
        source: io.BytesIO | str = io.BytesIO(ID3_TAG + content if is_untagged_mp3 else content)
    elif path:
        if not os.path.isfile(path):
            raise AudioError(f"{path}: there is no such file")
        if os.path.getsize(path) == 0:
            raise AudioError(f"{path}: holds no bytes", EMPTY)
        source = path
    else:
        raise AudioError(f"{audio_name(audio)}: nothing to decode")
    try:
        sound_file = soundfile.SoundFile(source)
    except FILE_ERRORS as error:
        raise AudioError(f"{audio_name(audio)}: cannot be opened ({_reason(error)})") from error
    fault = None
    if sound_file.frames == UNKNOWN_FRAMES:
        fault = AudioError(f"{audio_name(audio)}: its header does not contain its length; encode it again")
    elif not MIN_RATE <= sound_file.samplerate <= MAX_RATE:
        fault = AudioError(
            f"{audio_name(audio)}: its header gives a sampling rate of {sound_file.samplerate} Hz; possible are "
            f"{MIN_RATE} to {MAX_RATE} Hz",
            IMPOSSIBLE_RATE,
        )
    if fault is not None:
        sound_file.close()
        raise fault
    return sound_file


def _check_finite(audio: EncodedAudio | None, samples: np.ndarray) -> None:
    if not np.isfinite(samples).all():
        raise AudioError(f"{audio_name(audio)}: holds NaN or infinite samples", NOT_FINITE)


def _count_finite_frames(audio: EncodedAudio | None, sound_file: soundfile.SoundFile) -> int:
    """Counts the samples of an open file block by block; NaN or infinite ones are an error."""
    count = 0
    while count < sound_file.frames:
        block = read_frames(audio, sound_file, max(1, BLOCK_VALUES // sound_file.channels))
        if len(block) == 0:
            break
        _check_finite(audio, block)
        count += len(block)
    return count


def _reason(error: Exception) -> str:
    # Of libsndfile's errors without the prefix, which repeats a path or shows a memory address.
    return printable(getattr(error, "error_string", str(error)).strip().rstrip("."))
