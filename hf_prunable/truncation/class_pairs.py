"""Labelled points: their classes, and the pairs of points of one class that graph convexity scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..runtime.messages import first_names
from .convexity_config import ConvexityConfig


Label = str | int


@dataclass(frozen=True)
class PointClasses:
    """The classes of labelled points.

    Attributes:
        names: Distinct labels in ascending order, all strings or all integers.
        codes: Index of each point's label in `names`, of shape (points,).
    """

    names: tuple[Label, ...]
    codes: np.ndarray

    @classmethod
    def from_labels(cls, labels: Sequence[Label] | np.ndarray, num_points: int) -> PointClasses:
        """Validates labels and encodes them as class indices.

        Args:
            labels: Label of each point, all strings or all integers.
            num_points: Number of points.

        Raises:
            ValueError: If the numbers of labels and points differ, labels are neither all strings nor all integers,
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
                f"{len(single)} of {len(names)} classes have only one clip, which makes no pair: "
                f"{first_names(single)}. Give them more clips or leave them out."
            )
        return cls(tuple(names.tolist()), codes)

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of points of each class, of shape (classes,)."""
        return np.bincount(self.codes)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Averages a value of each point, of shape (points,), over each class; the result has shape (classes,)."""
        return np.bincount(self.codes, values) / self.counts


class ClassPairs:
    """The ordered pairs of two different points of one class that are scored, class by class.

    The pairs of a class are numbered in the order of `itertools.permutations`. They are sampled as in the authors'
    code (LenkaTetkova/Convexity-of-representations): `numpy.random.seed(seed)` once, then for each class
    `numpy.random.choice(num_pairs, min(max_pairs, num_pairs), replace=False)`. This also shuffles the pairs of a class
    that has at most `max_pairs`. The global random state is neither read nor changed.

    Args:
        classes: Classes of the points.
        config: Settings; `max_pairs` and `seed` are used. If `max_pairs` is `None`, all pairs stay in order.

    Attributes:
        sources: Index of the first point of each pair, of shape (pairs,).
        targets: Index of the second point of each pair, of shape (pairs,).
        bounds: Index of the first pair of each class, and the number of pairs at the end, of shape (classes + 1,).
    """

    def __init__(self, classes: PointClasses, config: ConvexityConfig):
        self.classes = classes
        random = np.random.RandomState(config.seed)
        by_class = np.split(np.argsort(classes.codes, kind="stable"), np.cumsum(classes.counts)[:-1])
        sources, targets = [], []
        for points in by_class:
            points = points.astype(np.int32)
            pairs = _sample_pairs(len(points) * (len(points) - 1), config.max_pairs, random)
            first, second = np.divmod(pairs, len(points) - 1)
            # A point is not paired with itself: the second one is counted among the other points of the class.
            second += second >= first
            sources.append(points[first])
            targets.append(points[second])
        self.sources, self.targets = np.concatenate(sources), np.concatenate(targets)
        self.bounds = np.cumsum([0, *map(len, sources)])
        self._by_source = np.argsort(self.sources, kind="stable")
        self._starts = np.searchsorted(self.sources, np.arange(len(classes.codes) + 1), sorter=self._by_source)

    def starting_at(self, points: np.ndarray) -> np.ndarray:
        """Indices of the pairs whose first point is among `points`, an array of point indices."""
        starts, ends = self._starts[points], self._starts[points + 1]
        counts = ends - starts
        offsets = np.repeat(starts - np.cumsum(counts) + counts, counts)
        return self._by_source[offsets + np.arange(len(offsets))]

    @property
    def has_pairs(self) -> np.ndarray:
        """Whether each point is the first point of a pair, of shape (points,)."""
        return self._starts[1:] > self._starts[:-1]

    @property
    def points(self) -> np.ndarray:
        """Indices of both points of each pair, of shape (pairs, 2)."""
        return np.stack([self.sources, self.targets], axis=1)

    def by_class(self, values: np.ndarray) -> list[np.ndarray]:
        """Splits values of the pairs, of shape (pairs, ...), into one array per class."""
        return np.split(values, self.bounds[1:-1])


def _sample_pairs(num_pairs: int, max_pairs: int | None, random: np.random.RandomState) -> np.ndarray:
    """Equals `random.choice(num_pairs, min(max_pairs, num_pairs), replace=False)`, with less memory."""
    # Shuffling consumes the same random numbers for any element type.
    pairs = np.arange(num_pairs, dtype=np.int32 if num_pairs <= np.iinfo(np.int32).max else np.int64)
    if max_pairs is None:
        return pairs
    random.shuffle(pairs)
    return pairs[:max_pairs].copy()
