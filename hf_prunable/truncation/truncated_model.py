"""The first layers of a model as a model of their own: a stock one of a stock one."""

from __future__ import annotations

import copy
import operator

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling.auto import FAMILIES
from ..modeling.loading import build_like


# In layer 0 of WavLM, with a column for each head that lives in any layer.
POSITION_BIAS_TABLE = "encoder.layers.0.attention.rel_attn_embed.weight"
# Of heads on a weighted sum of hidden states: one logit each, the first layer's input included.
LAYER_WEIGHTS = "layer_weights"


@torch.no_grad()
def truncate(model: PreTrainedModel, num_layers: int) -> PreTrainedModel:
    """Keeps transformer layers 1 to `num_layers`, with what comes before and after them.

    Hidden states 0 to `num_layers` are those of `model`. Whatever follows the last layer follows it still: the final
    norm of pre-norm models (`last_hidden_state` is then `LayerNorm(hidden_states[num_layers])`), the adapter and the
    head. A head on a weighted sum of hidden states keeps the logits of those that are left as they are: the softmax over
    them makes them sum to 1 again and leaves their ratios.

    Args:
        model: A WavLM, HuBERT or wav2vec 2.0 model, stock or prunable, with any head or none; it is not changed.
        num_layers: How many layers to keep.

    Returns:
        A model of the same class, with tensors of its own. That of a stock model is stock, and so is its checkpoint. Its
        configuration remembers the layers that the original had, which sparsity is counted from when it is pruned.

    Raises:
        TypeError: If it is no transformers model, but something around one.
        ValueError: If the family is not supported, the model has gates, or it has no such number of layers.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"A {type(model).__name__} cannot be truncated. Give the transformers model inside it, with adapters merged."
        )
    config = truncated_config(model.config, num_layers)
    state = _truncated_state(model, config)
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    small = build_like(model, config, state)
    for name, parameter in small.named_parameters():
        parameter.requires_grad_(trainable[name])
    return small


def truncated_config(config: PreTrainedConfig, num_layers: int) -> PreTrainedConfig:
    """The configuration of a truncated model.

    Args:
        config: Of a WavLM, HuBERT or wav2vec 2.0 model, stock or prunable; it is not changed.
        num_layers: How many layers to keep.

    Raises:
        ValueError: As `truncate`.
    """
    num_layers = operator.index(num_layers)
    families = [prunable.stock_config_class.model_type for prunable in FAMILIES]
    if config.model_type not in (*families, *(prunable.model_type for prunable in FAMILIES)):
        raise ValueError(
            f"A model of type {config.model_type!r} cannot be truncated here. Supported are "
            f"{', '.join(map(repr, families))} and pruned models of these families."
        )
    if getattr(config, "gates", None) is not None:
        raise ValueError(
            "The model has gates, which decide about layers that would be gone. Call `compact(model)` or "
            "`detach_gates()` first."
        )
    if not 1 <= num_layers <= config.num_hidden_layers:
        raise ValueError(
            f"num_layers is {num_layers}; the model has {config.num_hidden_layers} layers. Give the number of layers to "
            f"keep, 1 to {config.num_hidden_layers}."
        )
    truncated = copy.deepcopy(config)
    truncated.dense_num_hidden_layers = getattr(config, "dense_num_hidden_layers", None) or config.num_hidden_layers
    truncated.num_hidden_layers = num_layers
    if getattr(config, "pruned_shape", None) is not None:
        shape = config.shape.first_layers(num_layers)
        truncated.pruned_shape = None if shape.is_dense(truncated) else shape.to_dict()
    return truncated


def _truncated_state(model: PreTrainedModel, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """The part of the state dict that fits a truncated configuration, in tensors of its own."""
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    gone = tuple(
        f"{prefix}encoder.layers.{number}."
        for number in range(config.num_hidden_layers, model.config.num_hidden_layers)
    )
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(gone)}
    if LAYER_WEIGHTS in state:
        state[LAYER_WEIGHTS] = state[LAYER_WEIGHTS][: config.num_hidden_layers + 1]
    table = f"{prefix}{POSITION_BIAS_TABLE}"
    if table in state and getattr(model.config, "pruned_shape", None) is not None:
        # Heads that lived in the layers that are gone take their columns with them.
        old_heads, new_heads = model.config.shape.position_bias_heads, config.shape.position_bias_heads
        columns = [old_heads.index(head) for head in new_heads]
        state[table] = state[table][:, columns]
        if not columns:
            del state[table]
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
