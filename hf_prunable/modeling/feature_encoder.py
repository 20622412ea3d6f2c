"""The convolutions that turn a waveform into frames, at any number of channels, with gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .gated import GatedConv1d
from .gates import HardConcreteGate


class PrunableConvLayer(GradientCheckpointingLayer):
    """A convolution, the norm that the model's variant has there, and an activation."""

    def __init__(self, config: Any, number: int, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = GatedConv1d(
            in_channels,
            out_channels,
            kernel_size=config.conv_kernel[number],
            stride=config.conv_stride[number],
            bias=config.conv_bias,
        )
        self.normalizes_channels = config.feat_extract_norm == "layer"
        if self.normalizes_channels:
            self.layer_norm = nn.LayerNorm(out_channels)
        elif number == 0:
            # One group per channel: each channel is normalised over time by itself, and can go without a trace.
            self.layer_norm = nn.GroupNorm(out_channels, out_channels)
        else:
            self.layer_norm = None
        self.activation = ACT2FN[config.feat_extract_activation]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.conv(hidden_states)
        if self.normalizes_channels:
            hidden_states = self.layer_norm(hidden_states.transpose(-2, -1)).transpose(-2, -1)
        elif self.layer_norm is not None:
            hidden_states = self.layer_norm(hidden_states)
        return self.activation(hidden_states)


class PrunableFeatureEncoder(nn.Module):
    """Waveform to frames, with the channels of a shape.

    Args:
        config: A prunable configuration.
        channels: Output channels of each convolution.
    """

    def __init__(self, config: Any, channels: tuple[int, ...]):
        super().__init__()
        if config.feat_extract_norm not in ("group", "layer"):
            raise ValueError(f"`feat_extract_norm` must be 'group' or 'layer', but is {config.feat_extract_norm!r}.")
        self.conv_layers = nn.ModuleList(
            PrunableConvLayer(config, number, in_channels, out_channels)
            for number, (in_channels, out_channels) in enumerate(zip((1, *channels[:-1]), channels, strict=True))
        )
        self.gradient_checkpointing = False
        self._requires_grad = True

    def attach_gates(self, units: tuple[str, ...], make_gate: Callable[[int], HardConcreteGate]) -> None:
        """Puts a gate on each channel ("conv") where it is read: on the next convolution's input.

        The last convolution has none: the norm of the feature projection runs over its channels.

        Raises:
            ValueError: If the convolutions normalise over their channels, so that a masked channel would still count
                in the statistics and the pruned model could not equal the masked one.
        """
        if "conv" not in units:
            return
        if any(layer.normalizes_channels for layer in self.conv_layers):
            raise ValueError(
                "Gates on convolution channels (unit 'conv') need `feat_extract_norm='group'`. This model has 'layer': "
                "each norm runs over all channels, and removing one would change the others. "
                "Leave 'conv' out of the units."
            )
        for reader in self.conv_layers[1:]:
            reader.conv.add_gate("conv", make_gate(reader.conv.in_channels), "columns")

    @property
    def input_layer(self) -> nn.Module:
        """The module that takes the waveform in."""
        return self.conv_layers[0].conv

    def _freeze_parameters(self) -> None:
        # The name under which transformers' `freeze_feature_encoder` looks for it.
        for parameter in self.parameters():
            parameter.requires_grad = False
        self._requires_grad = False

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Maps (batch, samples) to (batch, channels, frames)."""
        hidden_states = input_values[:, None]
        if self._requires_grad and self.training:
            # Gradient checkpointing needs an input with a gradient.
            hidden_states.requires_grad = True
        for layer in self.conv_layers:
            hidden_states = layer(hidden_states)
        return hidden_states

    def cut(self, kept: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The parameters that stay, gates folded in.

        Args:
            kept: For each convolution, the indices of the channels that stay.
        """
        parameters = {}
        columns = torch.zeros(1, dtype=torch.long)
        for number, (layer, rows) in enumerate(zip(self.conv_layers, kept, strict=True)):
            weight, bias = layer.conv.gated_parameters()
            parameters[f"conv_layers.{number}.conv.weight"] = weight[rows][:, columns]
            if bias is not None:
                parameters[f"conv_layers.{number}.conv.bias"] = bias[rows]
            if layer.layer_norm is not None:
                parameters[f"conv_layers.{number}.layer_norm.weight"] = layer.layer_norm.weight[rows]
                parameters[f"conv_layers.{number}.layer_norm.bias"] = layer.layer_norm.bias[rows]
            columns = rows
        return parameters
