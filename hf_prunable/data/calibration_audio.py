"""Crops of one length that statistics of a model are taken from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from transformers import Wav2Vec2FeatureExtractor
from transformers.utils import logging

from .audio import AudioError, EncodedAudio, undecoded_audio
from .batches import CropCollator
from .crops import decode_parts
from .streaming import SpeechStream, clip_digest


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class CropRequest:
    """Number, length and random seed of calibration crops.

    Attributes:
        num_crops: Number of crops, 1 or more.
        seconds: Length of each crop in seconds, above 0.
        seed: Random seed of clips and positions, 0 or more.

    Raises:
        ValueError: If a value is out of range.
    """

    num_crops: int
    seconds: float
    seed: int

    def __post_init__(self):
        if self.num_crops < 1:
            raise ValueError(f"`calibration_clips` is {self.num_crops}; it must be 1 or more.")
        if not self.seconds > 0:
            raise ValueError(f"`calibration_seconds` is {self.seconds}; it must be above 0.")


@dataclass(frozen=True)
class CalibrationAudio:
    """Crops of speech and where they come from.

    Attributes:
        waveforms: Crops, each passed through the feature extractor, of shape (crops, samples), float32.
        num_clips: Number of clips that the crops were cut from.
        num_too_short: Number of clips that were left out because they are shorter than a crop. Of a stream, only clips
            up to the last one used are counted.
        seconds: Length of a crop in seconds.
    """

    waveforms: torch.Tensor
    num_clips: int
    num_too_short: int
    seconds: float


def read_calibration_audio(
    clips: Dataset | SpeechStream, feature_extractor: Wav2Vec2FeatureExtractor, request: CropRequest
) -> CalibrationAudio:
    """Cuts crops out of clips, a function of the seed alone.

    A data set gives one crop of each clip as long as there are enough clips, and then further crops of longer clips, which
    do not overlap. A stream gives one crop of each clip.

    Args:
        clips: Data set with columns `audio` and `seconds`, or a stream.
        feature_extractor: Feature extractor of the model; its settings apply to each crop.
        request: Number, length and random seed of the crops.

    Raises:
        ValueError: If the clips hold too few crops.
    """
    if isinstance(clips, SpeechStream):
        crops, num_clips, num_too_short = _crops_of_stream(clips, feature_extractor.sampling_rate, request)
    else:
        crops, num_clips, num_too_short = _crops_of_dataset(clips, feature_extractor.sampling_rate, request)
    if num_too_short:
        logger.warning(
            f"{num_too_short} clips are shorter than {request.seconds:g} s and are not used for calibration."
        )
    collator = CropCollator(feature_extractor, request.seconds)
    batch = collator([{"waveform": crop, "crop_position": 0.0, "crop_fraction": 1.0} for crop in crops])
    return CalibrationAudio(batch["input_values"], num_clips, num_too_short, request.seconds)


def _crops_of_dataset(dataset: Dataset, sampling_rate: int, request: CropRequest) -> tuple[list[np.ndarray], int, int]:
    """Returns crops, the number of clips that they are from, and the number of clips that are too short."""
    length = round(request.seconds * sampling_rate)
    capacities = [round(seconds * sampling_rate) // length for seconds in dataset["seconds"][:]]
    num_too_short = capacities.count(0)
    clips = undecoded_audio(dataset)
    order = np.random.default_rng((request.seed, 2)).permutation(len(capacities)).tolist()
    while True:
        counts = _counts_by_clip(capacities, order, request)
        crops: list[np.ndarray] = []
        for clip, count in counts.items():
            generator = np.random.default_rng((request.seed, clip, 3))
            try:
                num_samples, parts = _random_crops(clips[clip]["audio"], sampling_rate, length, count, generator)
            except AudioError as error:
                logger.warning(f"Taking another clip instead: {error}")
                num_samples, parts = 0, []
            if not parts:
                capacities[clip] = num_samples // length
                break
            crops += parts
        else:
            return crops, len(counts), num_too_short


def _counts_by_clip(capacities: Sequence[int], order: Sequence[int], request: CropRequest) -> dict[int, int]:
    """Returns the number of crops of each clip that is used.

    Args:
        capacities: Largest number of crops of each clip that do not overlap.
        order: Indices of the clips in random order.
        request: Number of crops.

    Raises:
        ValueError: If the clips hold too few crops.
    """
    if sum(capacities) < request.num_crops:
        raise _too_few(sum(capacities), request)
    counts: dict[int, int] = {}
    num_left = request.num_crops
    while num_left:
        longer = [clip for clip in order if capacities[clip] > counts.get(clip, 0)][:num_left]
        counts |= {clip: counts.get(clip, 0) + 1 for clip in longer}
        num_left -= len(longer)
    return counts


def _random_crops(
    audio: EncodedAudio | None, sampling_rate: int, length: int, count: int, generator: np.random.Generator
) -> tuple[int, list[np.ndarray]]:
    """Decodes random crops of a clip that do not overlap, in ascending order.

    Args:
        audio: The clip before decoding.
        sampling_rate: Sampling rate of the crops in Hz.
        length: Length of a crop in samples.
        count: Number of crops.
        generator: Source of the positions.

    Returns:
        The length of the clip in samples, and the crops; none if the clip is too short.

    Raises:
        AudioError: If the clip cannot be decoded.
    """
    state = generator.bit_generator.state

    def choose(num_samples: int) -> list[slice]:
        # The same draws if the clip turns out to be of another length.
        generator.bit_generator.state = state
        if num_samples < count * length:
            return []
        gaps = np.sort(generator.integers(0, num_samples - count * length, endpoint=True, size=count))
        starts = [int(gap) + index * length for index, gap in enumerate(gaps)]
        return [slice(start, start + length) for start in starts]

    return decode_parts(audio, sampling_rate, choose)


def _crops_of_stream(
    stream: SpeechStream, sampling_rate: int, request: CropRequest
) -> tuple[list[np.ndarray], int, int]:
    """Returns crops, the number of clips that they are from, and the number of clips passed over as too short."""
    length = round(request.seconds * sampling_rate)
    generator = np.random.default_rng((request.seed, 3))
    crops: list[np.ndarray] = []
    num_too_short = 0
    clips = stream.clips.select_columns("audio").shuffle(
        seed=request.seed, buffer_size=stream.shuffle_buffer, max_buffer_input_shards=1
    )
    for clip in clips:
        if clip_digest(clip["audio"]) in stream.held_out:
            continue
        try:
            _, crop = _random_crops(clip["audio"], sampling_rate, length, 1, generator)
        except AudioError as error:
            logger.warning(f"Taking the next clip instead: {error}")
            continue
        num_too_short += not crop
        crops += crop
        if len(crops) == request.num_crops:
            return crops, len(crops), num_too_short
    raise _too_few(len(crops), request)


def _too_few(num_crops: int, request: CropRequest) -> ValueError:
    return ValueError(
        f"`calibration_clips` is {request.num_crops} and `calibration_seconds` {request.seconds:g}, but the training clips "
        f"hold only {num_crops} crops of that length. Give more audio, or ask for fewer or shorter crops."
    )
