"""Classes of points, and the pairs that are sampled of each class."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable.truncation.class_pairs import ClassPairs, PointClasses
from hf_prunable.truncation.convexity_config import ConvexityConfig


@st.composite
def labels_of_points(draw):
    counts = draw(st.lists(st.integers(2, 9), min_size=2, max_size=4))
    return draw(st.permutations([label for label, count in enumerate(counts) for _ in range(count)]))


@given(labels_of_points(), st.none() | st.integers(2, 80), st.integers(0, 2**32 - 1))
def test_pairs_are_sampled_as_in_the_authors_code(labels, max_pairs, seed):
    pairs = ClassPairs(PointClasses.from_labels(labels, len(labels)), ConvexityConfig(max_pairs=max_pairs, seed=seed))
    np.random.seed(seed)
    found = pairs.by_class(pairs.points)
    for label, ours in zip(sorted(set(labels)), found, strict=True):
        points = [point for point, name in enumerate(labels) if name == label]
        theirs = list(itertools.permutations(points, r=2))
        if max_pairs is not None:
            size = min(len(theirs), max_pairs)
            theirs = [theirs[index] for index in np.random.choice(range(len(theirs)), size, replace=False)]
        assert list(map(tuple, ours.tolist())) == theirs


@given(labels_of_points(), st.integers(2, 20), st.data())
def test_pairs_are_found_by_their_sources(labels, max_pairs, data):
    pairs = ClassPairs(PointClasses.from_labels(labels, len(labels)), ConvexityConfig(max_pairs=max_pairs, seed=0))
    points = data.draw(st.lists(st.sampled_from(range(len(labels))), unique=True))
    found = pairs.starting_at(np.array(points, dtype=int))
    assert sorted(found) == [pair_idx for pair_idx, source in enumerate(pairs.sources) if source in points]
    assert set(np.flatnonzero(pairs.has_pairs)) == set(pairs.sources)


@pytest.mark.parametrize("make", [list, np.array, lambda labels: [np.int64(label) for label in labels]])
def test_integers_stay_integers(make):
    classes = PointClasses.from_labels(make([7, -3, 7, -3, 100, 100]), 6)
    assert classes.names == (-3, 7, 100) and {type(name) for name in classes.names} == {int}
    assert classes.codes.tolist() == [1, 0, 1, 0, 2, 2]
    assert classes.counts.tolist() == [2, 2, 2]
    assert classes.means(np.arange(6.0)).tolist() == [2, 1, 4.5]
