"""What other libraries do to a model's layers: adapters (peft) and offloaded weights (accelerate)."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.accelerate import load_offloaded_parameter

from ..runtime.messages import first_names


# Attributes of peft's wrappers of adapted and of copied layers, under which they keep the layer of the model.
WRAPPED_LAYERS = ("base_layer", "original_module")


def is_offloaded(model: nn.Module) -> bool:
    """Returns whether weights of a model are loaded only while they are used (`device_map`)."""
    return hasattr(model, "_hf_hook") and any(parameter.is_meta for parameter in model.parameters())


def check_no_adapters(model: nn.Module) -> None:
    """Checks that no adapters are attached to a model.

    Args:
        model: Stock or prunable model, or a wrapper around one.

    Raises:
        ValueError: If there are any.
    """
    adapted = [name for name, module in model.named_modules() if any(hasattr(module, part) for part in WRAPPED_LAYERS)]
    if adapted:
        raise ValueError(
            f"Adapters are attached to {first_names(adapted)}. Merge them (`merge_and_unload()` of the PeftModel) or take "
            "them off (`unload()`) first, or load the model without them."
        )


def check_own_layers(model: nn.Module) -> None:
    """Checks that a model has its own layers with their weights.

    Args:
        model: Stock or prunable model, or a wrapper around one.

    Raises:
        ValueError: If adapters are attached, or weights are offloaded.
    """
    check_no_adapters(model)
    if is_offloaded(model):
        raise ValueError("Some weights are offloaded. Load the model without `device_map` and `max_memory` for this.")


def complete_state_dict(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Returns the state dict of a model with its offloaded weights in memory.

    Args:
        model: Stock or prunable model.
    """
    state = model.state_dict()
    if not is_offloaded(model):
        return state
    return {
        name: load_offloaded_parameter(model, name) if tensor.is_meta else tensor for name, tensor in state.items()
    }
