"""The choice of an attention implementation, and the one that returns attention weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .configuration import PrunableConfigMixin


def eager_attention_forward(  # noqa: PLR0913 - the parameters of transformers' attention interface
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    position_bias: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes attention and returns its weights too.

    The parameters are those of transformers' attention interface, with `position_bias` as its keyword argument.

    Args:
        module: Attention block.
        query: Queries, of shape (batch, heads, frames, width).
        key: Keys, of the same shape.
        value: Values, of the same shape.
        attention_mask: Added to the scores, or True where they count, of a shape that broadcasts to (batch, heads, frames,
            frames).
        scaling: Factor of the scores.
        dropout: Dropout probability of the weights.
        position_bias: Added to the scores, of shape (batch, heads, frames, frames).
        **kwargs: Not used.

    Returns:
        The output, of shape (batch, frames, heads, width), and the weights, of shape (batch, heads, frames, frames).
    """
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if position_bias is not None:
        weights = weights + position_bias
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        weights = weights.masked_fill(~attention_mask, torch.finfo(weights.dtype).min)
    elif attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def attention_implementation(config: PrunableConfigMixin, output_attentions: bool | None = None, **kwargs: Any) -> str:
    """Returns the name of the attention implementation of a forward pass.

    Args:
        config: Configuration of the model.
        output_attentions: Whether the pass returns attention weights, which "sdpa" does not compute; `None` for the value
            in the configuration.
        **kwargs: Not used.
    """
    if output_attentions is None:
        output_attentions = config.output_attentions
    return "eager" if output_attentions and config._attn_implementation == "sdpa" else config._attn_implementation
