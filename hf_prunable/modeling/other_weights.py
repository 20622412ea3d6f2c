"""Weights of a checkpoint that a model has no place for, such as another project's projection or a head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.modeling_utils import load_state_dict
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)
from transformers.utils.hub import get_checkpoint_shard_files

from ..runtime.messages import first_names
from .checkpoint_files import find_checkpoint_file
from .checkpoint_weights import ENCODER_PARTS, MASK_EMBEDDING


# File beside a pruned model, with the weights under the names that they had.
OTHER_WEIGHTS_FILE = "other_weights.safetensors"


def read_other_weights(pretrained_model_name_or_path: str | Path, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Reads the weights of a checkpoint that a model has no place for.

    Args:
        pretrained_model_name_or_path: Folder or Hub id of the checkpoint, stock or pruned; those that were kept beside a
            pruned model are among them.
        model: Model that was loaded from it.

    Returns:
        Weights by the names that they have in the checkpoint, in alphabetical order.
    """
    prefix = f"{model.base_model_prefix}."
    places = {name.removeprefix(prefix) for name in model.state_dict()}
    # Weights of the encoder were compared when the model was loaded, some of them under newer names.
    known = (*ENCODER_PARTS, MASK_EMBEDDING)
    found: dict[str, torch.Tensor] = {}
    for path in _weight_files(str(pretrained_model_name_or_path)):
        for name, tensor in load_state_dict(path).items():
            place = name.removeprefix(prefix)
            if place not in places and not place.startswith(known):
                found[name] = tensor.clone()
    return dict(sorted(found.items()))


def describe_other_weights(weights: Mapping[str, torch.Tensor], model: PreTrainedModel, is_kept: bool) -> str:
    """Returns a line that names the weights that a model has no place for, and says what becomes of them.

    Args:
        weights: Weights that `read_other_weights` returned.
        model: Model that was loaded from the checkpoint.
        is_kept: Whether they are written beside the result.
    """
    fate = f"They are kept in {OTHER_WEIGHTS_FILE}" if is_kept else "They are left out of the result"
    return f"{type(model).__name__} has no place for weights of the checkpoint: {first_names(list(weights))}. {fate}."


def _weight_files(source: str) -> list[str]:
    """Returns the paths of the files with the weights of a checkpoint, and of those beside a pruned model."""
    files: list[str] = []
    for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME):
        path = find_checkpoint_file(source, name)
        if path is not None:
            is_index = name in (SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME)
            files = list(get_checkpoint_shard_files(source, path)[0]) if is_index else [path]
            break
    beside = find_checkpoint_file(source, OTHER_WEIGHTS_FILE)
    return files if beside is None else [*files, beside]
