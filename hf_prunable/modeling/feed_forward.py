"""The feed-forward block at any intermediate width, with gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN

from .gated import GatedLinear, OutputBias
from .gates import HardConcreteGate


class PrunableFeedForward(nn.Module):
    """Two linear layers around an activation; without intermediate units, the output bias alone.

    Args:
        config: A prunable configuration.
        intermediate: Number of intermediate units; 0 keeps the output bias, `None` leaves nothing.
    """

    def __init__(self, config: Any, intermediate: int | None):
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
        """Puts a gate on each intermediate unit ("int") and on the block ("ffn")."""
        if "int" in units and self.intermediate:
            self.output_dense.add_gate("int", make_gate(self.intermediate), "columns")
        if "ffn" in units and self.intermediate is not None:
            self.output_dense.add_gate("ffn", make_gate(1), "all")

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """Returns what the block adds to its input: (batch, frames, hidden size), or `None` for a removed block."""
        if self.intermediate is None:
            return None
        if not self.intermediate:
            return self.output_dropout(self.output_dense().expand_as(hidden_states))
        hidden_states = self.intermediate_act_fn(self.intermediate_dense(hidden_states))
        hidden_states = self.output_dense(self.intermediate_dropout(hidden_states))
        return self.output_dropout(hidden_states)

    def cut(self, kept: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """The parameters that stay, gates folded in.

        Args:
            kept: Indices of the intermediate units that stay, or `None` to drop the block with its output bias.
        """
        if kept is None:
            return {}
        weight, bias = self.output_dense.gated_parameters()
        parameters = {"output_dense.bias": bias}
        if len(kept):
            parameters["output_dense.weight"] = weight[:, kept]
            weight, bias = self.intermediate_dense.gated_parameters()
            parameters["intermediate_dense.weight"] = weight[kept]
            parameters["intermediate_dense.bias"] = bias[kept]
        return parameters
