"""Loading a student: whole, in float32, and without the noise that blurs distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from .modeling.auto import load_prunable
from .modeling.pretrained import check_weights


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
