"""Evaluation of a student beside its teacher: hidden states, words, speakers and k-means units, on audio not trained on."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, Wav2Vec2FeatureExtractor

from experiments.cross_validation import ProbeTask, SpeechCommandsProbes, at_depth, truth_bits
from experiments.split_audio import SplitAudio
from experiments.student_measurement import measure_student
from experiments.teacher_units import TeacherUnits
from experiments.weighted_sum_probe import WeightedSumProbe
from hf_prunable.runtime.evaluation_mode import evaluation_mode


class EncoderEvaluation:
    """Measures encoders on held-out audio and on Speech Commands.

    Args:
        teacher: Base model that encoders are compared with.
        feature_extractor: Feature extractor of the teacher's checkpoint.
        audio: Audio with held-out crops.
        speech_commands: Folder of Speech Commands.

    Raises:
        ValueError: If fewer than two clips are held out.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        feature_extractor: Wav2Vec2FeatureExtractor,
        audio: SplitAudio,
        speech_commands: str,
    ):
        if len(audio.held_out_clips) < 2:
            raise ValueError("One clip is held out, but intervals need two. Hold out more, or give more clips.")
        self.teacher, self.audio = teacher, audio
        self.probes = SpeechCommandsProbes(speech_commands, feature_extractor)

    @cached_property
    def teacher_features(self) -> np.ndarray:
        """The teacher's features of all clips of Speech Commands."""
        return self.probes.features(self.teacher)

    @cached_property
    def teacher_probes(self) -> dict[str, list[WeightedSumProbe]]:
        """Probes of each fold, trained on the teacher's features, by task."""
        return {name: task.fit(self.teacher_features) for name, task in self.probes.tasks.items()}

    @cached_property
    def teacher_units(self) -> TeacherUnits:
        """Clusters of the teacher's last hidden states."""
        return TeacherUnits(self._last_hidden_states(self.teacher))

    def __call__(self, model: PreTrainedModel) -> dict[str, Any]:
        """Evaluates an encoder.

        Args:
            model: Base model.

        Returns:
            Result of `measure_student`; "words" and "speakers", with probes trained on the encoder and, as "drop_in", with
            the teacher's probes; "units", the agreement with the teacher's.
        """
        self.teacher.to(model.device)
        features = self.teacher_features if model is self.teacher else self.probes.features(model)
        result = measure_student(model, self.teacher, self.audio.held_out_batches())
        for name, task in self.probes.tasks.items():
            result[name] = self._classify(task, self.teacher_probes[name], features, model is self.teacher)
        return result | {"units": self._compare_units(model)}

    def _classify(
        self, task: ProbeTask, teacher_probes: list[WeightedSumProbe], features: np.ndarray, is_teacher: bool
    ) -> dict[str, Any]:
        drop_in = task.is_correct(teacher_probes, at_depth(features, self.teacher_features.shape[1]))
        correct = drop_in if is_teacher else task.is_correct(task.fit(features), features)
        return task.result(correct) | {
            "drop_in_accuracy": float(drop_in.mean()),
            "drop_in_correct": truth_bits(drop_in),
        }

    def _compare_units(self, model: PreTrainedModel) -> dict[str, Any]:
        is_same = self.teacher_units.is_same(self._last_hidden_states(model))
        frames_per_crop = len(is_same) // len(self.audio.held_out)
        frames = [frames_per_crop * crops for crops in self.audio.crops_per_clip]
        by_clip = np.split(is_same, np.cumsum(frames)[:-1])
        return {
            "agreement": float(is_same.mean()),
            "agreement_by_chance": self.teacher_units.agreement_by_chance,
            "num_units": self.teacher_units.num_units,
            "agreeing_frames": [int(same.sum()) for same in by_clip],
            "group_sizes": frames,
        }

    def _last_hidden_states(self, model: PreTrainedModel) -> np.ndarray:
        """Computes the last hidden state of all held-out frames, crop after crop; shape (frames, hidden size)."""
        with evaluation_mode([model]):
            states = [
                model(batch["input_values"].to(model.device)).last_hidden_state.float().cpu()
                for batch in self.audio.held_out_batches()
            ]
        return torch.cat(states).flatten(0, 1).numpy()
