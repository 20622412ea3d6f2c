"""Which units stay: as the gates stand, or the best that fit into the size asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from ..modeling.attention import KeptHeads
from ..modeling.gates import HardConcreteGate
from ..modeling.shape import AttentionShape, LayerShape, PrunedShape
from ..modeling.size import PARAMETERS, Measure, UnitCounts
from ..modeling.units import BLOCK_UNITS, LayerUnits, unit_values


logger = logging.get_logger(__name__)

# How far below the target, as a part of the dense model, is near enough to stop trying further units.
TARGET_TOLERANCE = 1e-4


@dataclass
class Cut:
    """What stays of a model.

    Attributes:
        shape: After the cut.
        conv: For each convolution, indices of the channels that stay.
        attention: For each layer, what stays of its attention; `None` for nothing.
        intermediate: For each layer, indices of the intermediate units that stay; `None` where the block goes.
    """

    shape: PrunedShape
    conv: list[torch.Tensor]
    attention: list[KeptHeads | None]
    intermediate: list[torch.Tensor | None]


class GateDecisions:
    """Which gates of a model are open: one boolean per gate.

    Args:
        model: Base or head model with gates.
    """

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.gates = [(name.rsplit(".", 1)[1], gate) for name, gate in model.named_gates()]
        # The gates on anything but whole blocks.
        self.fine = [gate for unit, gate in self.gates if unit not in BLOCK_UNITS]
        self.open: dict[HardConcreteGate, torch.Tensor] = {}
        for _, gate in self.gates:
            self.set(gate, gate.deterministic_mask() > 0)

    def set(self, gate: HardConcreteGate, is_open: torch.Tensor) -> None:
        """Decides all gates of a module."""
        self.open[gate] = is_open.detach().cpu()

    def of_kind(self, kinds: tuple[str, ...]) -> list[HardConcreteGate]:
        """The gates on these kinds of units."""
        return [gate for unit, gate in self.gates if unit in kinds]

    def cut(self) -> Cut:
        """What these decisions leave."""
        units = unit_values(self.model, lambda gate: self.open[gate].to(gate.log_alpha.device))
        conv = [channels.bool().cpu().clone() for channels in units.conv]
        layers = self.model.base_model.encoder.layers
        attention = [
            _kept_heads(values, layer.attention.heads) for values, layer in zip(units.layers, layers, strict=True)
        ]
        intermediate = [_indices(values.int.bool().cpu()) if values.ffn else None for values in units.layers]
        for gate, channels in zip(self.of_kind(("conv",)), conv, strict=False):
            if not channels.any():
                # A convolution without channels is none; the kept one carries the gate's 0.
                channels[gate.log_alpha.argmax()] = True
        shape = PrunedShape(
            tuple(int(channels.sum()) for channels in conv),
            tuple(
                LayerShape(heads and heads.shape, None if units is None else len(units))
                for heads, units in zip(attention, intermediate, strict=True)
            ),
        )
        return Cut(shape, [_indices(channels) for channels in conv], attention, intermediate)

    def size(self, measure: Measure = PARAMETERS) -> int:
        """The size of the encoder that these decisions leave."""
        return measure.count(self.model.config, UnitCounts.of(self.cut().shape))

    def sparsity(self, measure: Measure = PARAMETERS) -> float:
        """The part of the original dense encoder that these decisions remove."""
        return 1 - self.size(measure) / measure.dense(self.model.config)

    def rank_fine_units(self) -> tuple[torch.Tensor, torch.Tensor]:
        """For all fine units, best first: the place of their gate in `fine`, and their number in it.

        The rank is by log_alpha, ties by the norm of the weights.
        """
        modules = {gate: module for module in self.model.modules() for gate in _gates_of(module)}
        log_alpha, norms, owners, numbers = [], [], [], []
        for place, gate in enumerate(self.fine):
            log_alpha.append(gate.log_alpha.detach().cpu())
            norms.append(modules[gate].unit_norms(gate).cpu())
            owners.append(torch.full((gate.num_gates,), place))
            numbers.append(torch.arange(gate.num_gates))
        if not owners:
            return torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
        by_norm = torch.cat(norms).argsort(descending=True, stable=True)
        order = by_norm[torch.cat(log_alpha)[by_norm].argsort(descending=True, stable=True)]
        return torch.cat(owners)[order], torch.cat(numbers)[order]


def _gates_of(module: torch.nn.Module) -> list[HardConcreteGate]:
    gates = getattr(module, "gates", None)
    return list(gates.values()) if gates is not None else []


def _indices(is_kept: torch.Tensor) -> torch.Tensor:
    return is_kept.nonzero().squeeze(1)


def _kept_heads(values: LayerUnits, heads: tuple[int, ...]) -> KeptHeads | None:
    if not values.mha:
        return None
    positions, kept_heads, query_key, value_output = [], [], [], []
    for position, (head, is_open, vo) in enumerate(zip(heads, values.head, values.vo, strict=True)):
        if is_open and vo.any():
            positions.append(position)
            kept_heads.append(head)
    is_alive = set(positions)
    for units, kept in ((values.qk, query_key), (values.vo, value_output)):
        kept += [unit.bool() & (position in is_alive) for position, unit in enumerate(units)]
    empty = torch.zeros(0, dtype=torch.bool)
    return KeptHeads(
        AttentionShape(
            tuple(kept_heads),
            tuple(int(query_key[position].sum()) for position in positions),
            tuple(int(value_output[position].sum()) for position in positions),
        ),
        torch.tensor(positions, dtype=torch.long),
        _indices(torch.cat([empty, *(unit.cpu() for unit in query_key)])),
        _indices(torch.cat([empty, *(unit.cpu() for unit in value_output)])),
    )


def deterministic_sparsity(model: PreTrainedModel, measure: Measure = PARAMETERS) -> float:
    """The part of the original dense encoder that `compact(model)` would leave out."""
    return GateDecisions(model).sparsity(measure)


def sparsity_ceiling(model: PreTrainedModel, measure: Measure = PARAMETERS) -> float:
    """The sparsity with every gate of the model closed."""
    decisions = GateDecisions(model)
    for _, gate in decisions.gates:
        decisions.set(gate, torch.zeros(gate.num_gates, dtype=torch.bool))
    return decisions.sparsity(measure)


def check_target(model: PreTrainedModel, target_sparsity: float, measure: Measure = PARAMETERS) -> None:
    """Checks that the gates of a model can reach a target.

    Args:
        model: With gates.
        target_sparsity: The part of the original dense encoder to remove.
        measure: What it is counted in.

    Raises:
        ValueError: If the target is not between 0 and 1, was passed before, or is above what the gates can remove.
    """
    if not 0 < target_sparsity < 1:
        raise ValueError(
            f"`{measure.option}` must lie between 0 and 1, but is {target_sparsity}. It is the part of the dense "
            f"encoder's {measure} to remove: 0.72 leaves 28 %."
        )
    gone = measure.sparsity(model.config, UnitCounts.of(model.config.shape))
    if target_sparsity <= gone and gone > 0:
        raise ValueError(
            f"`{measure.option}` is {target_sparsity}, and {gone:.4f} of the original dense encoder is gone already, "
            f"counted in {measure}. Targets count from that size: ask for more."
        )
    ceiling = sparsity_ceiling(model, measure)
    if target_sparsity > ceiling:
        raise ValueError(
            f"`{measure.option}` is {target_sparsity}, and gates on {', '.join(model.config.gates['units'])} can "
            f"remove at most {math.floor(ceiling * 1e4) / 1e4:.4f} of this model, counted in {measure}. Ask for less, "
            "or gate more kinds of units."
        )


def decide_at_target(model: PreTrainedModel, target_sparsity: float, measure: Measure = PARAMETERS) -> GateDecisions:
    """Opens the best gates that fit into the size asked for.

    Blocks are decided first, by their own gates. All other units are ranked by log_alpha, ties by the norm of their
    weights, and kept from the top to the largest size that is not above the target's.

    Args:
        model: With gates.
        target_sparsity: The part of the original dense encoder to remove.
        measure: What it is counted in.

    Raises:
        ValueError: If the target cannot be reached.
    """
    check_target(model, target_sparsity, measure)
    decisions = GateDecisions(model)
    size = (1 - target_sparsity) * measure.dense(model.config)
    _fit_blocks(decisions, size, measure)
    owners, numbers = decisions.rank_fine_units()

    def open_best(num_open: int) -> int:
        """Opens so many fine units and no other, and returns the size."""
        for place, gate in enumerate(decisions.fine):
            is_open = torch.zeros(gate.num_gates, dtype=torch.bool)
            is_open[numbers[:num_open][owners[:num_open] == place]] = True
            decisions.set(gate, is_open)
        return decisions.size(measure)

    low, high = 0, len(owners)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if open_best(middle) <= size else (low, middle - 1)
    open_best(low)
    _fill(decisions, owners[low:], numbers[low:], size, measure)
    return decisions


def _fit_blocks(decisions: GateDecisions, size: float, measure: Measure) -> None:
    """Opens closed blocks while the model is too small with everything in them, and closes open ones while too large."""
    blocks = sorted(decisions.of_kind(BLOCK_UNITS), key=lambda gate: gate.log_alpha.item())
    for fine_is_open, block_is_open, order in ((True, True, blocks[::-1]), (False, False, blocks)):
        for gate in decisions.fine:
            decisions.set(gate, torch.full((gate.num_gates,), fine_is_open))
        for block in order:
            present = decisions.size(measure)
            if present >= size if block_is_open else present <= size:
                break
            if bool(decisions.open[block]) != block_is_open:
                decisions.set(block, torch.tensor([block_is_open]))
                logger.warning_once(
                    "To meet the target, blocks are decided against their own gates: the block gates had not settled "
                    "at a size that the target allows."
                )


def _fill(
    decisions: GateDecisions, owners: torch.Tensor, numbers: torch.Tensor, size: float, measure: Measure
) -> None:
    """Opens further units, best first, that still fit: where the next one in rank brings more than its own weights."""
    tolerance = TARGET_TOLERANCE * measure.dense(decisions.model.config)
    present = decisions.size(measure)
    for owner, number in zip(owners.tolist(), numbers.tolist(), strict=True):
        if size - present < tolerance:
            return
        is_open = decisions.open[decisions.fine[owner]]
        is_open[number] = True
        grown = decisions.size(measure)
        if grown > size:
            is_open[number] = False
        else:
            present = grown
