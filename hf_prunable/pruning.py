"""One pruning run: a student, its teacher, the audio, and the stages between a dense and a small model."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedModel

from .compaction import compact
from .distillation import Distillation
from .modeling.auto import load_prunable
from .modeling.pretrained import check_weights
from .sparsity import Lagrangian
from .speech_data import CropCollator, RandomCrops
from .training import PruningObjective, PruningTrainer, PruningTrainingArguments


# Layer drop and SpecAugment break the match between the layers of teacher and student; dropout blurs it.
NOISE_OFF = {
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
}


# What of a checkpoint belongs to the base model; heads are left out.
ENCODER_PARTS = ("feature_extractor.conv_layers.", "feature_projection.", "encoder.")


def load_complete(pretrained_model_name_or_path: str | Path, **kwargs: Any) -> PreTrainedModel:
    """Loads a base model in float32, all of it from the checkpoint.

    Args:
        pretrained_model_name_or_path: A folder or a Hub id.
        **kwargs: Passed to `load_prunable`.

    Raises:
        ValueError: If the family is not supported, or configuration and weights disagree.
    """
    model, info = load_prunable(
        pretrained_model_name_or_path,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **kwargs,
    )
    wrong = {
        # Distillation is without SpecAugment, and many checkpoints are without its vector.
        "missing": set(info["missing_keys"]) - {"masked_spec_embed"},
        "of another size": {name for name, *_ in info["mismatched_keys"]},
        "without a place": {name for name in info["unexpected_keys"] if name.startswith(ENCODER_PARTS)},
    }
    check_weights(pretrained_model_name_or_path, wrong)
    return model


def load_student(pretrained_model_name_or_path: str | Path) -> tuple[PreTrainedModel, PreTrainedConfig]:
    """Loads a base model for distillation, in float32 and without dropouts, layer drop and SpecAugment.

    Returns:
        The model, and its configuration as it was stored: see `restore_noise_`.

    Raises:
        ValueError: If the family is not supported, or configuration and weights disagree.
    """
    model = load_complete(pretrained_model_name_or_path, **NOISE_OFF)
    return model, type(model.config).from_pretrained(pretrained_model_name_or_path)


def restore_noise_(model: PreTrainedModel, original: PreTrainedConfig) -> None:
    """Writes the original dropouts, layer drop and SpecAugment back into a model's configuration."""
    for name in NOISE_OFF:
        setattr(model.config, name, getattr(original, name))


class PruningRun:
    """Distils a student, learns its gates, compacts it and trains on.

    Args:
        student: A prunable base model, with gates for `learn_gates`.
        teacher: A base model.
        args: Of training; `output_dir` takes the training checkpoints.
        train_clips: With an `audio` column.
        held_out_clips: Likewise, for `held_out_loss`.
        feature_extractor: Of the checkpoint.
        crop_seconds: Length of the crops that are trained on.
        layers: Student layers to distill; see `Distillation`.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        args: PruningTrainingArguments,
        *,
        train_clips: Dataset,
        held_out_clips: Dataset,
        feature_extractor: Any,
        crop_seconds: float,
        layers: Sequence[int] | None = None,
    ):
        self.student = student
        self.args = args
        self.train_clips, self.held_out_clips = train_clips, held_out_clips
        self.sampling_rate = feature_extractor.sampling_rate
        self.collator = CropCollator(feature_extractor, crop_seconds)
        self.distillation = Distillation(teacher, student.config, layers)
        self.history: list[dict[str, Any]] = []

    def learn_gates(self, target_sparsity: float) -> None:
        """The first stage: gates and weights, while the sparsity asked for rises to the target."""
        self._train(1, self.args, Lagrangian(), target_sparsity)

    def compact(self, target_sparsity: float) -> None:
        """Replaces the student by the small model at the target."""
        self.student = compact(self.student, target_sparsity)

    def train_student(self) -> None:
        """The second stage: the weights of the small model."""
        self._train(2, self.args.of_final_stage(str(Path(self.args.output_dir).with_name("stage_2"))))

    def held_out_loss(self) -> float:
        """The distillation loss of the student on the held-out clips.

        Raises:
            FloatingPointError: If it is not finite.
        """
        loss = self._trainer(self.args, None, 0.0, None).evaluate()["eval_loss"]
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The distillation loss on held-out audio is {loss}: the teacher's or the student's weights hold values "
                "that are not finite, or overflow on this audio. Check the checkpoints with a clip of your own."
            )
        return loss

    def _train(
        self,
        stage: int,
        args: PruningTrainingArguments,
        lagrangian: Lagrangian | None = None,
        target_sparsity: float = 0.0,
    ) -> None:
        batch_size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        crops = RandomCrops(
            self.train_clips,
            num_samples=args.max_steps * batch_size,
            sampling_rate=self.sampling_rate,
            seed=args.seed + stage,
        )
        trainer = self._trainer(args, lagrangian, target_sparsity, crops)
        trainer.train()
        self.history += [
            {"stage": stage, **entry} for entry in copy.deepcopy(trainer.state.log_history) if "loss" in entry
        ]

    def _trainer(
        self,
        args: PruningTrainingArguments,
        lagrangian: Lagrangian | None,
        target_sparsity: float,
        crops: RandomCrops | None,
    ) -> PruningTrainer:
        return PruningTrainer(
            PruningObjective(self.student, self.distillation, lagrangian),
            copy.copy(args),
            target_sparsity,
            train_dataset=crops,
            eval_dataset=RandomCrops(
                self.held_out_clips, num_samples=len(self.held_out_clips), sampling_rate=self.sampling_rate
            ),
            data_collator=self.collator,
        )
