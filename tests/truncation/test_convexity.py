"""Graph convexity equals the authors' code and a plain implementation; wrong input is refused."""

import dataclasses
import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from joblib import Parallel

from hf_prunable import ConvexityConfig, graph_convexity
from hf_prunable.truncation import path_scores
from hf_prunable.truncation.class_pairs import ClassPairs, PointClasses
from hf_prunable.truncation.convexity import score_paths
from hf_prunable.truncation.neighbor_graph import nearest_neighbor_graph
from tests.helpers.speech_files import disturb_random_state


# The data sets that the authors' code was run on, with `max_pairs`; only s_unbal has more pairs than that.
ORACLE = {"s_tight": 5000, "s_mid": 5000, "s_mixed": 5000, "s_unbal": 300}
# Renamings of the labels that keep their order, in which pairs are sampled.
RENAMED = {
    "as they are": lambda label: label,
    "strings": lambda label: f"word {label}",
    "scattered integers": lambda label: int(label) ** 3 - 70,
    "numpy strings": lambda label: np.str_(label),
}


@pytest.fixture(scope="module")
def oracle(shared_data):
    path = shared_data / "convexity_oracle.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("naming", RENAMED)
@pytest.mark.parametrize("name", ORACLE)
def test_all_values_equal_those_of_the_authors_code(oracle, name, naming):
    expected = {key.split("/")[1]: values for key, values in oracle.items() if key.startswith(f"{name}/")}
    labels = [RENAMED[naming](label) for label in expected["y"]]
    result = graph_convexity(expected["X"], labels, max_pairs=ORACLE[name], return_path_scores=True)
    np.testing.assert_array_equal(result.graph.edges, expected["edges"])
    assert list(result.per_class) == sorted(set(labels))
    assert result.path_scores.keys() == result.pairs.keys() == result.standard_error.keys() == result.per_class.keys()
    assert [len(scores) for scores in result.path_scores.values()] == expected["n_paths"].tolist()
    for ours, theirs in (
        (np.concatenate(list(result.path_scores.values())), expected["path_scores"]),
        (list(result.per_class.values()), expected["class_mean"]),
        (list(result.standard_error.values()), expected["class_sem"]),
        (result.score, expected["class_mean"].mean()),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    for label, pairs in result.pairs.items():
        assert {labels[point] for point in pairs.ravel()} == {label}


def plain_scores(features, labels, n_neighbors):
    """The score of every ordered pair of a class, by Floyd and Warshall's algorithm."""
    count = len(features)
    distances = np.linalg.norm(features[:, None] - features[None], axis=2)
    length = np.full((count, count), np.inf)
    for point in range(count):
        others = sorted(set(range(count)) - {point}, key=lambda other: distances[point, other])
        for other in others[:n_neighbors]:
            length[point, other] = length[other, point] = distances[point, other]
    inner = [[[] for _ in range(count)] for _ in range(count)]
    for middle, start, end in itertools.product(range(count), repeat=3):
        if (
            middle not in (start, end)
            and start != end
            and length[start, middle] + length[middle, end] < length[start, end]
        ):
            length[start, end] = length[start, middle] + length[middle, end]
            inner[start][end] = inner[start][middle] + [middle] + inner[middle][end]
    scores = {}
    for start, end in itertools.permutations(range(count), 2):
        if labels[start] == labels[end]:
            inside = [labels[vertex] == labels[start] for vertex in inner[start][end]]
            scores[start, end] = 0.0 if np.isinf(length[start, end]) else np.mean(inside) if inside else 1.0
    return scores


@st.composite
def labelled_points(draw):
    """Points in clusters that may be unconnected, with labels of two or more points per class.

    They have two dimensions or more: on a line, an edge is as long as the path over the points between its ends.
    """
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(4, 24))
    labels = np.concatenate([[0, 0, 1, 1], generator.integers(draw(st.integers(1, 3)), size=count - 4)])
    labels = np.where(np.isin(labels, [2]) & (np.sum(labels == 2) < 2), 0, labels)
    clusters = generator.integers(2, size=count) * draw(st.sampled_from([0, 2, 1000]))
    features = generator.standard_normal((count, draw(st.integers(2, 4)))) + clusters[:, None]
    return features, labels, draw(st.integers(1, count - 1))


@given(labelled_points())
def test_all_pairs_score_as_in_a_plain_implementation(points):
    features, labels, n_neighbors = points
    expected = plain_scores(features, labels, n_neighbors)
    result = graph_convexity(features, labels, n_neighbors=n_neighbors, max_pairs=None, return_path_scores=True)
    found = {
        tuple(pair): score
        for label in result.pairs
        for pair, score in zip(result.pairs[label].tolist(), result.path_scores[label], strict=True)
    }
    assert found.keys() == expected.keys()
    for pair, score in expected.items():
        assert found[pair] == pytest.approx(score, abs=1e-12)
    classes = sorted(set(labels.tolist()))
    means = [np.mean([score for (start, _), score in expected.items() if labels[start] == label]) for label in classes]
    assert list(result.per_class.values()) == pytest.approx(means, abs=1e-12)
    assert result.score == pytest.approx(np.mean(means), abs=1e-12)


@given(labelled_points(), st.integers(0, 2**32 - 1))
def test_permuted_labels_score_as_if_they_were_the_labels(points, seed):
    features, labels, n_neighbors = points
    permutation = np.random.default_rng(seed).permutation(len(labels))
    permuted = np.empty_like(labels)
    permuted[permutation] = labels
    graph = nearest_neighbor_graph(features, n_neighbors)
    others = np.arange(len(labels)) % 2
    config = ConvexityConfig(max_pairs=None)
    pairs = [ClassPairs(PointClasses.from_labels(names, len(names)), config) for names in (labels, others)]
    scores = score_paths(graph, pairs, [permutation, np.arange(len(labels))])
    for position, names in ((0, permuted), (1, labels)):
        alone = graph_convexity(features, names, n_neighbors=n_neighbors, max_pairs=None)
        assert scores[0].permuted_class_means[position] == pytest.approx(list(alone.per_class.values()), abs=1e-12)
    alone = graph_convexity(features, others, n_neighbors=n_neighbors, max_pairs=None)
    assert scores[1].class_means.tolist() == list(alone.per_class.values())


def toy_points(count=120, num_classes=4, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    return generator.standard_normal((count, 8)) + generator.standard_normal((num_classes, 8))[labels], labels


def test_blocks_do_not_matter(monkeypatch):
    features, labels = toy_points()
    whole = graph_convexity(features, labels, max_pairs=100, return_path_scores=True)
    monkeypatch.setattr(path_scores, "BLOCK_BYTES", 1)
    monkeypatch.setattr(path_scores, "PAIRS_AT_ONCE", 3)
    monkeypatch.setattr(path_scores, "SOURCES_OF_TASK", 7)
    parts = graph_convexity(features, labels, max_pairs=100, return_path_scores=True)
    for label in range(4):
        np.testing.assert_array_equal(parts.path_scores[label], whole.path_scores[label])
    assert parts.standard_error == whole.standard_error


def test_processes_do_not_matter(monkeypatch):
    features, labels = toy_points(400)
    graph = nearest_neighbor_graph(features, 5)
    pairs = [
        ClassPairs(PointClasses.from_labels(names, 400), ConvexityConfig()) for names in (labels, labels[::-1] // 2)
    ]
    permutations = [np.random.default_rng(seed).permutation(400) for seed in range(3)]
    alone = score_paths(graph, pairs, permutations)
    monkeypatch.setattr(path_scores, "SHARED_FROM", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    started = []
    monkeypatch.setattr(
        path_scores, "Parallel", lambda count, **options: started.append(count) or Parallel(count, **options)
    )
    shared = score_paths(graph, pairs, permutations)
    assert started == [2]
    for expected, found in zip(alone, shared, strict=True):
        for field in dataclasses.fields(expected):
            np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name))


def test_the_seed_alone_decides_which_pairs_are_sampled():
    features, labels = toy_points()
    first = graph_convexity(features, labels, max_pairs=50)
    disturb_random_state()
    before = np.random.get_state()[1].copy()
    assert graph_convexity(features, labels, max_pairs=50).per_class == first.per_class
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert graph_convexity(features, labels, max_pairs=50, seed=1).per_class != first.per_class


def test_a_complete_graph_is_convex_and_separate_halves_of_a_class_are_not():
    features, labels = toy_points(count=20)
    assert graph_convexity(features, labels, n_neighbors=19).score == 1.0
    halves = features + 1000 * (np.arange(20) < 10)[:, None]
    result = graph_convexity(halves, np.arange(20) % 2, n_neighbors=9)
    # Each point is the first of nine pairs; four of them have both points in one half.
    assert result.per_class == {0: pytest.approx(4 / 9), 1: pytest.approx(4 / 9)}


def test_path_scores_are_kept_on_request_only():
    result = graph_convexity(*toy_points())
    assert result.pairs is None and result.path_scores is None
    assert result.graph.neighbors.shape == (120, 10)


def test_memory_stays_far_below_a_dense_matrix():
    count = 3000
    features = np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)
    tracemalloc.start()
    try:
        # Few pairs, to save time.
        graph_convexity(features, np.arange(count) % 2, max_pairs=200)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * count**2 / 4


FEATURES, LABELS = toy_points(count=12, num_classes=2)


@pytest.mark.parametrize(
    "features, labels, message",
    [
        (FEATURES, [1] * 12, "1 class is not enough.*two classes or more"),
        (FEATURES, ["a", "b"] * 5 + ["a", "lonely"], "1 of 3 classes have only one clip.*lonely.*leave them out"),
        (FEATURES, LABELS[:-1], "12 points and 11 labels; give one label for each point"),
        (FEATURES[:8], LABELS[:8], "8 points cannot have 10 neighbours.*`n_neighbors` to 1 to 7"),
        (np.zeros((12, 3)), LABELS, "All 12 points.*leave duplicates out"),
        (np.where(np.arange(12)[:, None] == 5, np.nan, FEATURES), LABELS, r"1 of 12 points are NaN.*\(rows 5\)"),
        (np.where(FEATURES > 2, np.inf, FEATURES), LABELS, "NaN or infinite"),
        (FEATURES[0], LABELS, r"shape \(8,\).*\(points, dimensions\)"),
        (FEATURES.astype(str), LABELS, "must be numbers"),
        (FEATURES, LABELS + 0.5, "labels are of type float; they must be all strings or all integers"),
        (FEATURES, ["a", None] * 6, "labels are of type NoneType, str"),
    ],
)
def test_bad_input_is_named(features, labels, message):
    with pytest.raises(ValueError, match=message):
        graph_convexity(features, labels)


@pytest.mark.parametrize(
    "n_neighbors, message",
    [
        (0, "`n_neighbors` is 0; give 1 or more"),
        (-1, "`n_neighbors` is -1; give 1 or more"),
        (12, "cannot have 12 neighbours each"),
    ],
)
def test_impossible_numbers_of_neighbours_are_refused(n_neighbors, message):
    with pytest.raises(ValueError, match=message):
        graph_convexity(FEATURES, LABELS, n_neighbors=n_neighbors)


def test_too_few_pairs_are_refused():
    with pytest.raises(ValueError, match="`max_pairs` is 1; give 2 or more, or None"):
        graph_convexity(FEATURES, LABELS, max_pairs=1)


def test_a_config_and_keywords_give_the_same_scores():
    features, labels = toy_points()
    by_keywords = graph_convexity(features, labels, n_neighbors=5, max_pairs=50, seed=3)
    config = ConvexityConfig(n_neighbors=5, max_pairs=50, seed=3)
    for other in (
        graph_convexity(features, labels, config),
        graph_convexity(features, labels, ConvexityConfig(n_neighbors=7, max_pairs=50, seed=3), n_neighbors=5),
    ):
        assert other.per_class == by_keywords.per_class and other.standard_error == by_keywords.standard_error
    assert graph_convexity(features, labels).per_class != by_keywords.per_class


@pytest.mark.parametrize("name", ["n_neighbours", "num_permutations", "batch_size"])
def test_keywords_that_do_nothing_are_refused(name):
    with pytest.raises(TypeError, match=f"no setting '{name}'.* are n_neighbors, max_pairs, seed"):
        graph_convexity(FEATURES, LABELS, **{name: 5})
