"""The transformer: layers and encoder, with the layer norm after each block or before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput

from .attention import KeptHeads, PrunableAttention
from .configuration import PrunableConfigMixin
from .feed_forward import PrunableFeedForward
from .shape import LayerShape, PrunedShape
from .units import GatedWidth, GateValues, LayerUnits


# Makes the attention block of a layer from the configuration, the model's shape and the layer's index.
MakeAttention: TypeAlias = Callable[[Any, PrunedShape, int], PrunableAttention]
# Makes the adapter that a layer ends with from the configuration.
MakeAdapter: TypeAlias = Callable[[Any], nn.Module]


@dataclass
class KeptLayer:
    """What stays of a layer.

    Attributes:
        attention: What stays of the attention block, or `None` for nothing.
        intermediate: Indices of the intermediate units that stay, or `None` if the feed-forward block is removed.
    """

    attention: KeptHeads | None
    intermediate: torch.Tensor | None

    @property
    def shape(self) -> LayerShape:
        """Shape of the layer after the cut."""
        return LayerShape(
            None if self.attention is None else self.attention.shape,
            None if self.intermediate is None else len(self.intermediate),
        )


class PrunableEncoderLayer(GradientCheckpointingLayer):
    """An attention and a feed-forward block with their residual connections.

    Args:
        config: Configuration of the model.
        attention: Attention block.
        feed_forward: Feed-forward block.
        attention_adapter: Module that the layer ends with, or `None`.
    """

    def __init__(
        self,
        config: PrunableConfigMixin,
        attention: PrunableAttention,
        feed_forward: PrunableFeedForward,
        attention_adapter: nn.Module | None = None,
    ):
        super().__init__()
        self.pre_norm = config.do_stable_layer_norm
        self.attention = attention
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(config.hidden_dropout)
        has_norms = self._has_norms(attention.reads_input, feed_forward.reads_input)
        self.layer_norm, self.final_layer_norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if has_norm else None for has_norm in has_norms
        )
        self.adapter_layer = attention_adapter

    def _has_norms(self, attention_reads_input: bool, feed_forward_reads_input: bool) -> tuple[bool, bool]:
        """Returns whether the layer has its first and its second norm.

        Before a block that does not read its input, a norm would be a parameter without a gradient.
        """
        return not self.pre_norm or attention_reads_input, not self.pre_norm or feed_forward_reads_input

    def kept(self, is_open: LayerUnits) -> KeptLayer:
        """Returns what stays of the layer when its closed units are removed.

        Args:
            is_open: Value of each unit as `units` returns it; a unit is closed where it is 0.
        """
        attention, feed_forward = is_open
        return KeptLayer(self.attention.kept_heads(attention), self.feed_forward.kept_units(feed_forward))

    def units(self, of_gate: GateValues) -> LayerUnits:
        """Returns a value for every unit of both blocks.

        Args:
            of_gate: Function from a gate to one value per unit. A unit without a gate has 1.
        """
        return self.attention.units(of_gate), self.feed_forward.units(of_gate)

    def gated_widths(self, kept: KeptLayer) -> Iterator[GatedWidth]:
        """Yields the widths of both blocks that gates decide and that are not 0.

        Args:
            kept: What stays of the layer.
        """
        yield from self.attention.gated_widths(kept.attention)
        yield from self.feed_forward.gated_widths(kept.intermediate)

    def cut(self, kept: KeptLayer, bias_columns: list[int]) -> dict[str, torch.Tensor]:
        """Returns the tensors that stay, with the gates folded in, by their names in the layer.

        Args:
            kept: What stays of the layer.
            bias_columns: Columns of the shared position bias table that stay; for families with one.
        """
        attention, feed_forward = (
            self.attention.cut(kept.attention, bias_columns),
            self.feed_forward.cut(kept.intermediate),
        )
        tensors = {f"attention.{name}": tensor for name, tensor in attention.items()}
        tensors |= {f"feed_forward.{name}": tensor for name, tensor in feed_forward.items()}
        has_norms = self._has_norms(bool(kept.shape.heads), bool(kept.shape.intermediate))
        for name, has_norm in zip(("layer_norm", "final_layer_norm"), has_norms, strict=True):
            if has_norm:
                norm = getattr(self, name).state_dict()
                tensors |= {f"{name}.{key}": tensor for key, tensor in norm.items()}
        if self.adapter_layer is not None:
            adapter = self.adapter_layer.state_dict()
            tensors |= {f"adapter_layer.{key}": tensor for key, tensor in adapter.items()}
        return tensors

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Computes the layer.

        Args:
            hidden_states: Input, of shape (batch, frames, hidden size).
            attention_mask: Mask in the form that the attention implementation takes.
            position_bias: Relative position bias that the layers share, for families with one.
            **kwargs: Passed to the attention block.

        Returns:
            The output, of the shape of the input, and the position bias for the next layer.
        """
        hidden_states, position_bias = self.add_attention(hidden_states, attention_mask, position_bias, **kwargs)
        return self.add_feed_forward(hidden_states), position_bias

    def add_attention(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Computes the first half of the layer: attention, its residual connection and the norm that belongs to it.

        Arguments and returns are those of `forward`.
        """
        normalized = hidden_states
        if self.pre_norm and self.layer_norm is not None:
            normalized = self.layer_norm(hidden_states)
        attended, _, position_bias = self.attention(
            normalized, attention_mask=attention_mask, position_bias=position_bias, **kwargs
        )
        hidden_states = _add(hidden_states, attended, self.dropout)
        if not self.pre_norm and self.layer_norm is not None:
            hidden_states = self.layer_norm(hidden_states)
        return hidden_states, position_bias

    def add_feed_forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Computes the second half: the feed-forward block, its residual connection and norm, and the adapter.

        Args:
            hidden_states: Output of `add_attention`, of shape (batch, frames, hidden size).
        """
        normalized = hidden_states
        if self.pre_norm and self.final_layer_norm is not None:
            normalized = self.final_layer_norm(hidden_states)
        hidden_states = _add(hidden_states, self.feed_forward(normalized))
        if not self.pre_norm and self.final_layer_norm is not None:
            hidden_states = self.final_layer_norm(hidden_states)
        if self.adapter_layer is not None:
            hidden_states = hidden_states + self.adapter_layer(hidden_states)
        return hidden_states


def _add(residual: torch.Tensor, update: torch.Tensor | None, dropout: nn.Module | None = None) -> torch.Tensor:
    """Adds a block's output, which is `None` for a removed block."""
    if update is None:
        return residual
    return residual + (update if dropout is None else dropout(update))


class PrunableEncoder(nn.Module):
    """Position convolution and transformer layers.

    Args:
        config: Configuration of the model.
        shape: Shape of the model.
        position_conv: Position convolution of the family.
        make_attention: Makes the attention block of a layer.
        make_attention_adapter: Makes the adapter of a layer, for models whose layers have one.
    """

    layers: list[PrunableEncoderLayer]

    def __init__(
        self,
        config: PrunableConfigMixin,
        shape: PrunedShape,
        position_conv: nn.Module,
        make_attention: MakeAttention,
        make_attention_adapter: MakeAdapter | None = None,
    ):
        super().__init__()
        self.config = config
        self.pos_conv_embed = position_conv
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        layers = [
            PrunableEncoderLayer(
                config,
                make_attention(config, shape, layer_idx),
                PrunableFeedForward(config, layer.intermediate),
                make_attention_adapter(config) if make_attention_adapter and config.has_attention_adapter else None,
            )
            for layer_idx, layer in enumerate(shape.layers)
        ]
        # torch types the entries of a module list as any module.
        self.layers = cast("list[PrunableEncoderLayer]", nn.ModuleList(layers))
        self.gradient_checkpointing = False

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutput:
        """Computes all layers.

        Args:
            hidden_states: Projected features, of shape (batch, frames, hidden size).
            attention_mask: True for frames that are not padding, of shape (batch, frames).
            **kwargs: Passed to the attention blocks.
        """
        if attention_mask is not None:
            hidden_states = hidden_states.masked_fill(~attention_mask.unsqueeze(-1), 0)
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask
        )
        hidden_states = self.embed_positions(hidden_states)
        position_bias = None
        for layer_idx, layer in enumerate(self.layers):
            if self._drops(layer_idx):
                continue
            # By position: reentrant checkpoints see no gradient through a keyword argument.
            hidden_states, position_bias = layer(hidden_states, mask, position_bias, **kwargs)
        return BaseModelOutput(last_hidden_state=self.normalize_last(hidden_states))

    def embed_positions(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Returns the input of the first layer from the projected features, of shape (batch, frames, hidden size)."""
        hidden_states = hidden_states + self.pos_conv_embed(hidden_states)
        if not self.config.do_stable_layer_norm:
            hidden_states = self.layer_norm(hidden_states)
        return self.dropout(hidden_states)

    def normalize_last(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Returns the encoder's output from that of the last layer: its norm with pre-norm layers, else the same."""
        return self.layer_norm(hidden_states) if self.config.do_stable_layer_norm else hidden_states

    def _drops(self, layer_idx: int) -> bool:
        """Whether layer drop (arXiv 1909.11556) skips a layer; random numbers are drawn where the stock models do."""
        if not self.training or self.config.layerdrop <= 0.0:
            return False
        if layer_idx == 0 and self.config.has_relative_position_bias:
            # The first layer computes the position bias that the others read.
            return False
        drop = bool(torch.rand([]) < self.config.layerdrop)
        # Where ranks gather a layer's weights from each other, all must run it.
        return drop and not (is_deepspeed_zero3_enabled() or is_fsdp_managed_module(self))
