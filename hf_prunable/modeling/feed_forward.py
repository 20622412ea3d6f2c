"""The feed-forward block at any intermediate width, with gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from transformers.activations import ACT2FN

from .configuration import PrunableConfigMixin
from .gated import GatedLinear, OutputBias
from .gates import HardConcreteGate
from .units import FeedForwardUnits, GatedWidth, GateValues


class PrunableFeedForward(nn.Module):
    """Two linear layers around an activation; without intermediate units, the output bias alone.

    Args:
        config: Configuration of the model.
        intermediate: Number of intermediate units; 0 leaves the output bias, `None` removes the block.
    """

    intermediate_dense: GatedLinear
    output_dense: GatedLinear | OutputBias

    def __init__(self, config: PrunableConfigMixin, intermediate: int | None):
        super().__init__()
        self.intermediate = intermediate
        if intermediate:
            self.intermediate_dense = GatedLinear(config.hidden_size, intermediate)
            self.intermediate_act_fn = (
                ACT2FN[config.hidden_act] if isinstance(config.hidden_act, str) else config.hidden_act
            )
            self.intermediate_dropout = nn.Dropout(config.activation_dropout)
            self.output_dense = GatedLinear(intermediate, config.hidden_size)
        elif intermediate == 0:
            self.output_dense = OutputBias(config.hidden_size)
        self.output_dropout = nn.Dropout(config.hidden_dropout)

    @property
    def reads_input(self) -> bool:
        """Whether the output depends on the input."""
        return bool(self.intermediate)

    def attach_gates(self, units: tuple[str, ...], make_gate: Callable[[int], HardConcreteGate]) -> None:
        """Puts gates on the intermediate units ("int") and on the block ("ffn").

        Args:
            units: Kinds of units, of `hf_prunable.modeling.units.UNITS`.
            make_gate: Function from a number of gates to a gate module.
        """
        if "int" in units and self.intermediate:
            self.output_dense.add_gate("int", make_gate(self.intermediate), "columns")
        if "ffn" in units and self.intermediate is not None:
            self.output_dense.add_gate("ffn", make_gate(1), "all")

    def units(self, of_gate: GateValues) -> FeedForwardUnits | None:
        """Returns a value for every unit of the block, or `None` if the block is removed.

        Args:
            of_gate: Function from a gate to one value per unit. A unit without a gate has 1.
        """
        if self.intermediate is None:
            return None
        return FeedForwardUnits(
            self.output_dense.unit_values("ffn", of_gate, 1)[0],
            self.output_dense.unit_values("int", of_gate, self.intermediate),
        )

    def kept_units(self, is_open: FeedForwardUnits | None) -> torch.Tensor | None:
        """Returns the indices of the intermediate units that stay, or `None` if the block goes with its output bias.

        Args:
            is_open: Value of each unit as `units` returns it; a unit is closed where it is 0.
        """
        if is_open is None or not is_open.block:
            return None
        return is_open.intermediate.bool().cpu().nonzero().squeeze(1)

    def gated_widths(self, kept: torch.Tensor | None) -> Iterator[GatedWidth]:
        """Yields the intermediate width if gates decide it and it is not 0.

        Args:
            kept: Indices of the intermediate units that stay, or `None` for none with the block.
        """
        if kept is not None and len(kept) and self.intermediate is not None:
            gate = self.output_dense.gates_by_unit().get("int")
            if gate is not None:
                yield GatedWidth(gate, 0, self.intermediate)

    def cut(self, kept: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Returns the parameters that stay, with the gates folded in, by their names in the block.

        Args:
            kept: Indices of the intermediate units that stay, or `None` to remove the block with its output bias.
        """
        if kept is None:
            return {}
        if isinstance(self.output_dense, OutputBias):
            return {"output_dense.bias": self.output_dense()}
        weight, bias = self.output_dense.gated_parameters()
        parameters = {"output_dense.bias": bias}
        if len(kept):
            parameters["output_dense.weight"] = weight[:, kept]
            weight, bias = self.intermediate_dense.gated_parameters()
            parameters |= {"intermediate_dense.weight": weight[kept], "intermediate_dense.bias": bias[kept]}
        return parameters

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """Returns what the block adds to its input, (batch, frames, hidden size), or `None` for a removed block."""
        if self.intermediate is None:
            return None
        if not self.intermediate:
            return self.output_dropout(self.output_dense().expand_as(hidden_states))
        hidden_states = self.intermediate_act_fn(self.intermediate_dense(hidden_states))
        hidden_states = self.output_dense(self.intermediate_dropout(hidden_states))
        return self.output_dropout(hidden_states)
