"""Audio of a folder, split by file name: held-out crops, and clips for training and calibration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_prunable.data.audio import audio_name, decode_audio
from hf_prunable.data.speech_commands import load_speech_commands
from hf_prunable.data.speech_dataset import load_speech_dataset, scan_speech_dataset


TESTING_LIST = "testing_list.txt"
# Held-out crops that are computed at once.
BATCH_SIZE = 8


def split_by_name(clips: Dataset, held_out_every: int) -> tuple[Dataset, Dataset]:
    """Splits clips by their file names: in sorted order, the first of every few is held out.

    Args:
        clips: Clips in a column `audio`.
        held_out_every: Number of file names of which one is held out, 2 or more.

    Returns:
        Clips for training and held-out clips, both in the order of their names.

    Raises:
        ValueError: If `held_out_every` is below 2, or there are fewer than two clips.
    """
    if held_out_every < 2:
        raise ValueError(f"`held_out_every` must be at least 2, but is {held_out_every}.")
    if len(clips) < 2:
        raise ValueError(f"There is {len(clips)} clip of the crops' length, but a split needs two or more.")
    names = clip_names(clips)
    order = sorted(range(len(names)), key=names.__getitem__)
    held_out = order[::held_out_every]
    return clips.select([index for index in order if index not in set(held_out)]), clips.select(held_out)


def clip_names(clips: Dataset) -> list[str]:
    """Returns the file name of each clip, without its folder.

    Args:
        clips: Clips in a column `audio`.
    """
    return [Path(audio_name(clip["audio"])).name for clip in clips.select_columns("audio")]


def load_clips(folder: str | os.PathLike, sampling_rate: int, min_seconds: float) -> Dataset:
    """Loads the clips of a folder that are long enough for a crop; of Speech Commands, those of the training split.

    Args:
        folder: Folder of audio files.
        sampling_rate: Sampling rate in Hz that clips are decoded to.
        min_seconds: Length in seconds below which clips are left out.
    """
    is_speech_commands = (Path(folder) / TESTING_LIST).is_file()
    clips = load_speech_commands(folder, "train") if is_speech_commands else load_speech_dataset(folder)
    return scan_speech_dataset(clips, sampling_rate=sampling_rate, min_seconds=min_seconds)[0]


def decode_clips(clips: Dataset, sampling_rate: int) -> list[np.ndarray]:
    """Decodes clips.

    Args:
        clips: Clips in a column `audio`.
        sampling_rate: Sampling rate of the waveforms in Hz.

    Returns:
        Waveforms of shape (samples,).
    """
    return [decode_audio(clip["audio"], sampling_rate) for clip in clips.select_columns("audio")]


def draw_crops(waveforms: Sequence[np.ndarray], num_crops: int, num_samples: int, seed: int) -> list[np.ndarray]:
    """Draws crops at random positions, one of each waveform before the second of any.

    The first crops of a longer draw with the same seed are those of a shorter one.

    Args:
        waveforms: Waveforms of shape (samples,); those that are shorter than a crop are left out.
        num_crops: Number of crops; 0 for all that follow each other without overlap, which no seed changes.
        num_samples: Length of a crop in samples.
        seed: Random seed of order and positions.

    Returns:
        Crops of shape (num_samples,).

    Raises:
        ValueError: If no waveform is long enough.
    """
    waveforms = [waveform for waveform in waveforms if len(waveform) >= num_samples]
    if not waveforms:
        raise ValueError(f"No clip has the {num_samples} samples of a crop. Ask for shorter crops.")
    if not num_crops:
        return all_crops(waveforms, num_samples)
    generator = np.random.default_rng(seed)
    crops: list[np.ndarray] = []
    while len(crops) < num_crops:
        for index in generator.permutation(len(waveforms)):
            start = generator.integers(len(waveforms[index]) - num_samples + 1)
            crops.append(waveforms[index][start : start + num_samples])
    return crops[:num_crops]


def all_crops(waveforms: Sequence[np.ndarray], num_samples: int) -> list[np.ndarray]:
    """Cuts waveforms into crops that follow each other; the rest of each is left out.

    Args:
        waveforms: Waveforms of shape (samples,).
        num_samples: Length of a crop in samples.
    """
    return [
        waveform[start : start + num_samples]
        for waveform in waveforms
        for start in range(0, len(waveform) - num_samples + 1, num_samples)
    ]


def model_inputs(crops: Sequence[np.ndarray], feature_extractor: Any) -> torch.Tensor:
    """Normalises crops as a model wants them.

    Args:
        crops: Crops of shape (samples,), all of one length.
        feature_extractor: Feature extractor of the model's checkpoint.

    Returns:
        Inputs of shape (crops, samples).
    """
    features = feature_extractor(
        list(crops),
        sampling_rate=feature_extractor.sampling_rate,
        padding=False,
        return_attention_mask=False,
        return_tensors="pt",
    )
    return features["input_values"]


class SplitAudio:
    """Clips of a folder, split by name: held-out crops, and clips for training and calibration.

    Args:
        folder: Folder of audio files.
        feature_extractor: Feature extractor of the teacher's checkpoint.
        crop_seconds: Length of held-out and calibration crops in seconds; shorter clips are left out.
        held_out_every: Number of file names of which one is held out.

    Attributes:
        train_clips: Clips that are not held out, in the order of their names.
        held_out_clips: Held-out clips, in the order of their names.
        held_out: Inputs of all crops of the held-out clips, clip after clip, of shape (crops, samples).
        crops_per_clip: Number of crops of each held-out clip.
    """

    def __init__(self, folder: str, feature_extractor: Any, crop_seconds: float, held_out_every: int):
        self.feature_extractor, rate = feature_extractor, feature_extractor.sampling_rate
        self.num_samples = round(crop_seconds * rate)
        self.train_clips, self.held_out_clips = split_by_name(load_clips(folder, rate, crop_seconds), held_out_every)
        waveforms = decode_clips(self.held_out_clips, rate)
        self.crops_per_clip = [len(waveform) // self.num_samples for waveform in waveforms]
        self.held_out = model_inputs(all_crops(waveforms, self.num_samples), feature_extractor)

    def held_out_batches(self) -> list[dict[str, torch.Tensor]]:
        """Returns the held-out crops as batches of `input_values`."""
        return [{"input_values": batch} for batch in self.held_out.split(BATCH_SIZE)]

    def calibration(self, num_crops: int, seed: int) -> torch.Tensor:
        """Draws crops for calibration.

        Args:
            num_crops: Number of crops; 0 for all.
            seed: Random seed of the draw.

        Returns:
            Inputs of shape (crops, samples).
        """
        return model_inputs(draw_crops(self._waveforms, num_crops, self.num_samples, seed), self.feature_extractor)

    @cached_property
    def _waveforms(self) -> list[np.ndarray]:
        return decode_clips(self.train_clips, self.feature_extractor.sampling_rate)
