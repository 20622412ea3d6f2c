"""Checks of a checkpoint's weights against the model that its config.json describes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from ..runtime.messages import first_names


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .pretrained import PrunableModelMixin


# Parts of a base model whose weights must come from the checkpoint. Many checkpoints lack the mask embedding of
# SpecAugment, which is not used here.
ENCODER_PARTS = ("feature_extractor.conv_layers.", "feature_projection.", "encoder.", "adapter.")
MASK_EMBEDDING = "masked_spec_embed"
# Parts that a dense model may have and its checkpoint not, as in the stock classes.
NEW_PARTS = re.compile(r"adapter\.|encoder\.layers\.\d+\.adapter_layer\.")
# Fields by which a caller asks for fewer layers or for new adapters, as in the stock classes.
PART_FIELDS = frozenset(("config", "num_hidden_layers", "add_adapter", "adapter_attn_dim"))
# Weights of all heads, beside those of the base model.
HEAD_PARTS = ("lm_head.", "projector.", "classifier.", "layer_weights", "tdnn.", "feature_extractor.", "objective.")
# Enough for a head with 2**18 classes on 1,024 dimensions; 1 GiB in float32.
MAX_NEW_WEIGHTS = 2**28


def check_weights(source: Any, wrong: dict[str, Collection[str]]) -> None:
    """Raises an error that names the weights that configuration and checkpoint disagree about.

    Args:
        source: Folder or Hub id of the checkpoint.
        wrong: Names of weights by the kind of disagreement, such as "missing".

    Raises:
        ValueError: If there is any such weight.
    """
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {first_names(sorted(names))}" for kind, names in wrong.items() if names)
        raise ValueError(
            f"Configuration and weights of {str(source)!r} disagree. Weights {found}. Give a checkpoint whose "
            "config.json and weights were saved together."
        )


def check_found(model: PreTrainedModel, source: Any, info: Any, ignore_mismatched_sizes: bool) -> None:
    """Checks which weights a checkpoint has, before there is memory for those that it lacks.

    All models need the weights of their encoder. A model with a shape or gates was saved by this library, so that nothing
    else may be in its checkpoint but a head; and a head is either new or complete.

    Args:
        model: Model on the meta device, apart from the weights that were found.
        source: Folder or Hub id of the checkpoint.
        info: What transformers found: its `missing_keys`, `unexpected_keys` and `mismatched_keys`.
        ignore_mismatched_sizes: Whether weights of another size are made anew. If not, transformers raises an error for
            them itself.

    Raises:
        ValueError: If weights of the encoder are missing, or weights are left over; or if those to be made anew take more
            memory than any head.
    """
    mismatched = {name for name, *_ in info.mismatched_keys}
    new = info.missing_keys | mismatched
    num_new = sum(model.get_parameter_or_buffer(name).numel() for name in new)
    if num_new > MAX_NEW_WEIGHTS:
        raise ValueError(
            f"The config.json of {str(source)!r} asks for {num_new:,} weights that are not in the checkpoint, or there in "
            f"another size: {first_names(sorted(new))}. At most {MAX_NEW_WEIGHTS:,} are made anew. Give a checkpoint whose "
            "config.json and weights were saved together."
        )
    if mismatched and not ignore_mismatched_sizes:
        return
    prefix = f"{model.base_model_prefix}."
    missing = {name for name in info.missing_keys if name.removeprefix(prefix).startswith(ENCODER_PARTS)}
    if model.config.pruned_shape is None and model.config.gates is None:
        check_weights(
            source, {"missing": {name for name in missing if not NEW_PARTS.match(name.removeprefix(prefix))}}
        )
        return
    head = _head_weights(model)
    is_new_head = head <= info.missing_keys
    check_weights(
        source,
        {
            "missing": missing if is_new_head else missing | (head & info.missing_keys),
            "of another size": {name for name in mismatched if name.removeprefix(prefix).startswith(ENCODER_PARTS)},
            "without a place": _left_over(info.unexpected_keys, prefix, is_new_head),
        },
    )


def check_left_over(model: PrunableModelMixin, source: Any, info: dict[str, Any], options: Collection[str]) -> None:
    """Checks that a dense model has a place for all weights of the checkpoint's encoder, and for those of half a head.

    A config.json with fewer layers, without adapters or of another family than the weights would give other outputs.

    Args:
        model: Loaded model. A pruned one is checked by `check_found`.
        source: Folder or Hub id of the checkpoint.
        info: Loading info of transformers.
        options: Names of the caller's arguments. With one of `PART_FIELDS`, weights may be left over.

    Raises:
        ValueError: If weights are left over.
    """
    if PART_FIELDS.intersection(options) or model.config.pruned_shape is not None or model.config.gates is not None:
        return
    prefix = f"{model.base_model_prefix}."
    head = _head_weights(model)
    missing = head & set(info["missing_keys"])
    parts = ENCODER_PARTS if missing in (set(), head) else (*ENCODER_PARTS, *HEAD_PARTS)
    left_over = [name for name in info["unexpected_keys"] if name.removeprefix(prefix).startswith(parts)]
    check_weights(source, {"missing": missing if left_over else (), "without a place": left_over})


def _head_weights(model: PreTrainedModel) -> set[str]:
    """Returns the names of the weights beside those of the base model."""
    if model.base_model is model:
        return set()
    return {name for name in model.state_dict() if not name.startswith(f"{model.base_model_prefix}.")}


def _left_over(names: Iterable[str], prefix: str, may_have_other_head: bool) -> list[str]:
    """Returns the weights that are neither of the encoder nor of a head that may be another one."""
    allowed = (MASK_EMBEDDING, *(HEAD_PARTS if may_have_other_head else ()))
    return [
        name
        for name in names
        if name.removeprefix(prefix).startswith(ENCODER_PARTS) or not name.removeprefix(prefix).startswith(allowed)
    ]
