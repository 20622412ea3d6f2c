"""Nearest neighbours: exact, ties in the order of the points, duplicates without an edge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from hf_prunable.truncation.neighbor_graph import SPARE_CANDIDATES, nearest_neighbor_graph, neighbourhood_hit


def plain_neighbors(features, n_neighbors):
    distances = cdist(features, features)
    np.fill_diagonal(distances, np.inf)
    return distances.argsort(axis=1, kind="stable")[:, :n_neighbors], distances


@st.composite
def grid_points(draw):
    """Points on a small grid, with ties and duplicates; many of them are more than the search's candidates."""
    n_neighbors = draw(st.integers(1, 6))
    count = draw(st.integers(n_neighbors + 1, n_neighbors + 1 + 4 * SPARE_CANDIDATES))
    place = st.tuples(st.integers(0, 2), st.integers(0, 2))
    return np.array(draw(st.lists(place, min_size=count, max_size=count)), dtype=np.float32), n_neighbors


@given(grid_points())
def test_ties_go_by_order_and_duplicates_take_a_place_without_an_edge(points):
    features, n_neighbors = points
    expected, distances = plain_neighbors(features, n_neighbors)
    edges = {
        (min(point, other), max(point, other))
        for point, others in enumerate(expected)
        for other in others.tolist()
        if distances[point, other] > 0
    }
    if not edges:
        with pytest.raises(ValueError, match="leave duplicates out"):
            nearest_neighbor_graph(features, n_neighbors)
        return
    graph = nearest_neighbor_graph(features, n_neighbors)
    np.testing.assert_array_equal(graph.neighbors, expected)
    assert list(map(tuple, graph.edges.tolist())) == sorted(edges)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbours_and_distances_are_exact(dtype):
    # A common offset, with which rounded norms and dot products lose most of their digits.
    features = (np.random.default_rng(0).standard_normal((700, 20)) + 1000).astype(dtype)
    graph = nearest_neighbor_graph(features, 7)
    expected, distances = plain_neighbors(features, 7)
    np.testing.assert_array_equal(graph.neighbors, expected)
    matrix = graph.distances.toarray()
    np.testing.assert_array_equal(matrix, matrix.T)
    near = np.zeros_like(matrix, dtype=bool)
    np.put_along_axis(near, expected, True, axis=1)
    np.testing.assert_allclose(matrix, np.where(near | near.T, distances, 0), rtol=1e-12)


@pytest.mark.parametrize("n_neighbors", [1, 3, 10])
def test_more_ties_than_spare_candidates(n_neighbors):
    features = np.random.default_rng(37).integers(-1, 2, (60, 4))
    expected, distances = plain_neighbors(features, n_neighbors)
    last = np.take_along_axis(distances, expected, axis=1)[:, -1:]
    assert ((distances == last).sum(axis=1) > SPARE_CANDIDATES).any()
    np.testing.assert_array_equal(nearest_neighbor_graph(features, n_neighbors).neighbors, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_of_any_scale_have_the_same_graph(dtype):
    features = np.random.default_rng(0).standard_normal((60, 6)).astype(dtype)
    expected = nearest_neighbor_graph(features, 4)
    for exponent in (-100, 100) if dtype is np.float32 else (-1000, -700, 700, 1000):
        scaled = nearest_neighbor_graph(np.ldexp(features, exponent), 4)
        np.testing.assert_array_equal(scaled.neighbors, expected.neighbors)
        # Bit by bit: a power of two moves no digits.
        np.testing.assert_array_equal(scaled.distances.toarray(), np.ldexp(expected.distances.toarray(), exponent))
    for factor in (1e200, 1e-200) if dtype is np.float64 else ():
        scaled = nearest_neighbor_graph(features * factor, 4)
        np.testing.assert_array_equal(scaled.neighbors, expected.neighbors)


def test_paths_that_no_float_can_measure_are_refused():
    features = np.random.default_rng(0).standard_normal((60, 6)) * 1e307
    with pytest.raises(ValueError, match="exceed the range of float64"):
        nearest_neighbor_graph(features, 4)


@pytest.mark.parametrize(
    "change",
    (
        lambda features: np.concatenate([features, np.full((1, 6), 1e200)]),
        lambda features: np.concatenate([features, np.full((60, 1), 1e200)], axis=1),
        lambda features: np.concatenate([features, features * 1e-200]),
        # Differences with fewer digits than others.
        lambda features: features.round() * 5e-324,
    ),
    ids=("outlier", "dimension", "half", "subnormal"),
)
def test_points_that_only_rounding_makes_equal_are_no_duplicates(change):
    features = np.random.default_rng(0).standard_normal((60, 6))
    with pytest.raises(ValueError, match="all or some of them: distances exceed the range of float64"):
        nearest_neighbor_graph(change(features), 4)


def test_equal_points_are_counted(caplog):
    features = np.random.default_rng(0).standard_normal((50, 3))
    nearest_neighbor_graph(features, 3)
    assert not caplog.messages
    nearest_neighbor_graph(np.concatenate([features, np.zeros((21, 3)), features[:4]]), 3)
    assert [message[:52] for message in caplog.messages] == ["29 of 75 points have the same features as another po"]


def test_many_duplicates_leave_a_graph_of_the_others():
    features = np.concatenate([np.zeros((40, 2)), np.arange(12).reshape(6, 2) + 1.0])
    graph = nearest_neighbor_graph(features, 2)
    assert (graph.edges >= 0).all() and graph.distances.data.min() > 0
    assert graph.edges.max(axis=1).min() >= 40
    assert not (graph.neighbors == np.arange(46)[:, None])[40:].any()


@pytest.mark.parametrize("dtype", [np.float16, np.int64])
def test_other_numbers_are_converted(dtype):
    features = np.random.default_rng(0).integers(-9, 9, (30, 3)).astype(dtype)
    found, expected = nearest_neighbor_graph(features, 3), nearest_neighbor_graph(features.astype(np.float64), 3)
    np.testing.assert_array_equal(found.distances.toarray(), expected.distances.toarray())


@pytest.mark.parametrize("n_neighbors", [0, -1, 5])
def test_impossible_numbers_of_neighbours_are_refused(n_neighbors):
    with pytest.raises(ValueError, match=f"5 points cannot have {n_neighbors} neighbours each.*1 to 4"):
        nearest_neighbor_graph(np.eye(5), n_neighbors)


def test_neighbourhood_hit_is_the_share_of_neighbours_of_the_class():
    graph = nearest_neighbor_graph(np.array([[0.0], [1.0], [3.0], [7.0]]), 2)
    assert graph.neighbors.tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    assert neighbourhood_hit(graph, ["a", "a", "b", "b"]).tolist() == [0.5, 0.5, 0.0, 0.5]
