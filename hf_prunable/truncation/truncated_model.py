"""Truncation: the first layers of a model, as a model of the same class."""

from __future__ import annotations

import copy
import operator
from typing import TypeVar

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling.auto import FAMILIES
from ..modeling.loading import build_like
from ..modeling.other_libraries import check_own_layers


Model = TypeVar("Model", bound=PreTrainedModel)

# WavLM's relative position bias, in layer 0, with one column for each head that is left in any layer.
POSITION_BIAS_TABLE = "encoder.layers.0.attention.rel_attn_embed.weight"
# Logits of the hidden states 0 to n in heads with `use_weighted_layer_sum`.
LAYER_WEIGHTS = "layer_weights"


@torch.no_grad()
def truncate(model: Model, num_layers: int) -> Model:
    """Keeps transformer layers 1 to `num_layers` of a model and everything before and after them.

    Hidden states 0 to `num_layers` stay the same. What follows the last layer stays: the final norm of pre-norm models
    (`last_hidden_state` is then `LayerNorm(hidden_states[num_layers])`), the adapter and the head. A head with
    `use_weighted_layer_sum` keeps the logits of the hidden states that are left, so that their weights keep their
    ratios and sum to 1 again.

    Args:
        model: WavLM, HuBERT or wav2vec 2.0 model, stock or prunable, with any head or none. It is not changed.
        num_layers: Number of layers to keep, from 1 to the number of layers of the model.

    Returns:
        A model of the same class with its own tensors. A truncated stock model is a stock model, and saves a stock
        checkpoint. `config.dense_num_hidden_layers` is the original number of layers, from which sparsity is counted
        if the model is pruned later.

    Raises:
        TypeError: If it is not a transformers model, but a wrapper around one, or `num_layers` is not an integer.
        ValueError: If the family is not supported, the model has gates, adapters or offloaded weights, or `num_layers` is
            out of range.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"A {type(model).__name__} cannot be truncated. Give the transformers model inside it, with adapters "
            "merged."
        )
    check_own_layers(model)
    config = truncated_config(model.config, num_layers)
    state = _truncated_state(model, config)
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    small = build_like(model, config, state)
    for name, parameter in small.named_parameters():
        parameter.requires_grad_(trainable[name])
    return small


def truncated_config(config: PreTrainedConfig, num_layers: int) -> PreTrainedConfig:
    """Returns the configuration of a truncated model.

    Args:
        config: Configuration of a WavLM, HuBERT or wav2vec 2.0 model, stock or prunable. It is not changed.
        num_layers: Number of layers to keep, from 1 to the number of layers of the model.

    Raises:
        TypeError: If `num_layers` is not an integer.
        ValueError: If the family is not supported, the model has gates, or `num_layers` is out of range.
    """
    try:
        num_layers = operator.index(num_layers)
    except TypeError as error:
        raise TypeError(
            f"`num_layers` is {num_layers!r}, a {type(num_layers).__name__}; give the number of layers to keep, an integer."
        ) from error
    families = [prunable.stock_config_class.model_type for prunable in FAMILIES]
    if config.model_type not in (*families, *(prunable.model_type for prunable in FAMILIES)):
        raise ValueError(
            f"A model of type {config.model_type!r} cannot be truncated here. Supported are "
            f"{', '.join(map(repr, families))} and pruned models of these families."
        )
    if getattr(config, "gates", None) is not None:
        raise ValueError(
            "The model has gates, some of them on layers that truncation removes. Call `compact(model)` or "
            "`detach_gates()` first."
        )
    if not 1 <= num_layers <= config.num_hidden_layers:
        raise ValueError(
            f"num_layers is {num_layers}; the model has {config.num_hidden_layers} layers. Give the number of layers "
            f"to keep, 1 to {config.num_hidden_layers}."
        )
    truncated = copy.deepcopy(config)
    truncated.dense_num_hidden_layers = getattr(config, "dense_num_hidden_layers", None) or config.num_hidden_layers
    truncated.num_hidden_layers = num_layers
    if getattr(config, "pruned_shape", None) is not None:
        pruned_shape = config.shape.first_layers(num_layers)
        truncated.pruned_shape = None if pruned_shape.is_dense(truncated) else pruned_shape.to_dict()
    return truncated


def _truncated_state(model: PreTrainedModel, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Copies the tensors of a model's state dict that a truncated configuration needs."""
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    removed = tuple(
        f"{prefix}encoder.layers.{layer_idx}."
        for layer_idx in range(config.num_hidden_layers, model.config.num_hidden_layers)
    )
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(removed)}
    if LAYER_WEIGHTS in state:
        state[LAYER_WEIGHTS] = state[LAYER_WEIGHTS][: config.num_hidden_layers + 1]
    table = f"{prefix}{POSITION_BIAS_TABLE}"
    if table in state and getattr(model.config, "pruned_shape", None) is not None:
        # A head that is left in none of the kept layers has no column.
        columns = model.config.shape.position_bias_columns(config.shape.position_bias_heads)
        state[table] = state[table][:, columns]
        if not columns:
            del state[table]
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
