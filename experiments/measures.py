"""Everything that one encoder is measured on, with what all encoders share computed once."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel

from experiments.hidden_states import last_hidden_states
from experiments.probe import word_accuracy
from experiments.speakers import speaker_accuracy, speaker_utterances, without_test_segments
from experiments.units import REFERENCE_SEED, frame_units, unit_purity
from hf_prunable.data.audio import decode_audio
from hf_prunable.data.speech_commands import load_speech_commands
from hf_prunable.data.speech_dataset import load_speech_dataset, scan_speech_dataset, split_held_out
from hf_prunable.runtime.messages import first_names


class Measures:
    """Audio that is trained on, audio that is not, and what is measured on the second.

    Args:
        teacher: The base model that units are compared with.
        feature_extractor: Of its checkpoint.
        dataset_name: Audio to distil on, as `load_speech_dataset` takes it.
        speech_commands: Folder with the extracted archive, for words.
        librispeech: Folder of LibriSpeech, for speakers; its audio may be trained on, less the seconds for testing.
        held_out_fraction: Part of the audio to distil on that is kept for distillation loss and units.
        held_out_seed: Chooses that part.
        min_seconds: Shorter clips are not trained on.

    Raises:
        ValueError: If clips of the words' validation or test list are among those to train on.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        feature_extractor: Any,
        *,
        dataset_name: str,
        speech_commands: str,
        librispeech: str,
        held_out_fraction: float,
        held_out_seed: int,
        min_seconds: float,
    ):
        self.teacher, self.feature_extractor, self.speech_commands = teacher, feature_extractor, speech_commands
        rate = feature_extractor.sampling_rate
        self.utterances = speaker_utterances(librispeech, rate)
        clips, _ = scan_speech_dataset(load_speech_dataset(dataset_name), sampling_rate=rate, min_seconds=min_seconds)
        train_clips, self.held_out_clips = split_held_out(clips, fraction=held_out_fraction, seed=held_out_seed)
        _check_no_tested_words(train_clips, speech_commands)
        train_clips = without_test_segments(train_clips, self.utterances, rate)
        self.train_clips, _ = scan_speech_dataset(train_clips, sampling_rate=rate, min_seconds=min_seconds)

    @cached_property
    def teacher_units(self) -> np.ndarray:
        """The teacher's unit for each frame of the held-out audio, of shape (frames,)."""
        return frame_units(self._held_out_frames(self.teacher), REFERENCE_SEED)

    def __call__(self, model: PreTrainedModel) -> dict[str, dict]:
        """Measures a base model; see `word_accuracy`, `speaker_accuracy` and `unit_purity`.

        Returns:
            Results under "words", "speakers" and "units".
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
            f"{len(seen)} clips of the validation and test lists of {speech_commands} are among the audio to distil "
            f"on: {first_names(seen)}. Give a `dataset_name` without them."
        )


def _files(clips: Dataset) -> list[str]:
    paths = [clip["audio"]["path"] for clip in clips.select_columns("audio")]
    return [os.path.realpath(path) for path in paths if path]
