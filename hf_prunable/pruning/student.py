"""Loading a student: whole, in float32, and without the noise that blurs distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling.auto import load_prunable
from ..modeling.pretrained import check_weights


# Layer drop and SpecAugment break the match between the layers of teacher and student; dropout blurs it.
NOISE_OFF = {
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
}


# What distillation and a task need of a base model. It is without SpecAugment, and many checkpoints are without its
# vector; a head may be new.
ENCODER_PARTS = ("feature_extractor.conv_layers.", "feature_projection.", "encoder.", "adapter.")


def load_complete(pretrained_model_name_or_path: str | Path, **kwargs: Any) -> PreTrainedModel:
    """Loads a model in float32, its encoder all from the checkpoint.

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
    prefix = f"{model.base_model_prefix}."
    found = {
        "missing": info["missing_keys"],
        "of another size": {name for name, *_ in info["mismatched_keys"]},
        "without a place": info["unexpected_keys"],
    }
    wrong = {
        kind: [name for name in names if name.removeprefix(prefix).startswith(ENCODER_PARTS)]
        for kind, names in found.items()
    }
    check_weights(pretrained_model_name_or_path, wrong)
    return model


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
