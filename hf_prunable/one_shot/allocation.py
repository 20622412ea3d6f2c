"""Allocation: how many units each block gives up for a target size."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
        removed: Indices of the removed units, by kind of unit and index of the layer or, for "conv", of the convolution.
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
    channels = [count - len(removed.get((conv_idx, "conv"), ())) for conv_idx, count in enumerate(shape.conv_channels)]
    return PrunedShape(tuple(channels), tuple(layers))


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
        units: Kinds of units: "qk", "vo", "int", "conv". The last convolution and one channel of the others stay.
    """
    removed: dict[tuple[int, str], Sequence[int]] = {}
    for layer_idx, layer in enumerate(shape.layers):
        if layer.attention is not None:
            removed[layer_idx, "qk"] = range(sum(layer.attention.query_key))
            removed[layer_idx, "vo"] = range(sum(layer.attention.value_output))
        removed[layer_idx, "int"] = range(layer.intermediate or 0)
    for conv_idx, count in enumerate(shape.conv_channels[:-1]):
        removed[conv_idx, "conv"] = range(count - 1)
    return remove_units(shape, {key: value for key, value in removed.items() if key[1] in units})


class RemovalOrder(ABC):
    """Order in which units are removed from a model, until a size is reached.

    Args:
        config: Configuration of the model.
        measure: Measure of the size.
    """

    def __init__(self, config: PrunableConfigMixin, measure: Measure):
        self.config, self.measure = config, measure

    @property
    @abstractmethod
    def num_removals(self) -> int:
        """Number of removals until nothing is left to remove."""

    @abstractmethod
    def shape_after(self, num_removals: int) -> PrunedShape:
        """Returns the shape after some removals.

        Args:
            num_removals: Number of removals, from 0 to `num_removals`.
        """

    def size_after(self, num_removals: int) -> int:
        """Returns the size after some removals, in the unit of the measure.

        Args:
            num_removals: Number of removals, from 0 to `num_removals`.
        """
        return self.measure.count(self.config, UnitCounts.of(self.shape_after(num_removals)))

    def removals_to(self, max_size: float) -> int:
        """Returns the smallest number of removals that reaches a size.

        Args:
            max_size: Largest size allowed, in the unit of the measure.

        Raises:
            ValueError: If all removals do not reach it.
        """
        low, high = 0, self.num_removals
        if self.size_after(high) > max_size:
            raise ValueError(
                f"A size of {max_size:.0f} {self.measure} cannot be reached: {self.size_after(high)} are left without any "
                "of the units that may be removed."
            )
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.size_after(middle) <= max_size else (middle + 1, high)
        return low


class CheapestFirst(RemovalOrder):
    """Removes the units of all blocks in the order of the loss that they cost for the size that they free.

    Args:
        config: Configuration of the model.
        shape: Present shape.
        curves: Curve of each kind of unit in each layer.
        measure: Measure of the size.
    """

    def __init__(self, config: PrunableConfigMixin, shape: PrunedShape, curves: Sequence[UnitCurve], measure: Measure):
        super().__init__(config, measure)
        self.shape, self.curves = shape, curves
        costs = []
        for curve_idx, curve in enumerate(curves):
            freed = unit_size(config, shape, curve, measure)
            costs += [(growth * curve.price / freed, curve_idx, index) for index, growth in enumerate(curve.growth)]
        # Removals as indices of the curve and of the unit in its order.
        self.removals = [(curve_idx, index) for _, curve_idx, index in sorted(costs)]

    @property
    def num_removals(self) -> int:
        return len(self.removals)

    def shape_after(self, num_removals: int) -> PrunedShape:
        removed: dict[tuple[int, str], list[int]] = {(curve.layer_idx, curve.unit): [] for curve in self.curves}
        for curve_idx, index in self.removals[:num_removals]:
            curve = self.curves[curve_idx]
            removed[curve.layer_idx, curve.unit].append(curve.order[index])
        return remove_units(self.shape, removed)


class OneWidth(RemovalOrder):
    """Removes one intermediate unit from every layer at a time, which keeps a shape that a stock class can express.

    Args:
        config: Configuration of the model.
        shape: Present shape.
        measure: Measure of the size.

    Raises:
        ValueError: If a stock class cannot express the present shape.
    """

    def __init__(self, config: PrunableConfigMixin, shape: PrunedShape, measure: Measure):
        super().__init__(config, measure)
        fields = shape.stock_fields(config)
        if fields is None:
            raise ValueError(
                "A stock class cannot express the present shape of the model: its heads are not whole, or its layers differ "
                "in width. Start from the dense model."
            )
        self.shape, self.width = shape, fields["intermediate_size"]

    @property
    def num_removals(self) -> int:
        # A stock class has no feed-forward block without units.
        return self.width - 1

    def shape_after(self, num_removals: int) -> PrunedShape:
        width = self.width - num_removals
        return replace(self.shape, layers=tuple(replace(layer, intermediate=width) for layer in self.shape.layers))


def unit_size(config: PrunableConfigMixin, shape: PrunedShape, curve: UnitCurve, measure: Measure) -> int:
    """Returns the size of one unit, without what its block has once.

    Args:
        config: Configuration of the model.
        shape: Present shape.
        curve: Curve of the units.
        measure: Measure of the size.
    """
    counts = UnitCounts.of(shape)
    before = measure.count(config, counts)
    if curve.unit == "conv":
        channels = list(counts.conv_channels)
        channels[curve.layer_idx] -= 1
        counts.conv_channels = channels
    else:
        name = {"qk": "query_key", "vo": "value_output", "int": "intermediate"}[curve.unit]
        layer = counts.layers[curve.layer_idx]
        layers = list(counts.layers)
        layers[curve.layer_idx] = replace(layer, **{name: getattr(layer, name) - 1})
        counts.layers = layers
    return before - measure.count(config, counts)
