"""The units that can be pruned: their kinds, and one value for every unit of a block or a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn

from .gated import GatedMixin
from .gates import HardConcreteGate


# Kinds of units: attention blocks, their heads, query/key and value/output dimensions of each head; feed-forward blocks
# and their intermediate units; channels of the convolutions.
UNITS = ("mha", "head", "qk", "vo", "ffn", "int", "conv")
# The units of arXiv 2306.01385.
PAPER_UNITS = ("mha", "qk", "vo", "ffn", "int")
# The paper's without its gates on whole blocks. Adam moves such a gate as fast as one on a single unit, so that blocks
# close early and the loss at a given size is higher. A block is still removed when all its units are.
DEFAULT_UNITS = ("qk", "vo", "int")
BLOCK_UNITS = ("mha", "ffn")

# A function from a gate to one value per unit, of shape (gates,).
GateValues: TypeAlias = Callable[[HardConcreteGate], torch.Tensor]


def check_gate_settings(units: Sequence[str], ste: bool, initial_drop_rate: float) -> None:
    """Checks the arguments of `attach_gates`, which config.json stores.

    Args:
        units: Kinds of units, of `UNITS`.
        ste: Whether gradients pass the gates' hard limits unchanged.
        initial_drop_rate: Initial value of 1 - sigmoid(log_alpha), between 0 and 1.

    Raises:
        ValueError: If a kind is unknown, there is none, or a value has a wrong type or is out of range.
    """
    unknown = sorted(str(unit) for unit in units if unit not in UNITS) if isinstance(units, (list, tuple)) else [units]
    if unknown or not units:
        raise ValueError(f"Unknown units {unknown}: choose one or more of {', '.join(UNITS)}.")
    if not isinstance(ste, bool):
        raise ValueError(f"`ste` must be true or false, but is {ste!r}.")
    is_number = isinstance(initial_drop_rate, (int, float)) and not isinstance(initial_drop_rate, bool)
    if not is_number or not 0 < initial_drop_rate < 1:
        raise ValueError(f"`initial_drop_rate` must be between 0 and 1, but is {initial_drop_rate}.")


@dataclass
class AttentionUnits:
    """One value for each unit of an attention block.

    Attributes:
        block: Value of the block, of shape ().
        head: Values of the heads that are present, of shape (heads,).
        query_key: Values of the query/key dimensions, one tensor per head.
        value_output: Values of the value/output dimensions, one tensor per head.
    """

    block: torch.Tensor
    head: torch.Tensor
    query_key: tuple[torch.Tensor, ...]
    value_output: tuple[torch.Tensor, ...]


@dataclass
class FeedForwardUnits:
    """One value for each unit of a feed-forward block.

    Attributes:
        block: Value of the block, of shape ().
        intermediate: Values of the intermediate units, of shape (intermediate units,).
    """

    block: torch.Tensor
    intermediate: torch.Tensor


# Values of an attention and a feed-forward block; `None` for a removed one.
LayerUnits: TypeAlias = tuple[AttentionUnits | None, FeedForwardUnits | None]


@dataclass(frozen=True)
class GatedWidth:
    """A width that gates decide: some neighbouring values of one gate module.

    Attributes:
        gate: Gate module.
        start: Index of the first value that belongs to the width.
        stop: Index after the last one.
    """

    gate: HardConcreteGate
    start: int
    stop: int


@dataclass(frozen=True)
class UnitGates:
    """The gates on all units of one kind in one place of a model.

    Attributes:
        unit: Kind of unit, one of `UNITS`.
        gate: Gate module.
        owner: Module whose parameters the gates scale.
    """

    unit: str
    gate: HardConcreteGate
    owner: GatedMixin


def walk_gates(model: nn.Module) -> Iterator[UnitGates]:
    """Yields all gates of a model with their kind of unit, in a fixed order."""
    for module in model.modules():
        if isinstance(module, GatedMixin):
            for unit, gate in module.gates_by_unit().items():
                yield UnitGates(unit, gate, module)
