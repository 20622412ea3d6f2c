"""The estimate of the loss: exact where one block is pruned, and a sum of squares over blocks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable.one_shot.loss_estimate import LossEstimate, UnitCurve, make_curve


PRESENT = (0.0, 0.1, 0.3)
CURVES = (
    UnitCurve(0, "conv", (1, 0), (1.0, 3.0), (0.01, 0.02, 0.03)),
    UnitCurve(2, "int", (2, 0, 1), (0.5, 0.5, 2.0), (0.0, 0.0, 0.2)),
)
ESTIMATE = LossEstimate(PRESENT, CURVES)


def test_growth_is_made_monotone_and_priced():
    curve = make_curve(2, "vo", [3, 0, 1, 2], [0.5, 0.25, 1.0, 0.75], 2, [0.3, 0.6])
    assert curve.growth == (0.5, 0.5, 1.0, 1.0) and curve.order == (3, 0, 1, 2)
    assert curve.prices == pytest.approx((0.3 / 0.75, 0.6 / 0.75))


@pytest.mark.parametrize("growth", [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [-1e-18, 0.0, 0.1, 1.0]])
@pytest.mark.parametrize("square_growth", [-0.1, 0.0, 0.2])
def test_units_without_error_have_a_price(growth, square_growth):
    curve = make_curve(0, "int", [0, 1, 2, 3], growth, 2, [square_growth])
    assert all(0 <= max(value, 0) * curve.prices[0] < math.inf for value in curve.growth)
    assert curve.prices[0] > 0


def test_without_removals_the_loss_is_the_present_one():
    assert ESTIMATE.loss([0, 0]) == pytest.approx(0.4 / 3, abs=1e-6)
    assert all(ESTIMATE.growth(curve, 0) == pytest.approx(0, abs=1e-6) for curve in CURVES)


def test_squares_of_the_losses_add_up():
    losses = [math.sqrt(0.04), math.sqrt(0.01 + 0.08), math.sqrt(0.09 + 0.12 + 0.2 * 1.0)]
    assert ESTIMATE.loss([2, 2]) == pytest.approx(sum(losses) / 3)


@given(first=st.integers(0, 2), second=st.integers(0, 3))
def test_growth_of_one_block_is_that_of_the_loss(first, second):
    assert ESTIMATE.growth(CURVES[0], first) == pytest.approx(
        ESTIMATE.loss([first, 0]) - ESTIMATE.loss([0, 0]), abs=1e-6
    )
    assert ESTIMATE.growth(CURVES[1], second) == pytest.approx(
        ESTIMATE.loss([0, second]) - ESTIMATE.loss([0, 0]), abs=1e-6
    )


@given(
    first=st.integers(0, 2), second=st.integers(0, 3), other_first=st.integers(0, 2), other_second=st.integers(0, 3)
)
def test_the_tangent_at_a_solution_is_above_the_loss(first, second, other_first, other_second):
    """With the weights at one solution, the linear model of the loss is nowhere below it: it is concave in the errors."""
    here, there = [first, second], [other_first, other_second]
    weights = ESTIMATE.weights(here)
    change = sum(
        weight / 2 * price * (curve.error(after) - curve.error(before))
        for curve, before, after in zip(CURVES, here, there, strict=True)
        for weight, price in zip(weights, curve.prices, strict=True)
    )
    assert ESTIMATE.loss(there) <= ESTIMATE.loss(here) + change / 3 + 1e-9
