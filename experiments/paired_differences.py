"""Differences between two students that were measured on the same clips, with bootstrap intervals over groups of clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import bootstrap


CONFIDENCE = 0.95
NUM_RESAMPLES = 5000
RESAMPLE_SEED = 0
# Decimals of differences in JSON.
DIGITS = 5


@dataclass(frozen=True)
class GroupedOutcome:
    """Outcome of a measurement by groups of clips or frames that depend on each other, such as those of one speaker.

    Attributes:
        correct: Number of correct items of each group, a mean over seeds, of shape (groups,).
        sizes: Number of items of each group, of shape (groups,).
    """

    correct: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of_clips(cls, correct: str, group_sizes: Sequence[int]) -> GroupedOutcome:
        """Adds up clips by group.

        Args:
            correct: A 1 for each correct clip and a 0 for each other one; clips of a group follow each other.
            group_sizes: Number of clips of each group.
        """
        values = np.array(list(correct), dtype=float)
        starts = np.cumsum([0, *group_sizes[:-1]])
        return cls(np.add.reduceat(values, starts), np.array(group_sizes))

    @classmethod
    def mean(cls, outcomes: Sequence[GroupedOutcome]) -> GroupedOutcome:
        """Averages several outcomes on the same items.

        Args:
            outcomes: One outcome for each seed.

        Raises:
            ValueError: If the items differ.
        """
        for outcome in outcomes[1:]:
            _check_same_items(outcome, outcomes[0])
        return cls(np.mean([outcome.correct for outcome in outcomes], axis=0), outcomes[0].sizes)


@dataclass(frozen=True)
class Difference:
    """Difference of two accuracies, with its 95 % bootstrap interval.

    Attributes:
        mean: Difference over all items.
        lower: Lower end of the interval.
        upper: Upper end of the interval.
    """

    mean: float
    lower: float
    upper: float

    @property
    def is_beyond_chance(self) -> bool:
        """Whether the interval excludes 0."""
        return self.lower > 0 or self.upper < 0

    def in_points(self) -> str:
        """Formats the difference and its interval in percentage points, in bold if the interval excludes 0."""
        mean, lower, upper = (_signed_points(value) for value in (self.mean, self.lower, self.upper))
        return f"**{mean}** ({lower} to {upper})" if self.is_beyond_chance else f"{mean} ({lower} to {upper})"

    def rounded(self) -> dict[str, float]:
        """Returns the rounded values for JSON."""
        return {name: round(value, DIGITS) for name, value in asdict(self).items()}


def paired_difference(outcome: GroupedOutcome, reference: GroupedOutcome) -> Difference:
    """Computes the difference of two accuracies on the same items; the bootstrap draws whole groups.

    Args:
        outcome: Outcome of a student.
        reference: Outcome that is subtracted.

    Raises:
        ValueError: If the items differ.
    """
    _check_same_items(outcome, reference)
    differences = outcome.correct - reference.correct
    result = bootstrap(
        (differences, outcome.sizes),
        _accuracy,
        paired=True,
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(RESAMPLE_SEED),
    )
    interval = result.confidence_interval
    mean = float(_accuracy(differences, outcome.sizes))
    return Difference(mean, float(interval.low), float(interval.high))


def _signed_points(value: float) -> str:
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def _accuracy(correct: np.ndarray, sizes: np.ndarray, axis: int = -1) -> np.ndarray:
    return correct.sum(axis=axis) / sizes.sum(axis=axis)


def _check_same_items(outcome: GroupedOutcome, reference: GroupedOutcome) -> None:
    if not np.array_equal(outcome.sizes, reference.sizes):
        raise ValueError(
            f"Results of {outcome.sizes.sum()} and of {reference.sizes.sum()} clips or frames cannot be compared. Use "
            "another `output_dir` for other audio."
        )
