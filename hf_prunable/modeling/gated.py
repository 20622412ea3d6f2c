"""Linear layers and convolutions that multiply their weight with the gates of their rows and columns."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from .gates import HardConcreteGate


Axis = Literal["rows", "columns", "all"]


class GatedMixin:
    """Gates on a weight: on its rows (outputs, with their bias), its columns (inputs), or all of it.

    A gate scales the weight and never the activations: it is the same function at a product of the size of the
    weight, and folding the gate in at the end is the same product. Without gates the module is the stock one.
    """

    gates: nn.ModuleDict | None

    def add_gate(self, unit: str, gate: HardConcreteGate, axis: Axis, group_sizes: tuple[int, ...] = ()) -> None:
        """Puts a gate on the weight.

        Args:
            unit: The gate's name, part of its key in the state dict.
            gate: One number per row or column, or a single one for "all".
            axis: What the gate scales.
            group_sizes: Where one number stands for several neighbouring rows or columns, how many it stands for.
        """
        if self.gates is None:
            self.gates = nn.ModuleDict()
        self.gates[unit] = gate
        self._gate_layout[unit] = (axis, group_sizes)

    def remove_gates(self) -> None:
        """Takes all gates off, without folding them in."""
        self.gates = None
        self._gate_layout.clear()

    @torch.no_grad()
    def unit_norms(self, gate: HardConcreteGate) -> torch.Tensor:
        """The norm of the weights behind each number of one of this module's gates, of shape (gates,)."""
        unit = next(unit for unit, own_gate in self.gates.items() if own_gate is gate)
        axis, group_sizes = self._gate_layout[unit]
        weight = self.weight.transpose(0, 1) if axis == "columns" else self.weight
        squares = weight.float().flatten(1).square().sum(1)
        if group_sizes:
            squares = torch.stack([group.sum() for group in squares.split(group_sizes)])
        return squares.sqrt()

    def gated_parameters(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Weight and bias as the forward pass uses them."""
        weight, bias = self.weight, self.bias
        for unit, gate in (self.gates or {}).items():
            axis, group_sizes = self._gate_layout[unit]
            mask = gate()
            if group_sizes:
                mask = torch.cat([value.expand(size) for value, size in zip(mask, group_sizes, strict=True)])
            if weight is not None:
                mask = mask.to(weight.dtype)
                trailing = (1,) * (weight.dim() - 2)
                weight = weight * (mask.view(1, -1, *trailing) if axis == "columns" else mask.view(-1, 1, *trailing))
            if bias is not None and axis != "columns":
                bias = bias * mask.to(bias.dtype)
        return weight, bias


class GatedLinear(GatedMixin, nn.Linear):
    """A linear layer whose rows and columns may have gates."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__(in_features, out_features, bias)
        self.gates = None
        self._gate_layout = {}

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input, *self.gated_parameters())


class GatedConv1d(GatedMixin, nn.Conv1d):
    """A convolution whose input channels may have gates."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gates = None
        self._gate_layout = {}

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(input, *self.gated_parameters())


def plain_layer(layer: nn.Linear | nn.Conv1d) -> nn.Linear | nn.Conv1d:
    """torch's own layer with the parameters of one that could have gates or has a parametrized weight."""
    has_bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        plain = nn.Linear(layer.in_features, layer.out_features, has_bias, device="meta")
    else:
        sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
        plain = nn.Conv1d(*sizes, layer.dilation, layer.groups, has_bias, device="meta")
    weight = layer.weight
    plain.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight.detach())
    plain.bias = layer.bias
    return plain.train(layer.training)


class OutputBias(GatedMixin, nn.Module):
    """What is left of a block's output layer when it has no inputs any more: its bias."""

    def __init__(self, out_features: int):
        super().__init__()
        self.weight = None
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.gates = None
        self._gate_layout = {}

    def forward(self) -> torch.Tensor:
        """The bias, of shape (out_features,)."""
        return self.gated_parameters()[1]
