"""The convolutions that turn a waveform into frames, with any number of channels, with gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration import PrunableConfigMixin
from .gated import GatedConv1d
from .gates import HardConcreteGate
from .units import GatedWidth, GateValues


def check_waveforms(input_values: torch.Tensor) -> None:
    """Checks the shape of a batch of waveforms.

    Args:
        input_values: Waveforms, of shape (batch, samples).

    Raises:
        ValueError: If they are no tensor, have another shape, or there are none.
    """
    if not isinstance(input_values, torch.Tensor):
        raise ValueError(
            f"`input_values` is of type {type(input_values).__name__}. Give a tensor of shape (batch, samples), as the feature "
            'extractor returns it with `return_tensors="pt"`.'
        )
    if input_values.dim() != 2 or input_values.shape[0] == 0:
        raise ValueError(
            f"`input_values` has the shape {tuple(input_values.shape)}. Give waveforms of shape (batch, samples), at least "
            "one; a single one as `waveform[None]`."
        )


class PrunableConvLayer(GradientCheckpointingLayer):
    """A convolution, the norm that the model's variant has there, and an activation.

    Args:
        config: Configuration of the model.
        layer_idx: Index of the convolution, from 0.
        in_channels: Number of input channels.
        out_channels: Number of output channels.
    """

    def __init__(self, config: PrunableConfigMixin, layer_idx: int, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = GatedConv1d(
            in_channels,
            out_channels,
            kernel_size=config.conv_kernel[layer_idx],
            stride=config.conv_stride[layer_idx],
            bias=config.conv_bias,
        )
        self.normalizes_channels = config.feat_extract_norm == "layer"
        self.layer_norm: nn.LayerNorm | nn.GroupNorm | None = None
        if self.normalizes_channels:
            self.layer_norm = nn.LayerNorm(out_channels)
        elif layer_idx == 0:
            # One group per channel: each channel is normalised over time alone, so that it can be removed exactly.
            self.layer_norm = nn.GroupNorm(out_channels, out_channels)
        self.activation = ACT2FN[config.feat_extract_activation]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.conv(hidden_states)
        if self.layer_norm is not None and self.normalizes_channels:
            hidden_states = self.layer_norm(hidden_states.transpose(-2, -1)).transpose(-2, -1)
        elif self.layer_norm is not None:
            hidden_states = self.layer_norm(hidden_states)
        return self.activation(hidden_states)


class PrunableFeatureEncoder(nn.Module):
    """Maps waveforms to frames, with the channels of a shape.

    Args:
        config: Configuration of the model.
        channels: Number of output channels of each convolution.
    """

    conv_layers: list[PrunableConvLayer]

    def __init__(self, config: PrunableConfigMixin, channels: tuple[int, ...]):
        super().__init__()
        if config.feat_extract_norm not in ("group", "layer"):
            raise ValueError(f"`feat_extract_norm` must be 'group' or 'layer', but is {config.feat_extract_norm!r}.")
        layers = [
            PrunableConvLayer(config, layer_idx, in_channels, out_channels)
            for layer_idx, (in_channels, out_channels) in enumerate(zip((1, *channels[:-1]), channels, strict=True))
        ]
        # torch types the entries of a module list as any module.
        self.conv_layers = cast("list[PrunableConvLayer]", nn.ModuleList(layers))
        self.gradient_checkpointing = False
        self._requires_grad = True

    def attach_gates(self, units: tuple[str, ...], make_gate: Callable[[int], HardConcreteGate]) -> None:
        """Puts a gate on each channel ("conv") where it is read: on the input of the next convolution.

        The channels of the last convolution get none, because the norm of the feature projection runs over them.

        Args:
            units: Kinds of units, of `hf_prunable.modeling.units.UNITS`.
            make_gate: Function from a number of gates to a gate module.

        Raises:
            ValueError: If the convolutions normalise over their channels. A masked channel would still count in the
                statistics, and the pruned model could not equal the masked one.
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

    def units(self, of_gate: GateValues) -> list[torch.Tensor]:
        """Returns a value for every output channel, one tensor per convolution.

        Args:
            of_gate: Function from a gate to one value per unit. A channel without a gate has 1.
        """
        values = [layer.conv.unit_values("conv", of_gate, layer.conv.in_channels) for layer in self.conv_layers[1:]]
        last = self.conv_layers[-1].conv
        return [*values, torch.ones(last.out_channels, device=last.weight.device)]

    def kept_channels(self, is_open: list[torch.Tensor]) -> list[torch.Tensor]:
        """Returns the indices of the channels that stay, one tensor per convolution.

        Of a convolution with all channels closed, the one with the highest log_alpha stays, multiplied by its gate's 0.

        Args:
            is_open: Value of each channel as `units` returns it; a channel is closed where it is 0.
        """
        kept = []
        readers = [*self.conv_layers[1:], None]
        for channels, reader in zip(is_open, readers, strict=True):
            is_kept = channels.bool().cpu().clone()
            if reader is not None and not is_kept.any():
                is_kept[reader.conv.gates_by_unit()["conv"].log_alpha.argmax()] = True
            kept.append(is_kept.nonzero().squeeze(1))
        return kept

    def gated_widths(self) -> Iterator[GatedWidth]:
        """Yields the numbers of channels that gates decide."""
        for layer in self.conv_layers[1:]:
            gate = layer.conv.gates_by_unit().get("conv")
            if gate is not None:
                yield GatedWidth(gate, 0, gate.num_gates)

    def cut(self, kept: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns the parameters that stay, with the gates folded in, by their names in the feature encoder.

        Args:
            kept: Indices of the channels that stay, one tensor per convolution.
        """
        parameters = {}
        columns = torch.zeros(1, dtype=torch.long)
        for layer_idx, (layer, rows) in enumerate(zip(self.conv_layers, kept, strict=True)):
            name = f"conv_layers.{layer_idx}"
            weight, bias = layer.conv.gated_parameters()
            parameters[f"{name}.conv.weight"] = weight[rows][:, columns]
            if bias is not None:
                parameters[f"{name}.conv.bias"] = bias[rows]
            if layer.layer_norm is not None:
                parameters[f"{name}.layer_norm.weight"] = layer.layer_norm.weight[rows]
                parameters[f"{name}.layer_norm.bias"] = layer.layer_norm.bias[rows]
            columns = rows
        return parameters

    @property
    def input_layer(self) -> nn.Module:
        """The module that takes the waveform in."""
        return self.conv_layers[0].conv

    def _freeze_parameters(self) -> None:
        # The name that transformers' `freeze_feature_encoder` calls.
        for parameter in self.parameters():
            parameter.requires_grad = False
        self._requires_grad = False

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Maps (batch, samples) to (batch, channels, frames)."""
        check_waveforms(input_values)
        hidden_states = input_values[:, None]
        if self._requires_grad and self.training:
            # Gradient checkpointing needs an input with a gradient.
            hidden_states.requires_grad = True
        for layer in self.conv_layers:
            hidden_states = layer(hidden_states)
        return hidden_states
