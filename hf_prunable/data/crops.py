"""Crops of clips: of a long recording, only the samples that a crop depends on are decoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
from transformers.utils import logging

from .audio import (
    AudioError,
    EncodedAudio,
    audio_name,
    decode_audio,
    open_audio,
    read_frames,
    resampled_length,
    to_waveform,
)


logger = logging.get_logger(__name__)

# Formats and subtypes in which samples that are read from any position equal those of the whole file to the bit. Vorbis,
# MP3 and ADPCM do not keep this, nor do AU files whose header gives a wrong position.
SEEKABLE_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "NIST", "FLAC")
SEEKABLE_SUBTYPES = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
# Clips up to this length in seconds are decoded whole, which finds damage anywhere in them.
MAX_WHOLE_SECONDS = 30.0
# Length of one side of the filter of `scipy.signal.resample_poly`, in samples of the lower of the two rates.
FILTER_SIDE = 10


def decode_parts(
    audio: EncodedAudio | None, sampling_rate: int, choose: Callable[[int], Sequence[slice]]
) -> tuple[int, list[np.ndarray]]:
    """Decodes parts of one audio item, equal to those of `decode_audio` to the bit.

    If a part cannot be read, the item is decoded whole.

    Args:
        audio: The item before decoding.
        sampling_rate: Sampling rate of the result in Hz.
        choose: Function from the length of the whole item in samples to the parts, each with start and stop. It may be
            called twice, if the header gives a wrong length.

    Returns:
        Length of the whole item in samples, and the parts, each of shape (samples,), float32.

    Raises:
        AudioError: If the item cannot be read, has no samples, or a part has NaN or infinite samples.
    """
    with open_audio(audio) as sound_file:
        if _is_worth_seeking(sound_file):
            num_samples = resampled_length(sound_file.frames, sound_file.samplerate, sampling_rate)
            try:
                return num_samples, [
                    _read_part(audio, sound_file, sampling_rate, part) for part in choose(num_samples)
                ]
            except AudioError as error:
                # Then the whole item says what is wrong with it, or how long it really is.
                logger.info(f"Decoding the whole file: {error}")
    waveform = decode_audio(audio, sampling_rate)
    return len(waveform), [waveform[part] for part in choose(len(waveform))]


@dataclass(frozen=True)
class CropReader:
    """Reads what is needed of a clip for one item of a micro-batch.

    Attributes:
        sampling_rate: Sampling rate of the waveforms in Hz.
        crop_seconds: Length in seconds of the longest crop, above 0; by default, clips are read whole.
        min_seconds: Length in seconds below which a clip is an error.
        shortest_crop: Length of the shortest crops as a fraction of the longest ones, above 0 and at most 1.
    """

    sampling_rate: int
    crop_seconds: float = math.inf
    min_seconds: float = 0.0
    shortest_crop: float = 1.0

    def read(self, audio: EncodedAudio | None, position: float, length: float = 1.0) -> dict[str, Any]:
        """Decodes one clip as far as `CropCollator` needs it.

        Args:
            audio: The clip before decoding.
            position: Where to crop, in [0, 1), from the earliest to the latest crop.
            length: How long to crop, in [0, 1], from the shortest to the longest crop.

        Returns:
            `waveform`: part of the clip that holds its crop at any length up to `crop_seconds`, of shape (samples,),
            float32. `crop_position`: the position. `crop_fraction`: length of the crop as a fraction of the longest ones.
            `first_sample`: where the part begins in the clip. `num_samples`: length of the clip.

        Raises:
            AudioError: If the clip cannot be decoded or is too short.
        """
        num_samples, (waveform,) = decode_parts(
            audio, self.sampling_rate, lambda num_samples: [self._part(num_samples, position)]
        )
        if num_samples < round(self.min_seconds * self.sampling_rate):
            raise AudioError(
                f"{audio_name(audio)}: has {num_samples / self.sampling_rate:.2f} s, less than {self.min_seconds:g} s"
            )
        return {
            "waveform": waveform,
            "crop_position": position,
            "crop_fraction": self.shortest_crop + length * (1 - self.shortest_crop),
            "first_sample": self._part(num_samples, position).start,
            "num_samples": num_samples,
        }

    def _part(self, num_samples: int, position: float) -> slice:
        if self.crop_seconds * self.sampling_rate >= num_samples:
            return slice(0, num_samples)
        length = round(self.crop_seconds * self.sampling_rate)
        start = crop_start(position, num_samples, length)
        # Rounding can move a shorter crop one sample to the right.
        return slice(start, min(start + length + 1, num_samples))


def crop_start(position: float, num_samples: int, length: int) -> int:
    """First sample of a crop.

    Args:
        position: Position from the earliest crop, 0, to the latest, 1.
        num_samples: Length of the clip in samples.
        length: Length of the crop in samples, at most `num_samples`.
    """
    return round(position * (num_samples - length))


def _is_worth_seeking(sound_file: soundfile.SoundFile) -> bool:
    return (
        sound_file.frames > MAX_WHOLE_SECONDS * sound_file.samplerate
        and sound_file.format in SEEKABLE_FORMATS
        and sound_file.subtype in SEEKABLE_SUBTYPES
        and sound_file.seekable()
    )


def _read_part(
    audio: EncodedAudio | None, sound_file: soundfile.SoundFile, sampling_rate: int, part: slice
) -> np.ndarray:
    """Reads the samples of one part, and those beside it that the resampling filter reaches."""
    divisor = math.gcd(sound_file.samplerate, sampling_rate)
    up, down = sampling_rate // divisor, sound_file.samplerate // divisor
    margin = 0 if up == down else FILTER_SIDE * max(up, down) // up + 1
    # A multiple of `down`, so that the samples of the result lie where those of the whole file lie.
    first = max(0, part.start * down // up - margin) // down * down
    last = min(sound_file.frames, part.stop * down // up + margin + 1)
    samples = read_frames(audio, sound_file, last - first, first)
    if len(samples) < last - first:
        raise AudioError(f"{audio_name(audio)}: ends before the length in its header")
    before = first // down * up
    return to_waveform(audio, samples, sound_file.samplerate, sampling_rate)[part.start - before : part.stop - before]
