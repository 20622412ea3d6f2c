"""Graph convexity: whether the shortest paths between points of a class stay in the class.

All points are connected to their nearest neighbours, each edge as long as the Euclidean distance of its ends. The
shortest path between two points of a class is scored by the share of its inner points that belong to the same class.
The mean over pairs of a class, then over classes, is the graph convexity of the classes in this feature space (arXiv
2305.17154; layers of speech models: arXiv 2408.11858).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse.csgraph import dijkstra

from .class_pairs import ClassPairs, Label, PointClasses
from .convexity_config import ConvexityConfig
from .neighbor_graph import NeighborGraph, check_features, nearest_neighbor_graph


# Maximum bytes of shortest-path trees held at once, for any number of points.
BLOCK_BYTES = 8 * 2**20
# Bytes per point of one tree: a float64 distance and an int32 predecessor.
POINT_BYTES = 12
# Maximum number of pairs whose paths are followed at once.
PAIRS_AT_ONCE = 2**17
# scipy's predecessor of a point that has none: the source itself and points that cannot be reached.
NO_PREDECESSOR = -9999
# The settings that `graph_convexity` uses.
GRAPH_SETTINGS = ("n_neighbors", "max_pairs", "seed")


@dataclass(frozen=True)
class GraphConvexity:
    """Graph convexity of the classes of labelled points.

    Attributes:
        score: Mean of the class scores, from 0 to 1.
        per_class: Label to class score, the mean of the path scores of the class, from 0 to 1.
        standard_error: Label to standard error: the standard deviation of the path scores of the class (ddof 1),
            divided by the square root of the number of its points, as in the authors' code.
        graph: Nearest-neighbour graph of the points.
        pairs: Label to point indices of the scored pairs, of shape (pairs, 2), if `return_path_scores`.
        path_scores: Label to path scores of these pairs, of shape (pairs,), if `return_path_scores`.
    """

    score: float
    per_class: dict[Label, float]
    standard_error: dict[Label, float]
    graph: NeighborGraph = field(repr=False)
    pairs: dict[Label, np.ndarray] | None = field(default=None, repr=False)
    path_scores: dict[Label, np.ndarray] | None = field(default=None, repr=False)


def graph_convexity(
    features: np.ndarray,
    labels: Sequence[Label] | np.ndarray,
    config: ConvexityConfig | None = None,
    *,
    return_path_scores: bool = False,
    **overrides: Any,
) -> GraphConvexity:
    """Computes the graph convexity of classes of points (arXiv 2305.17154, arXiv 2408.11858).

    The numbers equal those of the authors' code (LenkaTetkova/Convexity-of-representations). The points are connected
    to their nearest neighbours. An ordered pair of points of a class is scored by the share of the inner points of its
    shortest path that are of the class; it scores 1 if the points are neighbours and 0 if there is no path. Among
    equally short paths, the one that scipy's Dijkstra search from the first point finds is taken.

    Compare scores only between features of the same number of points with the same number of neighbours: scores rise
    with both. Chance level is about one divided by the number of classes, plus the edge density.

        graph_convexity(features, labels, n_neighbors=5).score

    Args:
        features: Numbers of shape (points, dimensions).
        labels: Label of each point, all strings or all integers; at least two classes of at least two points each.
        config: Settings of the graph and of the pair sample; `None` for the defaults of `ConvexityConfig`.
        return_path_scores: Whether to return the scored pairs and their path scores too.
        **overrides: `n_neighbors`, `max_pairs` or `seed`, in place of the values of `config`.

    Returns:
        The score, the class scores with standard errors, and the graph.

    Raises:
        TypeError: If another keyword argument is given.
        ValueError: If a setting, the features or the labels are not as described, there are fewer points than
            neighbours, or all points are equal.
    """
    config = ConvexityConfig.from_call(config, overrides, GRAPH_SETTINGS)
    features = check_features(features)
    classes = PointClasses.from_labels(labels, len(features))
    pairs = ClassPairs(classes, config)
    graph = nearest_neighbor_graph(features, config.n_neighbors)
    (scores,) = score_paths(graph, [pairs])

    def by_label(values: Sequence[Any]) -> dict[Label, Any]:
        return dict(zip(classes.names, values, strict=True))

    return GraphConvexity(
        score=float(np.mean(scores.class_means)),
        per_class=by_label(scores.class_means.tolist()),
        standard_error=by_label(scores.standard_errors.tolist()),
        graph=graph,
        pairs=by_label(pairs.by_class(pairs.points)) if return_path_scores else None,
        path_scores=by_label(pairs.by_class(scores.paths)) if return_path_scores else None,
    )


@dataclass(frozen=True)
class PathScores:
    """Scores of the shortest paths between the pairs of one set of labels.

    Attributes:
        paths: Score of the path of each pair, of shape (pairs,).
        class_means: Mean path score of each class, of shape (classes,).
        standard_errors: Standard error of each class as in `GraphConvexity`, of shape (classes,).
        permuted_class_means: Class means after each permutation of the labels, of shape (permutations, classes).
    """

    paths: np.ndarray
    class_means: np.ndarray
    standard_errors: np.ndarray
    permuted_class_means: np.ndarray


def score_paths(
    graph: NeighborGraph, label_sets: Sequence[ClassPairs], permutations: Sequence[np.ndarray] = ()
) -> list[PathScores]:
    """Scores shortest paths for several sets of labels of the same points and for permutations of each.

    The shortest paths from a point do not depend on the labels, so that they are computed once for all.

    Args:
        graph: Nearest-neighbour graph of the points.
        label_sets: Pairs to score of each set of labels.
        permutations: Permutations of the point indices, each of shape (points,): point `permutation[i]` gets the label
            of point i, and the pairs to score are those of the label set with both points replaced in this way.

    Returns:
        Scores of each set of labels.
    """
    num_points = len(graph.neighbors)
    inverses = [np.argsort(permutation) for permutation in permutations]
    sources = _sources_of_pairs(num_points, label_sets, inverses)
    path_scores = [np.empty(len(pairs.sources)) for pairs in label_sets]
    permuted_sums = [np.zeros((len(permutations), len(pairs.classes.names))) for pairs in label_sets]
    for block, predecessors in _shortest_paths(graph, sources):
        tree_rows = np.full(num_points, -1)
        tree_rows[block] = np.arange(len(block))
        trees = _Trees(predecessors, tree_rows)
        for pairs, scores, sums in zip(label_sets, path_scores, permuted_sums, strict=True):
            codes = pairs.classes.codes
            chosen = pairs.starting_at(block)
            scores[chosen] = trees.score(pairs.sources[chosen], pairs.targets[chosen], codes)
            for permutation_idx, (permutation, inverse) in enumerate(zip(permutations, inverses, strict=True)):
                chosen = pairs.starting_at(inverse[block])
                ends = permutation[pairs.sources[chosen]], permutation[pairs.targets[chosen]]
                permuted_scores = trees.score(*ends, codes[inverse])
                classes_of_pairs = codes[pairs.sources[chosen]]
                sums[permutation_idx] += np.bincount(classes_of_pairs, permuted_scores, len(pairs.classes.names))
    return [_summarize(*scores) for scores in zip(label_sets, path_scores, permuted_sums, strict=True)]


def _sources_of_pairs(num_points: int, label_sets: Sequence[ClassPairs], inverses: Sequence[np.ndarray]) -> np.ndarray:
    """Ascending indices of the points that are the first of a pair of any set of labels, permuted or not."""
    is_source = np.zeros(num_points, dtype=bool)
    for pairs in label_sets:
        is_source |= pairs.has_pairs
        for inverse in inverses:
            is_source |= pairs.has_pairs[inverse]
    return np.flatnonzero(is_source)


def _summarize(pairs: ClassPairs, paths: np.ndarray, permuted_sums: np.ndarray) -> PathScores:
    per_class = pairs.by_class(paths)
    deviations = np.array([scores.std(ddof=1) for scores in per_class])
    return PathScores(
        paths=paths,
        class_means=np.array([scores.mean() for scores in per_class]),
        standard_errors=deviations / np.sqrt(pairs.classes.counts),
        permuted_class_means=permuted_sums / np.diff(pairs.bounds),
    )


def _shortest_paths(graph: NeighborGraph, sources: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields blocks of sources with their shortest-path trees: the predecessors, of shape (block, points)."""
    block_size = max(1, BLOCK_BYTES // (POINT_BYTES * len(graph.neighbors)))
    for start in range(0, len(sources), block_size):
        block = sources[start : start + block_size]
        # The matrix is symmetric already. With `directed=False`, scipy would visit each edge twice.
        yield block, dijkstra(graph.distances, directed=True, indices=block, return_predecessors=True)[1]


@dataclass(frozen=True)
class _Trees:
    """Shortest-path trees of some source points.

    Attributes:
        predecessors: Point before each point on the shortest path from each source, of shape (sources, points).
        rows: Row of each source point in `predecessors`, of shape (points,).
    """

    predecessors: np.ndarray
    rows: np.ndarray

    def score(self, sources: np.ndarray, targets: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Computes the share of the inner points of each shortest path that are of the class of its source.

        Args:
            sources: Index of the first point of each path, of shape (paths,).
            targets: Index of the last point of each path, of shape (paths,).
            codes: Class of every point, of shape (points,).
        """
        scores = np.empty(len(sources))
        for start in range(0, len(sources), PAIRS_AT_ONCE):
            chunk = slice(start, start + PAIRS_AT_ONCE)
            scores[chunk] = self._follow(sources[chunk], targets[chunk], codes)
        return scores

    def _follow(self, sources: np.ndarray, targets: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Follows all paths backwards from target to source, one step of every path at a time."""
        rows = self.rows[sources]
        num_inner = np.zeros(len(sources))
        num_inside = np.zeros(len(sources))
        points = self.predecessors[rows, targets]
        is_reached = points != NO_PREDECESSOR
        unfinished = np.flatnonzero(is_reached & (points != sources))
        points = points[unfinished]
        while len(unfinished):
            num_inner[unfinished] += 1
            num_inside[unfinished] += codes[points] == codes[sources[unfinished]]
            points = self.predecessors[rows[unfinished], points]
            is_inner = points != sources[unfinished]
            unfinished, points = unfinished[is_inner], points[is_inner]
        # A path without inner points is an edge between two points of the class, which scores 1.
        shares = np.divide(num_inside, num_inner, out=np.ones(len(sources)), where=num_inner > 0)
        return np.where(is_reached, shares, 0)
