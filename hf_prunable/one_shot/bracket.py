"""The largest number of removals that keeps a limit, found with few measurements."""

from __future__ import annotations

import math


# Constants of the ITP method, with the values that its authors recommend.
SHIFT, SLACK = 0.2, 1


class Bracket:
    """Two numbers of removals, one known to keep a limit and a larger one known to miss it, which close in on each other.

    The next number to measure comes from the ITP method (interpolate, truncate, project; Oliveira and Takahashi 2020, doi
    10.1145/3423597): linear interpolation, moved a little towards the middle. It needs few measurements where the values
    change smoothly, and at most one more than bisection where they do not, as for values that rise and fall.

    Args:
        low: Number of removals that keeps the limit.
        high: Larger number of removals that misses it.
        low_excess: Distance of its value from the limit, 0 or less.
        high_excess: The same for `high`: above 0, or NaN.
    """

    def __init__(self, low: int, high: int, low_excess: float, high_excess: float):
        self.low, self.high = low, high
        self.low_excess, self.high_excess = low_excess, high_excess
        self._first_width = high - low
        # Measurements that are left, so that bisection alone could finish with one less.
        self._num_left = math.ceil(math.log2(self._first_width)) + SLACK

    @property
    def is_closed(self) -> bool:
        """Whether nothing lies between the two numbers."""
        return self.high - self.low <= 1

    def next(self) -> int:
        """Returns the number of removals to measure next, between the two."""
        width, middle = self.high - self.low, (self.low + self.high) / 2
        position = middle
        part = self.low_excess / (self.low_excess - self.high_excess)
        if math.isfinite(part):
            position = self.low + part * width
            shift = min(SHIFT * width**2 / self._first_width, abs(middle - position))
            position += math.copysign(shift, middle - position)
        # Both remaining parts must be short enough to be bisected with the measurements that are left after this one.
        longest = 2 ** max(self._num_left - 1, 0)
        lowest, highest = max(self.low + 1, self.high - longest), min(self.high - 1, self.low + longest)
        return min(max(round(position), lowest), highest)

    def add(self, num_removals: int, excess: float) -> None:
        """Moves one of the two numbers to one that was measured.

        Args:
            num_removals: Number that `next` has returned.
            excess: Distance of its value from the limit: 0 or less if it keeps it, NaN if the value is not finite.
        """
        self._num_left -= 1
        if excess <= 0:
            self.low, self.low_excess = num_removals, excess
        else:
            self.high, self.high_excess = num_removals, excess
