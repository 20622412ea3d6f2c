"""Linear layers and convolutions that multiply their weight with the gates of their rows and columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from .gates import HardConcreteGate


if TYPE_CHECKING:
    # What the mixins are mixed into.
    from torch.nn import Module as _Base
else:
    _Base = object

Axis = Literal["rows", "columns", "all"]


class GatedMixin(_Base):
    """Gates on the parameters of a module: on the rows of its weight (outputs), its columns (inputs), or all of it.

    A gate scales parameters, never activations: the function is the same, the product is of the size of the weight, and
    compaction folds the gate in by the same product. Without gates the module computes what the stock one does.
    """

    gates: nn.ModuleDict | None
    bias: torch.Tensor | None
    _gate_layout: dict[str, tuple[Axis, tuple[int, ...]]]

    def add_gate(self, unit: str, gate: HardConcreteGate, axis: Axis, group_sizes: tuple[int, ...] = ()) -> None:
        """Puts a gate on the parameters.

        Args:
            unit: Kind of unit; it is part of the gate's key in the state dict.
            gate: Gate with one value per row or column, or a single one for "all".
            axis: What the gate scales: "rows", "columns" or "all".
            group_sizes: Numbers of neighbouring rows or columns that share one value each; empty if none share.
        """
        if self.gates is None:
            self.gates = nn.ModuleDict()
        self.gates[unit] = gate
        self._gate_layout[unit] = (axis, group_sizes)

    def remove_gates(self) -> None:
        """Removes all gates without folding them into the parameters."""
        self.gates = None
        self._gate_layout.clear()

    def gates_by_unit(self) -> dict[str, HardConcreteGate]:
        """Returns the gates by kind of unit, in the order in which they were added."""
        found: dict[str, HardConcreteGate] = {}
        if self.gates is not None:
            for unit, gate in self.gates.items():
                assert isinstance(gate, HardConcreteGate)
                found[unit] = gate
        return found

    def unit_values(
        self, unit: str, of_gate: Callable[[HardConcreteGate], torch.Tensor], num_units: int
    ) -> torch.Tensor:
        """Returns the values of the units of one kind, of shape (num_units,); 1 for units without a gate.

        Args:
            unit: Kind of unit.
            of_gate: Function from a gate to one value per unit, of shape (num_units,).
            num_units: Number of units of this kind that the module has.
        """
        gate = self.gates_by_unit().get(unit)
        return torch.ones(num_units, device=next(self.parameters()).device) if gate is None else of_gate(gate)

    def masks(self) -> list[tuple[Axis, torch.Tensor]]:
        """Returns the gates' present values with the axis that each scales; in training mode each call samples anew."""
        masks = []
        for unit, gate in self.gates_by_unit().items():
            axis, group_sizes = self._gate_layout[unit]
            mask = gate()
            if group_sizes:
                mask = torch.cat([value.expand(size) for value, size in zip(mask, group_sizes, strict=True)])
            masks.append((axis, mask))
        return masks

    def scaled_bias(self, masks: list[tuple[Axis, torch.Tensor]]) -> torch.Tensor | None:
        """Returns the bias times the masks of rows and of the whole module."""
        bias: torch.Tensor | None = self.bias
        for axis, mask in masks:
            if bias is not None and axis != "columns":
                bias = bias * mask.to(bias.dtype)
        return bias

    def _start_without_gates(self) -> None:
        self.gates = None
        self._gate_layout = {}


class GatedWeightMixin(GatedMixin):
    """Gates on a module with a weight, of shape (rows, columns, ...)."""

    weight: torch.Tensor

    @torch.no_grad()
    def unit_norms(self, gate: HardConcreteGate) -> torch.Tensor:
        """Returns the L2 norm of the weights that each value of one of this module's gates scales, of shape (gates,)."""
        unit = next(unit for unit, own_gate in self.gates_by_unit().items() if own_gate is gate)
        axis, group_sizes = self._gate_layout[unit]
        weight = self.weight.transpose(0, 1) if axis == "columns" else self.weight
        squares = weight.float().flatten(1).square().sum(1)
        if group_sizes:
            squares = torch.stack([group.sum() for group in squares.split(group_sizes)])
        return squares.sqrt()

    def gated_parameters(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns weight and bias as the forward pass uses them."""
        masks = self.masks()
        weight: torch.Tensor = self.weight
        for axis, mask in masks:
            trailing = (1,) * (weight.dim() - 2)
            mask = mask.to(weight.dtype)
            weight = weight * (mask.view(1, -1, *trailing) if axis == "columns" else mask.view(-1, 1, *trailing))
        return weight, self.scaled_bias(masks)


class GatedLinear(GatedWeightMixin, nn.Linear):
    """A linear layer whose rows and columns may have gates."""

    bias: nn.Parameter

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self._start_without_gates()

    def gated_parameters(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns weight and bias as the forward pass uses them."""
        weight, bias = super().gated_parameters()
        assert bias is not None
        return weight, bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input, *self.gated_parameters())


class GatedConv1d(GatedWeightMixin, nn.Conv1d):
    """A convolution whose input channels may have gates."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._start_without_gates()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(input, *self.gated_parameters())


class OutputBias(GatedMixin, nn.Module):
    """The bias of a block's output layer, left when the layer has lost all its inputs."""

    bias: nn.Parameter

    def __init__(self, out_features: int):
        super().__init__()
        self.weight = None
        self.bias = nn.Parameter(torch.zeros(out_features))
        self._start_without_gates()

    def forward(self) -> torch.Tensor:
        """Returns the bias, of shape (out_features,)."""
        bias: torch.Tensor = self.bias
        for _, mask in self.masks():
            bias = bias * mask.to(bias.dtype)
        return bias

    def extra_repr(self) -> str:
        # peft shows it when a layer that has lost its inputs is named as a target.
        return f"{len(self.bias)} outputs, no inputs to adapt: name it in `exclude_modules`"


def plain_layer(layer: nn.Linear | nn.Conv1d) -> nn.Linear | nn.Conv1d:
    """Returns torch's own layer with the parameters of one that could have gates or has a parametrized weight.

    Args:
        layer: Layer whose parameters the new one shares.
    """
    has_bias = layer.bias is not None
    plain: nn.Linear | nn.Conv1d
    if isinstance(layer, nn.Linear):
        plain = nn.Linear(layer.in_features, layer.out_features, has_bias, device="meta")
    else:
        plain = nn.Conv1d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size[0],
            layer.stride[0],
            layer.padding[0],
            layer.dilation[0],
            layer.groups,
            has_bias,
            device="meta",
        )
    weight = layer.weight
    plain.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight.detach())
    plain.bias = layer.bias
    return plain.train(layer.training)
