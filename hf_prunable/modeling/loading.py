"""Loading checkpoints as prunable models, and building a model from a configuration and its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from .auto import prunable_class
from .pretrained import check_weights


# What distillation and a task need of a base model. It is without SpecAugment, and many checkpoints are without its
# vector; a head may be new.
ENCODER_PARTS = ("feature_extractor.conv_layers.", "feature_projection.", "encoder.", "adapter.")


def saved_auto_class(pretrained_model_name_or_path: str | Path) -> str:
    """The kind of head that a stock or pruned checkpoint was saved with, by the name of its Auto class.

    Args:
        pretrained_model_name_or_path: A folder or a Hub id.

    Raises:
        ValueError: If the family is not supported, or the checkpoint does not say, or it is a kind that no prunable
            class has.
    """
    config = AutoConfig.from_pretrained(pretrained_model_name_or_path)
    auto_classes = prunable_class(config).config_class.auto_classes
    for auto_class in auto_classes:
        prunable = prunable_class(config, auto_class)
        if {prunable.__name__, prunable.stock_class.__name__} & set(config.architectures or ()):
            return auto_class
    raise ValueError(
        f"{str(pretrained_model_name_or_path)!r} was saved as {config.architectures}. Say as which kind to load it, by "
        f"`auto_class`: {', '.join(auto_classes)}."
    )


def load_prunable(
    pretrained_model_name_or_path: str | Path, auto_class: str = "AutoModel", **kwargs: Any
) -> PreTrainedModel:
    """Loads a stock or a pruned checkpoint as the prunable class of its family.

    Args:
        pretrained_model_name_or_path: A folder or a Hub id.
        auto_class: The kind of head, by the name of its Auto class.
        **kwargs: Passed to `from_pretrained`.

    Raises:
        ValueError: If the family is not supported, or has no such head.
    """
    config = AutoConfig.from_pretrained(pretrained_model_name_or_path)
    return prunable_class(config, auto_class).from_pretrained(pretrained_model_name_or_path, **kwargs)


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


def build_like(model: PreTrainedModel, config: PreTrainedConfig, state: dict[str, torch.Tensor]) -> PreTrainedModel:
    """A model of the class, the dtype, the device and the mode of another one.

    Args:
        model: The other one.
        config: Of the new one.
        state: All of its tensors, which it takes over.

    Raises:
        RuntimeError: If configuration and tensors disagree.
    """
    small, info = type(model).from_pretrained(
        None, config=config, state_dict=state, dtype=model.dtype, output_loading_info=True
    )
    wrong = {kind: sorted(keys) for kind, keys in info.items() if keys}
    if wrong:
        raise RuntimeError(
            f"Configuration and weights disagree: {wrong}. If modules were added to the model or exchanged, such as "
            "adapters, merge them or take them off first; otherwise this is a bug in hf_prunable."
        )
    return small.to(model.device).train(model.training)
