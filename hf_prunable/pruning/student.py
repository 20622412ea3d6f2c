"""Loading a student: whole, in float32, and without the noise that blurs distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling.loading import load_complete


# Layer drop and SpecAugment break the match between the layers of teacher and student; dropout blurs it.
NOISE_OFF = {
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
}


def load_student(pretrained_model_name_or_path: str | Path, **kwargs: Any) -> tuple[PreTrainedModel, PreTrainedConfig]:
    """Loads a model to be pruned, in float32 and without dropouts, layer drop and SpecAugment.

    Args:
        pretrained_model_name_or_path: A folder or a Hub id.
        **kwargs: Passed to `load_prunable`, such as the kind of head.

    Returns:
        The model, and its configuration as it was stored: see `restore_noise_`.

    Raises:
        ValueError: If the family is not supported, or configuration and weights disagree.
    """
    model = load_complete(pretrained_model_name_or_path, **NOISE_OFF, **kwargs)
    return model, type(model.config).from_pretrained(pretrained_model_name_or_path)


def restore_noise_(model: PreTrainedModel, original: PreTrainedConfig) -> None:
    """Writes the original dropouts, layer drop and SpecAugment back into a model's configuration."""
    for name in NOISE_OFF:
        setattr(model.config, name, getattr(original, name))
