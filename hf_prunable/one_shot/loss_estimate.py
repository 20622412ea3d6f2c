"""Estimate of a model's loss after removals, from the error curve of each kind of unit in each layer."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass


# Smallest growth of a squared loss that a price is computed from, and smallest squared loss: below it, it is rounding.
SMALLEST_SQUARE = 1e-12


@dataclass(frozen=True)
class UnitCurve:
    """Error of a block by the number of units of one kind that are removed, in the order of removal.

    Attributes:
        layer_idx: Index of the layer, or of the convolution, from 0.
        unit: Kind of unit: "qk", "vo", "int" or "conv".
        order: Indices of the units, the least useful first.
        growth: Growth of the block's error by each removal, never falling, in the order of `order`.
        prices: Growth of the squared loss of each compared layer for one unit of error, all above 0.
    """

    layer_idx: int
    unit: str
    order: tuple[int, ...]
    growth: tuple[float, ...]
    prices: tuple[float, ...]

    def error(self, num_removed: int) -> float:
        """Returns the error of the block without some of its units.

        Args:
            num_removed: Number of removed units, the first in the order of removal.
        """
        return sum(self.growth[:num_removed])


def make_curve(
    layer_idx: int,
    unit: str,
    order: Sequence[int],
    growth: Sequence[float],
    num_removed: int,
    square_growth: Sequence[float],
) -> UnitCurve:
    """Builds a curve from the growth of a block's error and one measurement of the loss.

    Args:
        layer_idx: Index of the layer, from 0.
        unit: Kind of unit.
        order: Indices of the units in the order of removal.
        growth: Growth of the block's error by each removal.
        num_removed: Number of removals that the loss was measured with.
        square_growth: Growth of the squared loss of each compared layer by these removals.
    """
    error = max(sum(growth[:num_removed]), sys.float_info.min)
    return UnitCurve(
        layer_idx,
        unit,
        tuple(order),
        # A unit never costs less than the one before it, or the order would not be that of the costs.
        tuple(itertools.accumulate(growth, max)),
        tuple(max(square, SMALLEST_SQUARE) / error for square in square_growth),
    )


@dataclass(frozen=True)
class LossEstimate:
    """Loss of a model after removals that were measured one block at a time.

    The errors of different blocks are taken as independent, so that the squares of the losses that they cause add up: with
    P the present loss of a compared layer, E the error of a block and p its price there, the loss of that layer is the
    square root of P^2 + sum of p E over all blocks. The loss of the model is the mean over the compared layers.

    Attributes:
        present: Present loss of each compared layer.
        curves: Curve of each kind of unit in each layer.
    """

    present: tuple[float, ...]
    curves: tuple[UnitCurve, ...]

    def loss(self, num_removed: Sequence[int]) -> float:
        """Returns the loss after some removals.

        Args:
            num_removed: Number of removals of each curve.
        """
        losses = self._layer_losses(num_removed)
        return sum(losses) / len(losses)

    def weights(self, num_removed: Sequence[int]) -> list[float]:
        """Returns the derivatives of the loss with respect to the squared loss of each compared layer, up to a factor.

        Args:
            num_removed: Number of removals of each curve.
        """
        return [1 / loss for loss in self._layer_losses(num_removed)]

    def growth(self, curve: UnitCurve, num_removed: int) -> float:
        """Returns by how much the loss grows when units of one kind are removed from one layer.

        Args:
            curve: Curve of these units.
            num_removed: Number of removed units.
        """
        error = curve.error(num_removed)
        grown = [_root(loss**2 + price * error) for loss, price in zip(self.present, curve.prices, strict=True)]
        return (sum(grown) - sum(self.present)) / len(grown)

    def _layer_losses(self, num_removed: Sequence[int]) -> list[float]:
        errors = [curve.error(count) for curve, count in zip(self.curves, num_removed, strict=True)]
        return [
            _root(loss**2 + sum(curve.prices[layer] * error for curve, error in zip(self.curves, errors, strict=True)))
            for layer, loss in enumerate(self.present)
        ]


def _root(square: float) -> float:
    """Returns the root of a squared loss."""
    return math.sqrt(max(square, SMALLEST_SQUARE))
