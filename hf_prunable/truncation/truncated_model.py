"""Truncation: the first layers of a model, as a model of the same class."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from typing import TypeVar

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling.loading import build_like
from ..modeling.other_libraries import check_own_layers
from .encoder_layers import check_layer_count, is_supported_family, layers_name, run_layers


Model = TypeVar("Model", bound=PreTrainedModel)

# WavLM's relative position bias, in layer 0, with one column for each head that is left in any layer.
POSITION_BIAS_TABLE = "0.attention.rel_attn_embed.weight"
# Logits of the hidden states 0 to n in heads with `use_weighted_layer_sum`.
LAYER_WEIGHTS = "layer_weights"


@torch.no_grad()
def truncate(model: Model, num_layers: int, inputs: Mapping[str, torch.Tensor] | None = None) -> Model:
    """Keeps transformer layers 1 to `num_layers` of a model and everything before and after them.

    Hidden states 0 to `num_layers` stay the same. What follows the last layer stays: the final norm of pre-norm models
    (`last_hidden_state` is then `LayerNorm(hidden_states[num_layers])`), the adapter and the head. A head with
    `use_weighted_layer_sum` keeps the logits of the hidden states that are left, so that their weights keep their
    ratios and sum to 1 again.

    Encoders of other families, such as Whisper's, are truncated as well. That the states stay the same is then proven on
    `inputs`, to the bit:

        inputs = feature_extractor(waveform, sampling_rate=16_000, return_tensors="pt")
        truncate(WhisperForAudioClassification.from_pretrained("openai/whisper-tiny"), 2, inputs)

    Args:
        model: WavLM, HuBERT, wav2vec 2.0 or related model, stock or prunable, or an encoder of another family, with any
            head or none. It is not changed.
        num_layers: Number of layers to keep, from 1 to the number of layers of the model.
        inputs: Inputs of the model for any clip, on which hidden states are compared before and after. Needed for
            families that have no prunable classes.

    Returns:
        A model of the same class with its own tensors. A truncated stock model is a stock model, and saves a stock
        checkpoint. `config.dense_num_hidden_layers` is the original number of layers, from which sparsity is counted
        if the model is pruned later; other families than those with prunable classes do not get it.

    Raises:
        TypeError: If it is not a transformers model, but a wrapper around one, `num_layers` is not an integer, or
            `inputs` is not a mapping.
        ValueError: If the model has no one stack of layers, has a decoder, gates, adapters or offloaded weights, inputs are
            missing, or `num_layers` is out of range.
        RuntimeError: If the first hidden states of the truncated model are not those of the model.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"A {type(model).__name__} cannot be truncated. Give the transformers model inside it, with adapters "
            "merged."
        )
    check_own_layers(model)
    _check_inputs(model, inputs)
    config = truncated_config(model.config, num_layers)
    layers = layers_name(model)
    state = _truncated_state(model, layers, config)
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    small = build_like(model, config, state)
    for name, parameter in small.named_parameters():
        parameter.requires_grad_(trainable[name])
    if inputs is not None:
        _check_prefix(model, small, layers, inputs)
    return small


def _check_inputs(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor] | None) -> None:
    """Checks that there are inputs where they are needed, and that they are named."""
    if inputs is None and not is_supported_family(model.config):
        raise ValueError(
            f"What the layers of a {type(model).__name__} compute is compared on a clip. Give its inputs: `truncate(model, "
            'num_layers, feature_extractor(waveform, sampling_rate=16_000, return_tensors="pt"))`.'
        )
    if inputs is not None and not isinstance(inputs, Mapping):
        raise TypeError(
            f"`inputs` is a {type(inputs).__name__}; give what the feature extractor returns, tensors by their names."
        )


def _check_prefix(
    model: PreTrainedModel, truncated: PreTrainedModel, layers: str, inputs: Mapping[str, torch.Tensor]
) -> None:
    """Raises `RuntimeError` if a hidden state of a truncated model is not that of the model, to the bit."""
    whole, kept = run_layers(model, layers, inputs).states, run_layers(truncated, layers, inputs).states
    for layer_idx, (expected, found) in enumerate(zip(whole, kept, strict=False)):
        if not torch.equal(expected, found):
            raise RuntimeError(
                f"Hidden state {layer_idx} of the truncated {type(model).__name__} is not that of the whole model, so that "
                "this model cannot be truncated. If it holds values that are not finite, check the checkpoint."
            )


def truncated_config(config: PreTrainedConfig, num_layers: int) -> PreTrainedConfig:
    """Returns the configuration of a truncated model.

    Args:
        config: Configuration of a model, stock or prunable, whose `num_hidden_layers` counts its layers. It is not changed.
        num_layers: Number of layers to keep, from 1 to the number of layers of the model.

    Raises:
        TypeError: If `num_layers` is not an integer.
        ValueError: If the configuration counts no layers, the model has gates, or `num_layers` is out of range.
    """
    try:
        num_layers = operator.index(num_layers)
    except TypeError as error:
        raise TypeError(
            f"`num_layers` is {num_layers!r}, a {type(num_layers).__name__}; give the number of layers to keep, an integer."
        ) from error
    check_layer_count(config)
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
    if is_supported_family(config):
        dense_num_layers = getattr(config, "dense_num_hidden_layers", None) or config.num_hidden_layers
        truncated.dense_num_hidden_layers = dense_num_layers
    truncated.num_hidden_layers = num_layers
    if getattr(config, "pruned_shape", None) is not None:
        pruned_shape = config.shape.first_layers(num_layers)
        truncated.pruned_shape = None if pruned_shape.is_dense(truncated) else pruned_shape.to_dict()
    return truncated


def _truncated_state(model: PreTrainedModel, layers: str, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Copies the tensors of a model's state dict that a truncated configuration needs; `layers` names its layers."""
    removed = tuple(
        f"{layers}.{layer_idx}." for layer_idx in range(config.num_hidden_layers, model.config.num_hidden_layers)
    )
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(removed)}
    if LAYER_WEIGHTS in state:
        state[LAYER_WEIGHTS] = state[LAYER_WEIGHTS][: config.num_hidden_layers + 1]
    table = f"{layers}.{POSITION_BIAS_TABLE}"
    if table in state and getattr(model.config, "pruned_shape", None) is not None:
        # A head that is left in none of the kept layers has no column.
        columns = model.config.shape.position_bias_columns(config.shape.position_bias_heads)
        state[table] = state[table][:, columns]
        if not columns:
            del state[table]
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
