"""The two blocks of a transformer layer as a common interface: x -> normalize(x + output_layer(features(before(x))))."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..modeling.encoder import PrunableEncoderLayer
from ..modeling.gated import GatedLinear, OutputBias


class AttentionBlock:
    """Attention block of a layer with its norm and residual connection.

    Args:
        layer: Layer in evaluation mode.

    Attributes:
        attention: Attention module.
        output_layer: Layer that the block ends with, or `None` for a removed block.
    """

    def __init__(self, layer: PrunableEncoderLayer):
        self.layer, self.attention = layer, layer.attention
        self.output_layer: GatedLinear | OutputBias | None = None
        if self.attention.shape is not None:
            self.output_layer = self.attention.out_proj

    def before(self, states: torch.Tensor) -> torch.Tensor:
        """Returns what the block reads of its residual stream."""
        return self.layer.layer_norm(states) if self.layer.pre_norm and self.layer.layer_norm is not None else states

    def features(self, states: torch.Tensor, position_bias: Any) -> tuple[torch.Tensor, Any]:
        """Computes the input of the output layer.

        Args:
            states: Residual stream before the block, of shape (clips, frames, hidden size).
            position_bias: Position bias of the preceding layer, or `None`.

        Returns:
            The contexts of all heads, of shape (clips, frames, value/output dimensions), and the next layer's position
            bias.
        """
        contexts = [states.new_zeros(*states.shape[:-1], 0)]

        def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            contexts.append(inputs[0])

        hooks = []
        if isinstance(self.output_layer, GatedLinear):
            hooks.append(self.output_layer.register_forward_pre_hook(keep))
        try:
            _, _, position_bias = self.attention(self.before(states), position_bias=position_bias)
        finally:
            for hook in hooks:
                hook.remove()
        return contexts[-1], position_bias

    def normalize(self, sums: torch.Tensor) -> torch.Tensor:
        """Returns the residual stream behind the block from the sum of stream and block."""
        return sums if self.layer.pre_norm or self.layer.layer_norm is None else self.layer.layer_norm(sums)


class FeedForwardBlock:
    """Feed-forward block of a layer with its norm, residual connection, and the adapter that some layers end with.

    Args:
        layer: Layer in evaluation mode.

    Attributes:
        feed_forward: Feed-forward module.
        output_layer: Layer that the block ends with, or `None` for a removed block.
    """

    def __init__(self, layer: PrunableEncoderLayer):
        self.layer, self.feed_forward = layer, layer.feed_forward
        self.output_layer: GatedLinear | OutputBias | None = None
        if self.feed_forward.intermediate is not None:
            self.output_layer = self.feed_forward.output_dense

    def before(self, states: torch.Tensor) -> torch.Tensor:
        """Returns what the block reads of its residual stream."""
        norm = self.layer.final_layer_norm
        return norm(states) if self.layer.pre_norm and norm is not None else states

    def features(self, states: torch.Tensor) -> torch.Tensor:
        """Computes the input of the output layer.

        Args:
            states: Residual stream before the block, of shape (clips, frames, hidden size).

        Returns:
            The activations, of shape (clips, frames, intermediate units).
        """
        if not self.feed_forward.intermediate:
            return states.new_zeros(*states.shape[:-1], 0)
        return self.feed_forward.intermediate_act_fn(self.feed_forward.intermediate_dense(self.before(states)))

    def normalize(self, sums: torch.Tensor) -> torch.Tensor:
        """Returns the residual stream behind the block from the sum of stream and block."""
        norm = self.layer.final_layer_norm
        return sums if self.layer.pre_norm or norm is None else norm(sums)

    def adapt(self, states: torch.Tensor) -> torch.Tensor:
        """Returns the output of the layer from the residual stream behind the block."""
        return states if self.layer.adapter_layer is None else states + self.layer.adapter_layer(states)


def add_output(
    states: torch.Tensor, features: torch.Tensor, output_layer: GatedLinear | OutputBias | None
) -> torch.Tensor:
    """Adds a block's output to its residual stream.

    Args:
        states: Residual stream before the block.
        features: Input of the output layer.
        output_layer: Output layer, or `None` for a removed block.
    """
    if output_layer is None:
        return states
    return states + (output_layer() if isinstance(output_layer, OutputBias) else output_layer(features))
