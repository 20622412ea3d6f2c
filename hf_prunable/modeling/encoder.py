"""The transformer: layers and encoder, with the layer norm after each block or before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput

from .attention import PrunableAttention
from .feed_forward import PrunableFeedForward
from .shape import PrunedShape


class PrunableEncoderLayer(GradientCheckpointingLayer):
    """An attention and a feed-forward block with their residual connections.

    Args:
        config: A prunable configuration.
        attention: The attention block.
        feed_forward: The feed-forward block.
        attention_adapter: A module that the layer ends with, or `None`.
    """

    def __init__(
        self,
        config: Any,
        attention: PrunableAttention,
        feed_forward: PrunableFeedForward,
        attention_adapter: nn.Module | None = None,
    ):
        super().__init__()
        self.pre_norm = config.do_stable_layer_norm
        self.attention = attention
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(config.hidden_dropout)
        # Before a block that does not read its input, a norm would be a parameter without a gradient.
        has_norms = [not self.pre_norm or block.reads_input for block in (attention, feed_forward)]
        self.layer_norm, self.final_layer_norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if has_norm else None for has_norm in has_norms
        )
        self.adapter_layer = attention_adapter

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the layer's output and the relative position bias that the layers share, if there is one."""
        residual = hidden_states
        if self.pre_norm and self.layer_norm is not None:
            hidden_states = self.layer_norm(hidden_states)
        attended, _, position_bias = self.attention(
            hidden_states, attention_mask=attention_mask, position_bias=position_bias, **kwargs
        )
        hidden_states = _add(residual, attended, self.dropout)
        if self.pre_norm:
            normalized = hidden_states if self.final_layer_norm is None else self.final_layer_norm(hidden_states)
            hidden_states = _add(hidden_states, self.feed_forward(normalized))
        else:
            hidden_states = self.layer_norm(hidden_states)
            hidden_states = self.final_layer_norm(_add(hidden_states, self.feed_forward(hidden_states)))
        if self.adapter_layer is not None:
            hidden_states = hidden_states + self.adapter_layer(hidden_states)
        return hidden_states, position_bias


def _add(residual: torch.Tensor, update: torch.Tensor | None, dropout: nn.Module | None = None) -> torch.Tensor:
    """Adds a block's output, which is `None` where the block is gone."""
    if update is None:
        return residual
    return residual + (update if dropout is None else dropout(update))


class PrunableEncoder(nn.Module):
    """Position convolution and transformer layers.

    Args:
        config: A prunable configuration.
        shape: What the layers consist of.
        position_conv: The family's position convolution.
        make_attention: Called as `make_attention(config, shape, number)` for every layer.
        make_attention_adapter: Called with the configuration for every layer, where the model has such adapters.
    """

    def __init__(
        self,
        config: Any,
        shape: PrunedShape,
        position_conv: nn.Module,
        make_attention: Callable[[Any, PrunedShape, int], PrunableAttention],
        make_attention_adapter: Callable[[Any], nn.Module] | None = None,
    ):
        super().__init__()
        self.config = config
        self.pos_conv_embed = position_conv
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(
            PrunableEncoderLayer(
                config,
                make_attention(config, shape, number),
                PrunableFeedForward(config, layer.intermediate),
                make_attention_adapter(config) if config.has_attention_adapter else None,
            )
            for number, layer in enumerate(shape.layers)
        )
        self.gradient_checkpointing = False

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> BaseModelOutput:
        """Maps (batch, frames, hidden size) to the same; `attention_mask` is True on the frames that are not padding."""
        if attention_mask is not None:
            hidden_states = hidden_states.masked_fill(~attention_mask.unsqueeze(-1), 0)
        attention_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask
        )
        hidden_states = hidden_states + self.pos_conv_embed(hidden_states)
        if not self.config.do_stable_layer_norm:
            hidden_states = self.layer_norm(hidden_states)
        hidden_states = self.dropout(hidden_states)

        position_bias = None
        for number, layer in enumerate(self.layers):
            if self._drops(number):
                continue
            # By position: reentrant checkpoints see no gradient through a keyword, and would go through all layers anew.
            hidden_states, position_bias = layer(hidden_states, attention_mask, position_bias, **kwargs)
        if self.config.do_stable_layer_norm:
            hidden_states = self.layer_norm(hidden_states)
        return BaseModelOutput(last_hidden_state=hidden_states)

    def _drops(self, number: int) -> bool:
        """Layer drop (arXiv 1909.11556), with the random numbers drawn where the stock models draw them."""
        if not self.training or self.config.layerdrop <= 0.0:
            return False
        if number == 0 and self.config.has_relative_position_bias:
            # The first layer makes the bias that the others read.
            return False
        drop = bool(torch.rand([]) < self.config.layerdrop)
        # Ranks that gather a layer's weights from each other must all run it.
        return drop and not (is_deepspeed_zero3_enabled() or is_fsdp_managed_module(self))
