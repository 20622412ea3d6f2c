"""Evaluation of frozen encoders: words, speakers and unit purity, on data that is prepared once for all encoders."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel

from experiments.hidden_states import last_hidden_states
from experiments.probe import word_accuracy
from experiments.speaker_probe import speaker_accuracy, speaker_utterances, without_test_segments
from experiments.unit_purity import REFERENCE_SEED, frame_units, unit_purity
from hf_prunable.data.audio import decode_audio
from hf_prunable.data.speech_commands import load_speech_commands
from hf_prunable.data.speech_dataset import load_speech_dataset, scan_speech_dataset, split_held_out
from hf_prunable.runtime.messages import first_names


@dataclass(kw_only=True)
class EvaluationArguments:
    """Audio for distillation and data for evaluation."""

    dataset_name: str | None = field(default=None, metadata={"help": "Folder of audio for distillation."})
    speech_commands: str | None = field(
        default=None, metadata={"help": "Folder of the extracted Speech Commands archive, for word accuracy."}
    )
    librispeech: str | None = field(
        default=None, metadata={"help": "Folder of LibriSpeech, for speaker accuracy; default: `dataset_name`."}
    )
    crop_seconds: float = field(default=2.0, metadata={"help": "Length of the training crops in seconds."})
    held_out_fraction: float = field(
        default=0.1, metadata={"help": "Fraction of the clips held out for evaluation, between 0 and 1."}
    )
    held_out_seed: int = field(
        default=42, metadata={"help": "Random seed of the held-out split; the same for all trainings."}
    )


class EncoderEvaluation:
    """Clips for distillation, and evaluation of encoders on clips that are not trained on.

    Clips shorter than `crop_seconds` and the seconds that speakers are tested on are removed from the training clips.

    Args:
        teacher: Base model whose k-means units are the reference of the unit purity.
        feature_extractor: Feature extractor of the teacher's checkpoint.
        options: Data folders, split and crop length.

    Raises:
        ValueError: If clips of the validation or test list of Speech Commands are among the training clips.
    """

    def __init__(self, teacher: PreTrainedModel, feature_extractor: Any, options: EvaluationArguments):
        self.teacher, self.feature_extractor = teacher, feature_extractor
        self.speech_commands = options.speech_commands
        rate, min_seconds = feature_extractor.sampling_rate, options.crop_seconds
        self.utterances = speaker_utterances(options.librispeech or options.dataset_name, rate)
        clips, _ = scan_speech_dataset(
            load_speech_dataset(options.dataset_name), sampling_rate=rate, min_seconds=min_seconds
        )
        train_clips, self.held_out_clips = split_held_out(
            clips, fraction=options.held_out_fraction, seed=options.held_out_seed
        )
        _check_no_tested_words(train_clips, options.speech_commands)
        train_clips = without_test_segments(train_clips, self.utterances, rate)
        self.train_clips, _ = scan_speech_dataset(train_clips, sampling_rate=rate, min_seconds=min_seconds)

    @cached_property
    def teacher_units(self) -> np.ndarray:
        """K-means units of the teacher for the held-out frames, of shape (frames,)."""
        return frame_units(self._held_out_frames(self.teacher), REFERENCE_SEED)

    def __call__(self, model: PreTrainedModel) -> dict[str, dict]:
        """Evaluates an encoder.

        Args:
            model: Base model.

        Returns:
            "words", "speakers" and "units": the results of `word_accuracy`, `speaker_accuracy` and `unit_purity`.
        """
        self.teacher.to(model.device)
        return {
            "words": word_accuracy(model, self.feature_extractor, self.speech_commands),
            "speakers": speaker_accuracy(model, self.feature_extractor, self.utterances),
            "units": unit_purity(self._held_out_frames(model), self.teacher_units),
        }

    def _held_out_frames(self, model: PreTrainedModel) -> np.ndarray:
        rate = self.feature_extractor.sampling_rate
        waveforms = [decode_audio(clip["audio"], rate) for clip in self.held_out_clips]
        return last_hidden_states(model, self.feature_extractor, waveforms)


def _check_no_tested_words(train_clips: Dataset, speech_commands: str) -> None:
    tested = {
        file for split in ("validation", "test") for file in _files(load_speech_commands(speech_commands, split))
    }
    seen = sorted(tested.intersection(_files(train_clips)))
    if seen:
        raise ValueError(
            f"{len(seen)} clips of the validation and test lists of {speech_commands} are among the audio for "
            f"distillation: {first_names(seen)}. Give a `dataset_name` without them."
        )


def _files(clips: Dataset) -> list[str]:
    paths = [clip["audio"]["path"] for clip in clips.select_columns("audio")]
    return [os.path.realpath(path) for path in paths if path]
