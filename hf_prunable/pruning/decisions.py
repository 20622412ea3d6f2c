"""Decisions about which units stay: as the gates stand, or the best ones that fit into a target size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from transformers.utils import logging

from ..modeling.configuration import PrunableConfigMixin
from ..modeling.encoder import KeptLayer
from ..modeling.gated import GatedWeightMixin
from ..modeling.gates import HardConcreteGate, check_gates
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.shape import PrunedShape
from ..modeling.size import PARAMETERS, Measure, UnitCounts
from ..modeling.units import BLOCK_UNITS, GatedWidth, walk_gates


logger = logging.get_logger(__name__)

# The search for further units that fit stops when the size is below the target's by less than this fraction of the
# dense model's size.
TARGET_TOLERANCE = 1e-4


@dataclass
class Cut:
    """What stays of a model.

    Attributes:
        conv: Indices of the channels that stay, one tensor per convolution.
        layers: What stays of each layer.
    """

    conv: list[torch.Tensor]
    layers: list[KeptLayer]

    @property
    def shape(self) -> PrunedShape:
        """Shape of the model after the cut."""
        return PrunedShape(tuple(map(len, self.conv)), tuple(layer.shape for layer in self.layers))


class GateDecisions:
    """Whether each gate of a model is open.

    At first, a gate is open where its deterministic value is above 0.

    Args:
        model: Base or head model with gates.

    Attributes:
        model: The model.
        block_gates: Gates on whole blocks.
        fine_gates: Gates on all other units, with the modules whose weights they scale.
        is_open: Decisions of each gate module, booleans of shape (gates,).

    Raises:
        ValueError: If a gate is not finite.
    """

    def __init__(self, model: PrunableModelMixin):
        check_gates(model.named_gates())
        self.model = model
        self.block_gates: list[HardConcreteGate] = []
        self.fine_gates: dict[HardConcreteGate, GatedWeightMixin] = {}
        self.is_open: dict[HardConcreteGate, torch.Tensor] = {}
        for unit_gates in walk_gates(model):
            if unit_gates.unit in BLOCK_UNITS:
                self.block_gates.append(unit_gates.gate)
            elif isinstance(unit_gates.owner, GatedWeightMixin):
                self.fine_gates[unit_gates.gate] = unit_gates.owner
            self.set(unit_gates.gate, unit_gates.gate.deterministic_mask() > 0)

    def set(self, gate: HardConcreteGate, is_open: torch.Tensor) -> None:
        """Decides all gates of a module.

        Args:
            gate: Gate module.
            is_open: Whether each gate is open, of shape (gates,).
        """
        self.is_open[gate] = is_open.detach().cpu()

    def cut(self) -> Cut:
        """Returns what stays of the model."""

        def of_gate(gate: HardConcreteGate) -> torch.Tensor:
            return self.is_open[gate].to(gate.log_alpha.device)

        base = self.model.base_model
        return Cut(
            base.feature_extractor.kept_channels(base.feature_extractor.units(of_gate)),
            [layer.kept(layer.units(of_gate)) for layer in base.encoder.layers],
        )

    def gated_widths(self) -> Iterator[GatedWidth]:
        """Yields the widths of the small model that gates decide and that are not 0."""
        base = self.model.base_model
        yield from base.feature_extractor.gated_widths()
        for layer, kept in zip(base.encoder.layers, self.cut().layers, strict=True):
            yield from layer.gated_widths(kept)

    def size(self, measure: Measure = PARAMETERS) -> int:
        """Returns the size of the small encoder.

        Args:
            measure: Measure of the size.
        """
        return measure.count(self.model.config, UnitCounts.of(self.cut().shape))

    def sparsity(self, measure: Measure = PARAMETERS) -> float:
        """Returns the fraction of the original dense encoder that is removed.

        Args:
            measure: Measure of the size.
        """
        return 1 - self.size(measure) / measure.dense(self.model.config)

    def rank_fine_units(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Ranks all units but whole blocks by log_alpha, and those with equal log_alpha by the norm of their weights.

        Returns:
            For each unit, best first: the index of its gate module in `fine_gates`, and its index in that module.
        """
        if not self.fine_gates:
            return torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
        gates = self.fine_gates
        log_alpha = torch.cat([gate.log_alpha.detach().cpu() for gate in gates])
        norms = torch.cat([owner.unit_norms(gate).cpu() for gate, owner in gates.items()])
        gate_indices = torch.cat([torch.full((gate.num_gates,), index) for index, gate in enumerate(gates)])
        unit_indices = torch.cat([torch.arange(gate.num_gates) for gate in gates])
        by_norm = norms.argsort(descending=True, stable=True)
        order = by_norm[log_alpha[by_norm].argsort(descending=True, stable=True)]
        return gate_indices[order], unit_indices[order]


def deterministic_sparsity(model: PrunableModelMixin, measure: Measure = PARAMETERS) -> float:
    """Returns the fraction of the original dense encoder that `compact(model)` without a target removes.

    Args:
        model: Base or head model with gates.
        measure: Measure of the size.

    Raises:
        ValueError: If a gate is not finite.
    """
    return GateDecisions(model).sparsity(measure)


def sparsity_ceiling(model: PrunableModelMixin, measure: Measure = PARAMETERS) -> float:
    """Returns the fraction of the original dense encoder that is removed with every gate closed.

    Args:
        model: Base or head model with gates.
        measure: Measure of the size.
    """
    decisions = GateDecisions(model)
    for gate in decisions.is_open:
        decisions.set(gate, torch.zeros(gate.num_gates, dtype=torch.bool))
    return decisions.sparsity(measure)


def check_target(model: PrunableModelMixin, target: float, measure: Measure = PARAMETERS) -> None:
    """Checks that the gates of a model can reach a target.

    Args:
        model: Base or head model with gates.
        target: Fraction of the original dense encoder to remove, between 0 and 1.
        measure: Measure of the size.

    Raises:
        ValueError: If the target is not between 0 and 1, is below the sparsity that the model has already, or above what
            its gates can remove.
    """
    check_target_value(model.config, target, measure, sparsity_ceiling(model, measure), model.config.gates["units"])


def check_target_value(
    config: PrunableConfigMixin, target: float, measure: Measure, ceiling: float, units: Sequence[str]
) -> None:
    """Checks that a target lies between what is removed already and what can be removed.

    Args:
        config: Configuration of the model.
        target: Fraction of the original dense encoder to remove.
        measure: Measure of the size.
        ceiling: Largest fraction that can be removed.
        units: Kinds of units that may be removed.

    Raises:
        ValueError: If it does not, or is no number.
    """
    if not isinstance(target, Real) or not 0 < target < 1:
        raise ValueError(
            f"`{measure.option}` must lie between 0 and 1, but is {target!r}. It is the part of the dense "
            f"encoder's {measure} to remove: 0.72 leaves 28 %."
        )
    removed = measure.sparsity(config, UnitCounts.of(config.shape))
    if target <= removed and removed > 0:
        raise ValueError(
            f"`{measure.option}` is {target}, and {removed:.4f} of the original dense encoder is gone already, "
            f"counted in {measure}. Targets count from that size: ask for more."
        )
    if target > ceiling:
        raise ValueError(
            f"`{measure.option}` is {target}, and removing all units of the kinds {', '.join(units)} "
            f"removes at most {math.floor(ceiling * 1e4) / 1e4:.4f} of this model, counted in {measure}. Ask for less, "
            "or prune more kinds of units."
        )


def decide_at_target(model: PrunableModelMixin, target: float, measure: Measure = PARAMETERS) -> GateDecisions:
    """Opens the best gates that fit into the target size.

    Blocks are decided first, by their own gates. All other units are ranked by log_alpha, those with equal log_alpha by
    the norm of their weights. They are opened in this order up to the largest size that does not exceed the target's.

    Args:
        model: Base or head model with gates.
        target: Fraction of the original dense encoder to remove, between 0 and 1.
        measure: Measure of the size.

    Raises:
        ValueError: If the target cannot be reached.
    """
    check_target(model, target, measure)
    decisions = GateDecisions(model)
    max_size = (1 - target) * measure.dense(model.config)
    _fit_blocks(decisions, max_size, measure)
    gate_indices, unit_indices = decisions.rank_fine_units()

    def open_best(num_open: int) -> int:
        """Opens the best `num_open` fine units and no other, and returns the size."""
        for index, gate in enumerate(decisions.fine_gates):
            is_open = torch.zeros(gate.num_gates, dtype=torch.bool)
            is_open[unit_indices[:num_open][gate_indices[:num_open] == index]] = True
            decisions.set(gate, is_open)
        return decisions.size(measure)

    low, high = 0, len(gate_indices)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if open_best(middle) <= max_size else (low, middle - 1)
    open_best(low)
    _fill(decisions, (gate_indices[low:], unit_indices[low:]), max_size, measure)
    return decisions


def _fit_blocks(decisions: GateDecisions, max_size: float, measure: Measure) -> None:
    """Brings the blocks to a set that the target allows, each by its own gate as far as possible.

    Closed blocks are opened while the model with all fine units is too small; open ones are closed while the model
    without any fine unit is too large.
    """
    blocks = sorted(decisions.block_gates, key=lambda gate: gate.log_alpha.item())
    for fine_is_open, block_is_open, order in ((True, True, blocks[::-1]), (False, False, blocks)):
        for gate in decisions.fine_gates:
            decisions.set(gate, torch.full((gate.num_gates,), fine_is_open))
        for block in order:
            size = decisions.size(measure)
            if size >= max_size if block_is_open else size <= max_size:
                break
            if bool(decisions.is_open[block]) != block_is_open:
                decisions.set(block, torch.tensor([block_is_open]))
                logger.warning_once(
                    "To meet the target, blocks are decided against their own gates: the block gates had not settled "
                    "at a size that the target allows."
                )


def _fill(
    decisions: GateDecisions, ranked: tuple[torch.Tensor, torch.Tensor], max_size: float, measure: Measure
) -> None:
    """Opens further units that still fit, best first.

    The next unit in rank may not fit although later ones do: it may bring a head or a block with it.

    Args:
        decisions: Decisions, changed in place.
        ranked: Closed units as `rank_fine_units` returns them.
        max_size: Largest size allowed.
        measure: Measure of the size.
    """
    tolerance = TARGET_TOLERANCE * measure.dense(decisions.model.config)
    gates = list(decisions.fine_gates)
    size = decisions.size(measure)
    for gate_index, unit_index in zip(*(indices.tolist() for indices in ranked), strict=True):
        if max_size - size < tolerance:
            return
        is_open = decisions.is_open[gates[gate_index]]
        is_open[unit_index] = True
        grown = decisions.size(measure)
        if grown > max_size:
            is_open[unit_index] = False
        else:
            size = grown
