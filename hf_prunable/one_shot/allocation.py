"""Allocation: how many units each block gives up for a target size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..modeling.configuration import PrunableConfigMixin
from ..modeling.shape import AttentionShape, LayerShape, PrunedShape
from ..modeling.size import Measure, UnitCounts
from .curves import UnitCurve


def remove_units(shape: PrunedShape, removed: Mapping[tuple[int, str], Sequence[int]]) -> PrunedShape:
    """Returns a shape without some units.

    A head without value/output dimensions goes with its query/key dimensions.

    Args:
        shape: Present shape.
        removed: Indices of the removed units, by index of the layer and kind of unit.
    """
    layers = []
    for layer_idx, layer in enumerate(shape.layers):
        attention, intermediate = layer.attention, layer.intermediate
        if attention is not None and attention.heads:
            query_key = _widths_without(attention.query_key, removed.get((layer_idx, "qk"), ()))
            value_output = _widths_without(attention.value_output, removed.get((layer_idx, "vo"), ()))
            alive = [position for position, width in enumerate(value_output) if width]
            attention = AttentionShape(
                *(
                    tuple(values[position] for position in alive)
                    for values in (attention.heads, query_key, value_output)
                )
            )
        if intermediate is not None:
            intermediate -= len(removed.get((layer_idx, "int"), ()))
        layers.append(LayerShape(attention, intermediate))
    return replace(shape, layers=tuple(layers))


def _widths_without(widths: Sequence[int], removed: Sequence[int]) -> list[int]:
    """Returns the widths of heads without some of their dimensions, which are counted over all heads."""
    left = list(widths)
    owners = [head for head, width in enumerate(widths) for _ in range(width)]
    for index in removed:
        left[owners[index]] -= 1
    return left


def smallest_shape(shape: PrunedShape, units: Sequence[str]) -> PrunedShape:
    """Returns the shape that is left when all units of some kinds are removed.

    Args:
        shape: Present shape.
        units: Kinds of units: "qk", "vo", "int".
    """
    removed: dict[tuple[int, str], Sequence[int]] = {}
    for layer_idx, layer in enumerate(shape.layers):
        if layer.attention is not None:
            removed[layer_idx, "qk"] = range(sum(layer.attention.query_key))
            removed[layer_idx, "vo"] = range(sum(layer.attention.value_output))
        removed[layer_idx, "int"] = range(layer.intermediate or 0)
    return remove_units(shape, {key: value for key, value in removed.items() if key[1] in units})


def allocate(
    config: PrunableConfigMixin, shape: PrunedShape, curves: Sequence[UnitCurve], max_size: float, measure: Measure
) -> PrunedShape:
    """Finds the shape of at most a given size that costs the least loss.

    All removals are ordered by the loss that they cost for what they free, and made in this order until the size is
    reached.

    Args:
        config: Configuration of the model.
        shape: Present shape.
        curves: Curve of each kind of unit in each layer.
        max_size: Largest size allowed, in the unit of the measure.
        measure: Measure of the size.

    Raises:
        ValueError: If removing all units does not reach the size.
    """
    removals = []
    for curve_idx, curve in enumerate(curves):
        freed = unit_size(config, curve.unit, measure)
        removals += [(growth * curve.price / freed, curve_idx, index) for index, growth in enumerate(curve.growth)]
    removals.sort()

    def shape_after(num_removals: int) -> PrunedShape:
        removed: dict[tuple[int, str], list[int]] = {(curve.layer_idx, curve.unit): [] for curve in curves}
        for _, curve_idx, index in removals[:num_removals]:
            curve = curves[curve_idx]
            removed[curve.layer_idx, curve.unit].append(curve.order[index])
        return remove_units(shape, removed)

    def size_after(num_removals: int) -> int:
        return measure.count(config, UnitCounts.of(shape_after(num_removals)))

    low, high = 0, len(removals)
    if size_after(high) > max_size:
        raise ValueError(
            f"A size of {max_size:.0f} {measure} cannot be reached: {size_after(high)} are left without any of the units "
            "that may be pruned."
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if size_after(middle) <= max_size else (middle + 1, high)
    return shape_after(low)


def allocate_stock(config: PrunableConfigMixin, shape: PrunedShape, max_size: float, measure: Measure) -> PrunedShape:
    """Finds the largest shape of at most a given size that a stock class can express: one width for all feed-forward blocks.

    Args:
        config: Configuration of the model.
        shape: Present shape, which a stock class can express.
        max_size: Largest size allowed, in the unit of the measure.
        measure: Measure of the size.

    Raises:
        ValueError: If a stock class cannot express the present shape, or one unit in each layer is too large.
    """
    fields = shape.stock_fields(config)
    if fields is None:
        raise ValueError(
            "A stock class cannot express the present shape of the model: its heads are not whole, or its layers differ in "
            "width. Start from the dense model."
        )

    def shape_of(width: int) -> PrunedShape:
        return replace(shape, layers=tuple(replace(layer, intermediate=width) for layer in shape.layers))

    def size_of(width: int) -> int:
        return measure.count(config, UnitCounts.of(shape_of(width)))

    low, high = 1, fields["intermediate_size"]
    if size_of(low) > max_size:
        raise ValueError(
            f"A size of {max_size:.0f} {measure} cannot be reached with a stock class: with one intermediate unit in each "
            f"layer, {size_of(low)} are left."
        )
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size_of(middle) <= max_size else (low, middle - 1)
    return shape_of(low)


def unit_size(config: PrunableConfigMixin, unit: str, measure: Measure) -> int:
    """Returns the size of one unit, without what its block has once.

    Args:
        config: Configuration of the model.
        unit: Kind of unit: "qk", "vo" or "int".
        measure: Measure of the size.
    """
    name = {"qk": "query_key", "vo": "value_output", "int": "intermediate"}[unit]
    counts = UnitCounts.of(PrunedShape.dense(config))
    before = measure.count(config, counts)
    first = counts.layers[0]
    counts.layers = [replace(first, **{name: getattr(first, name) - 1}), *counts.layers[1:]]
    return before - measure.count(config, counts)
