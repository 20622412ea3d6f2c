"""Labelled points: their classes, and the pairs of points of a class that graph convexity looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..runtime.messages import first_names


@dataclass(frozen=True)
class PointClasses:
    """The classes of labelled points.

    Attributes:
        names: The labels, sorted, each once, as strings or integers.
        codes: The place of each point's label in `names`, of shape (points,).
    """

    names: tuple[Any, ...]
    codes: np.ndarray

    @classmethod
    def of(cls, labels: Sequence, num_points: int) -> PointClasses:
        """Checks labels and counts them through.

        Args:
            labels: One string or integer for each point.
            num_points: How many points there are.

        Raises:
            ValueError: If there is another number of labels than of points, a label is neither a string nor an integer,
                there are fewer than two classes, or a class has only one point.
        """
        labels = list(labels.tolist() if hasattr(labels, "tolist") else labels)
        if len(labels) != num_points:
            raise ValueError(f"There are {num_points} points and {len(labels)} labels; give one label for each point.")
        if not any(all(isinstance(label, kind) for label in labels) for kind in (str, (int, np.integer))):
            found = ", ".join(sorted({type(label).__name__ for label in labels}))
            raise ValueError(f"The labels are of type {found}; they must be all strings or all integers.")
        names, codes, counts = np.unique(np.array(labels), return_inverse=True, return_counts=True)
        if len(names) < 2:
            raise ValueError(
                f"{len(names)} class is not enough: convexity compares the classes of all points. Give clips of two "
                "classes or more."
            )
        if (counts < 2).any():
            single = [str(name) for name in names[counts < 2]]
            raise ValueError(
                f"{len(single)} of {len(names)} classes have only one clip, which makes no pair: {first_names(single)}. "
                "Give them more clips or leave them out."
            )
        return cls(tuple(names.tolist()), codes)

    @cached_property
    def counts(self) -> np.ndarray:
        """The number of points of each class."""
        return np.bincount(self.codes)

    def means(self, values: np.ndarray) -> np.ndarray:
        """The mean of a value of each point over each class, of shape (classes,)."""
        return np.bincount(self.codes, values) / self.counts


class ClassPairs:
    """Ordered pairs of different points of a class, class by class.

    The pairs of a class are counted as `itertools.permutations` gives them, and are drawn as the authors' code does:
    `numpy.random.seed(seed)` once, then `numpy.random.choice(pairs, min(max_pairs, pairs), replace=False)` for each
    class, which also shuffles the pairs of a class that has no more than `max_pairs`. The global random state is neither
    read nor moved.

    Args:
        classes: Of the points.
        max_pairs: The most of a class; `None` for all, in order.
        seed: Of the draw.

    Attributes:
        sources: The first point of each pair.
        targets: The second.
        bounds: Where the pairs of each class begin, and the end.

    Raises:
        ValueError: If `max_pairs` is below 2.
    """

    def __init__(self, classes: PointClasses, max_pairs: int | None, seed: int):
        if max_pairs is not None and max_pairs < 2:
            raise ValueError(f"`max_pairs` is {max_pairs}; give 2 or more, or None for all pairs.")
        self.classes = classes
        random = np.random.RandomState(seed)
        by_class = np.split(np.argsort(classes.codes, kind="stable"), np.cumsum(classes.counts)[:-1])
        sources, targets = [], []
        for points in by_class:
            points = points.astype(np.int32)
            pairs = _draw(len(points) * (len(points) - 1), max_pairs, random)
            first, second = np.divmod(pairs, len(points) - 1)
            # The first point itself is left out of what it is paired with.
            second += second >= first
            sources.append(points[first])
            targets.append(points[second])
        self.sources, self.targets = np.concatenate(sources), np.concatenate(targets)
        self.bounds = np.cumsum([0, *map(len, sources)])
        self._by_source = np.argsort(self.sources, kind="stable")
        self._starts = np.searchsorted(self.sources, np.arange(len(classes.codes) + 1), sorter=self._by_source)

    def from_sources(self, points: np.ndarray) -> np.ndarray:
        """Numbers of the pairs whose first point is one of these."""
        starts, ends = self._starts[points], self._starts[points + 1]
        counts = ends - starts
        offsets = np.repeat(starts - np.cumsum(counts) + counts, counts)
        return self._by_source[offsets + np.arange(len(offsets))]

    @property
    def has_pairs(self) -> np.ndarray:
        """Whether each point is the first of a pair."""
        return self._starts[1:] > self._starts[:-1]

    @property
    def points(self) -> np.ndarray:
        """Both points of each pair, of shape (pairs, 2)."""
        return np.stack([self.sources, self.targets], axis=1)

    def by_class(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of the pairs, for each class."""
        return np.split(values, self.bounds[1:-1])


def _draw(num_pairs: int, max_pairs: int | None, random: np.random.RandomState) -> np.ndarray:
    """What `random.choice(num_pairs, min(max_pairs, num_pairs), replace=False)` gives, in less memory."""
    # Shuffling draws the same numbers whatever the type of what is shuffled.
    pairs = np.arange(num_pairs, dtype=np.int32 if num_pairs <= np.iinfo(np.int32).max else np.int64)
    if max_pairs is None:
        return pairs
    random.shuffle(pairs)
    return pairs[:max_pairs].copy()
