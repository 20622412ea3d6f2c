"""Shapes that a stock class can express: attention whole, and one feed-forward width for all layers."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

import torch
from transformers.utils import logging

from ..modeling.configuration import PrunableConfigMixin
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.shape import PrunedShape
from ..modeling.size import PARAMETERS, Measure, UnitCounts
from .decisions import GateDecisions, check_target_value


logger = logging.get_logger(__name__)

# Kinds of units that may be removed.
STOCK_UNITS = ("int",)


def stock_width(config: PrunableConfigMixin) -> int:
    """Returns the feed-forward width of a model whose shape a stock class can express.

    Args:
        config: Configuration of the model.

    Raises:
        ValueError: If a stock class cannot express the shape.
    """
    fields = config.shape.stock_fields(config)
    if fields is None:
        raise ValueError(
            "A stock class cannot express the present shape of the model: its heads are not whole, or its layers differ in "
            "width. Start from the dense model, or leave `stock_shape` out."
        )
    return fields["intermediate_size"]


def with_width(shape: PrunedShape, width: int) -> PrunedShape:
    """Returns a shape with another feed-forward width in all layers.

    Args:
        shape: Shape that a stock class can express.
        width: Number of intermediate units in each layer, 1 or more.
    """
    return replace(shape, layers=tuple(replace(layer, intermediate=width) for layer in shape.layers))


def width_at_target(config: PrunableConfigMixin, target: float, measure: Measure = PARAMETERS) -> int:
    """Returns the largest feed-forward width within the target's size.

    Args:
        config: Configuration of the model.
        target: Fraction of the original dense encoder to remove, between 0 and 1.
        measure: Measure of the target.

    Raises:
        ValueError: If a stock class cannot express the shape of the model, the target is out of range or is removed
            already, or a model with one intermediate unit in each layer is larger than the target's size.
    """
    width = stock_width(config)

    def size(width: int) -> int:
        return measure.count(config, UnitCounts.of(with_width(config.shape, width)))

    dense_size = measure.dense(config)
    # A stock class has no feed-forward block without units.
    check_target_value(config, target, measure, 1 - size(1) / dense_size, STOCK_UNITS)
    return bisect_right(range(1, width + 1), (1 - target) * dense_size, key=size)


def check_stock_gates(model: PrunableModelMixin) -> None:
    """Checks that gates can decide on a shape that a stock class can express.

    Args:
        model: Base or head model with gates.

    Raises:
        ValueError: If other units than intermediate ones have gates, or attention or widths are pruned already.
    """
    assert model.config.gates is not None
    units = tuple(model.config.gates["units"])
    if units != STOCK_UNITS:
        raise ValueError(
            f"The gates are on {', '.join(units)}, but a stock class can only do without intermediate units: its heads are "
            f"whole. Attach gates with `attach_gates({STOCK_UNITS})`, or leave `stock_shape` out."
        )
    stock_width(model.config)


def decide_one_width(model: PrunableModelMixin, target: float | None, measure: Measure = PARAMETERS) -> GateDecisions:
    """Opens the same number of intermediate units in each layer: those with the highest log_alpha of the layer.

    Among units with equal log_alpha, those with the larger weights are opened. Without a target, each layer has as many
    units as the one whose gates open the most, so that no unit is removed against its gate.

    Args:
        model: Base or head model with gates on intermediate units alone.
        target: Fraction of the original dense encoder to remove, between 0 and 1; `None` to follow the gates.
        measure: Measure of the target.

    Raises:
        ValueError: If other units have gates, a stock class cannot express the present shape, or the target cannot be
            reached.
    """
    check_stock_gates(model)
    decisions = GateDecisions(model)
    by_gates = {gate: decisions.is_open[gate] for gate in decisions.fine_gates}
    if target is None:
        width = max(1, *(int(is_open.sum()) for is_open in by_gates.values()))
    else:
        width = width_at_target(model.config, target, measure)
    gate_indices, unit_indices = decisions.rank_fine_units()
    num_removed = num_kept = 0
    for index, (gate, was_open) in enumerate(by_gates.items()):
        is_open = torch.zeros(gate.num_gates, dtype=torch.bool)
        is_open[unit_indices[gate_indices == index][:width]] = True
        decisions.set(gate, is_open)
        num_removed += int((was_open & ~is_open).sum())
        num_kept += int((is_open & ~was_open).sum())
    logger.info(
        f"{width} intermediate units in each layer, as a stock class needs: {num_removed} units with an open gate are removed, "
        f"and {num_kept} with a closed one are kept."
    )
    return decisions
