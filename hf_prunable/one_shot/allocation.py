"""Allocation: how many units each block gives up for a target size."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from ..modeling.configuration import PrunableConfigMixin
from ..modeling.shape import AttentionShape, LayerShape, PrunedShape
from ..modeling.size import Measure, UnitCounts
from ..pruning.stock_shape import stock_width, with_width
from .loss_estimate import LossEstimate, UnitCurve


# Relative fall of the estimated loss below which a search for the best order ends.
LOSS_TOLERANCE = 1e-4


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
        estimate: Estimate of the loss, with a curve of each kind of unit in each layer.
        measure: Measure of the size.
        weights: Weight of the squared loss of each compared layer in what a unit costs.
    """

    def __init__(
        self,
        config: PrunableConfigMixin,
        shape: PrunedShape,
        estimate: LossEstimate,
        measure: Measure,
        weights: Sequence[float],
    ):
        super().__init__(config, measure)
        self.shape, self.estimate = shape, estimate
        costs, curve_of_unit = [torch.zeros(0, dtype=torch.float64)], [torch.zeros(0, dtype=torch.long)]
        for curve_idx, curve in enumerate(estimate.curves):
            price = sum(weight * price for weight, price in zip(weights, curve.prices, strict=True))
            growth = torch.tensor(curve.growth, dtype=torch.float64)
            costs.append(growth * (price / unit_size(config, shape, curve, measure)))
            curve_of_unit.append(torch.full((len(growth),), curve_idx))
        # Index of the curve of each removal. The units of a curve come in its order, because its growth never falls.
        self.curve_of_removal = torch.cat(curve_of_unit)[torch.cat(costs).argsort(stable=True)]

    @property
    def num_removals(self) -> int:
        return len(self.curve_of_removal)

    def num_removed(self, num_removals: int) -> list[int]:
        """Returns how many of the first removals are of each curve.

        Args:
            num_removals: Number of removals, from 0 to `num_removals`.
        """
        return self.curve_of_removal[:num_removals].bincount(minlength=len(self.estimate.curves)).tolist()

    def shape_after(self, num_removals: int) -> PrunedShape:
        removed = {
            (curve.layer_idx, curve.unit): curve.order[:count]
            for curve, count in zip(self.estimate.curves, self.num_removed(num_removals), strict=True)
        }
        return remove_units(self.shape, removed)


def cheapest_first(
    config: PrunableConfigMixin, shape: PrunedShape, estimate: LossEstimate, measure: Measure, max_size: float
) -> CheapestFirst:
    """Returns the order of removals with the least estimated loss at a size.

    What a unit costs depends on the errors of all others, since the loss is no sum over blocks. The loss is therefore
    replaced by its tangent at the last solution, which is never below it, until it falls no further. As this finds a local
    minimum, and channels of convolutions are the only units that change all layers, both orders with and without channels
    are tried.

    Args:
        config: Configuration of the model.
        shape: Present shape.
        estimate: Estimate of the loss.
        measure: Measure of the size.
        max_size: Largest size allowed, in the unit of the measure.

    Raises:
        ValueError: If all removals do not reach the size.
    """
    order, loss = _descend(config, shape, estimate, measure, max_size)
    without_channels = replace(estimate, curves=tuple(curve for curve in estimate.curves if curve.unit != "conv"))
    if len(without_channels.curves) < len(estimate.curves):
        equal = CheapestFirst(config, shape, without_channels, measure, [1.0] * len(estimate.present))
        if equal.size_after(equal.num_removals) <= max_size:
            other, other_loss = _descend(config, shape, without_channels, measure, max_size)
            order = other if other_loss < loss else order
    return order


def _descend(
    config: PrunableConfigMixin, shape: PrunedShape, estimate: LossEstimate, measure: Measure, max_size: float
) -> tuple[CheapestFirst, float]:
    """Returns an order whose estimated loss at a size is a local minimum, and that loss."""
    best: CheapestFirst | None = None
    best_loss, weights = math.inf, [1.0] * len(estimate.present)
    while True:
        order = CheapestFirst(config, shape, estimate, measure, weights)
        num_removed = order.num_removed(order.removals_to(max_size))
        loss = estimate.loss(num_removed)
        if best is not None and loss > best_loss * (1 - LOSS_TOLERANCE):
            return best, best_loss
        best, best_loss, weights = order, loss, estimate.weights(num_removed)


class OneWidth(RemovalOrder):
    """Removes one intermediate unit from every layer at a time, which keeps a shape that a stock class can express.

    Args:
        config: Configuration of the model.
        measure: Measure of the size.

    Raises:
        ValueError: If a stock class cannot express the shape of the model.
    """

    def __init__(self, config: PrunableConfigMixin, measure: Measure):
        super().__init__(config, measure)
        self.width = stock_width(config)

    @property
    def num_removals(self) -> int:
        # A stock class has no feed-forward block without units.
        return self.width - 1

    def shape_after(self, num_removals: int) -> PrunedShape:
        return with_width(self.config.shape, self.width - num_removals)


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
