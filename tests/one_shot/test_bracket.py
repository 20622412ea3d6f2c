"""The bracket: neighbours that were both measured, in few measurements, whatever the values do."""

import math

from hypothesis import given
from hypothesis import strategies as st

from hf_prunable.one_shot.bracket import Bracket


def close(excess_of, high):
    """Closes a bracket; returns it with the numbers that were measured.

    Args:
        excess_of: Function from a number of removals to the distance from the limit.
        high: Number that misses the limit; 0 keeps it.
    """
    bracket = Bracket(0, high, excess_of(0), excess_of(high))
    measured = []
    while not bracket.is_closed:
        measured.append(bracket.next())
        assert bracket.low < measured[-1] < bracket.high
        bracket.add(measured[-1], excess_of(measured[-1]))
    return bracket, measured


def bisections(high):
    return math.ceil(math.log2(high))


@given(high=st.integers(1, 100_000), part=st.floats(0, 1), power=st.floats(0.2, 6))
def test_rising_values(high, part, power):
    """The largest number that keeps the limit, with at most one measurement more than bisection."""

    def excess_of(number):
        return (number / high) ** power - part**power - (0.0 if part < 1 else -1e-9 - 1)

    if excess_of(high) <= 0:
        return
    bracket, measured = close(excess_of, high)
    assert excess_of(bracket.low) <= 0 < excess_of(bracket.high) and bracket.high == bracket.low + 1
    assert len(measured) <= bisections(high) + 1


@given(high=st.integers(1, 3000), data=st.data())
def test_values_that_rise_and_fall(high, data):
    values = {0: -data.draw(st.floats(0, 1)), high: data.draw(st.floats(1e-9, 1) | st.just(math.nan))}

    def excess_of(number):
        if number not in values:
            values[number] = data.draw(st.floats(-1, 1) | st.sampled_from([math.nan, math.inf, 0.0]))
        return values[number]

    bracket, measured = close(excess_of, high)
    assert bracket.high == bracket.low + 1
    assert {bracket.low, bracket.high} <= {0, high, *measured}
    assert excess_of(bracket.low) <= 0 and not excess_of(bracket.high) <= 0
    assert len(set(measured)) == len(measured) <= bisections(high) + 1


def test_smooth_values_need_far_fewer_measurements_than_bisection():
    counts = []
    for root in range(100, 16_000, 397):
        bracket, measured = close(lambda number, root=root: number**1.7 - (root + 0.5) ** 1.7, 16_384)
        assert (bracket.low, bracket.high) == (root, root + 1)
        counts.append(len(measured))
    assert sum(counts) / len(counts) < 8 and max(counts) <= 15


def test_the_limit_itself_is_kept():
    bracket, _ = close(lambda number: number - 37, 1000)
    assert bracket.low == 37
