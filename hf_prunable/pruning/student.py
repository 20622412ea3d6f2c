"""The student of a pruning run: loading it without random noise, and what the stages of the run pass on of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from ..modeling.loading import load_complete
from ..modeling.pretrained import PrunableModelMixin
from .gate_sparsity import GateSparsity


# Settings without random noise in training. Layer drop and SpecAugment destroy the correspondence between the layers of
# teacher and student; dropout adds noise to it.
NOISE_OFF = {
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
}


@dataclass(frozen=True)
class Student:
    """A student between two stages of a pruning run. Stages return a new one and leave the given one as it is.

    Attributes:
        model: Prunable model, with or without gates.
        projections: State dict of the projections to the teacher's hidden states; empty without distillation.
        history: Log entries of the stages so far, with `stage` (1 with gates, 2 after compaction), `step` and losses.
        gate_sparsity: Sparsity of the gates beside the target that they were cut to; `None` before compaction.
    """

    model: PrunableModelMixin
    projections: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    gate_sparsity: GateSparsity | None = None


def load_student(
    pretrained_model_name_or_path: str | Path, **kwargs: Any
) -> tuple[PrunableModelMixin, PreTrainedConfig]:
    """Loads a model to be pruned, in float32 and without dropout, layer drop and SpecAugment.

    Args:
        pretrained_model_name_or_path: Folder or Hub id of the checkpoint.
        **kwargs: Passed to `load_prunable`, such as `auto_class`.

    Returns:
        The model, and its configuration as stored, for `restore_noise_`.

    Raises:
        ValueError: If the family is not supported, or configuration and weights disagree.
    """
    model = load_complete(pretrained_model_name_or_path, **NOISE_OFF, **kwargs)
    return model, type(model.config).from_pretrained(pretrained_model_name_or_path)


def restore_noise_(model: PrunableModelMixin, original: PreTrainedConfig) -> None:
    """Writes the original values of dropout, layer drop and SpecAugment into a model's configuration.

    Args:
        model: Model that `load_student` returned, or one that was made from it.
        original: Configuration that `load_student` returned.
    """
    for name in NOISE_OFF:
        setattr(model.config, name, getattr(original, name))
