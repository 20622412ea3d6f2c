"""Graph convexity: whether the shortest paths between points of a class stay in the class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse.csgraph import dijkstra

from .class_pairs import ClassPairs, PointClasses
from .neighbor_graph import NeighborGraph, check_features, nearest_neighbor_graph


# Of distances and predecessors held at once, however many points there are.
BLOCK_BYTES = 8 * 2**20
# Of one vertex seen from one source: a float64 and an int32.
VERTEX_BYTES = 12
# Pairs whose paths are walked at once.
PAIRS_AT_ONCE = 2**17
# What scipy gives for a vertex without a predecessor: a source, and what cannot be reached from it.
NO_PREDECESSOR = -9999


@dataclass(frozen=True)
class GraphConvexity:
    """How convex the classes of some points are in the graph of their nearest neighbours.

    Attributes:
        score: The mean over the classes, from 0 to 1.
        per_class: Label to the mean over the pairs of the class.
        standard_error: Label to the standard deviation (ddof 1) over those pairs, divided by the square root of the
            number of points of the class.
        graph: Which the paths are in.
        pairs: Label to the pairs of points, of shape (pairs, 2), if asked for.
        path_scores: Label to the score of each of these pairs, if asked for.
    """

    score: float
    per_class: dict[Any, float]
    standard_error: dict[Any, float]
    graph: NeighborGraph = field(repr=False)
    pairs: dict[Any, np.ndarray] | None = field(default=None, repr=False)
    path_scores: dict[Any, np.ndarray] | None = field(default=None, repr=False)


def graph_convexity(
    features: np.ndarray,
    labels: Sequence,
    *,
    n_neighbors: int = 10,
    max_pairs: int | None = 5000,
    seed: int = 42,
    return_path_scores: bool = False,
) -> GraphConvexity:
    """Scores the convexity of classes as the authors of the method do (arXiv 2305.17154, arXiv 2408.11858).

    In the graph of the nearest neighbours of all points, an ordered pair of points of a class scores the share of the
    inner vertices of its shortest path that are of the class: 1 for direct neighbours, 0 where there is no path. Of
    equally short paths it is the one that scipy's Dijkstra meets first on its way from the pair's first point.

    The score grows with the number of points and of neighbours, and chance is about one over the number of classes plus
    the density of the edges: compare only what has the same points and neighbours.

    Args:
        features: Of shape (points, dimensions).
        labels: Of the points, strings or integers.
        n_neighbors: Of the graph, 1 or more and fewer than points.
        max_pairs: Of a class with more pairs, as many are drawn; `None` takes all of every class.
        seed: Of the draw, which is that of the authors' code, class by class in the order of the sorted labels.
        return_path_scores: Whether to keep the pairs and their scores.

    Raises:
        ValueError: If there are fewer than two classes, a class with one point, fewer points than neighbours, features
            that are not finite or all the same, or another number of labels than of points.
    """
    features = check_features(features)
    classes = PointClasses.of(labels, len(features))
    pairs = ClassPairs(classes, max_pairs, seed)
    graph = nearest_neighbor_graph(features, n_neighbors)
    (scores,) = score_paths(graph, [pairs])
    per_class = pairs.by_class(scores.paths)
    return GraphConvexity(
        score=float(np.mean(scores.class_means)),
        per_class=dict(zip(classes.names, scores.class_means.tolist(), strict=True)),
        standard_error=dict(zip(classes.names, scores.standard_errors.tolist(), strict=True)),
        graph=graph,
        pairs=dict(zip(classes.names, pairs.by_class(pairs.points), strict=True)) if return_path_scores else None,
        path_scores=dict(zip(classes.names, per_class, strict=True)) if return_path_scores else None,
    )


@dataclass(frozen=True)
class PathScores:
    """The scores of the pairs of one labelling of a graph's points.

    Attributes:
        paths: Of each pair.
        class_means: Of each class.
        standard_errors: Of each class, as in `GraphConvexity`.
        permuted_class_means: The same under each permutation of the labels, of shape (permutations, classes).
    """

    paths: np.ndarray
    class_means: np.ndarray
    standard_errors: np.ndarray
    permuted_class_means: np.ndarray


def score_paths(
    graph: NeighborGraph, labelings: Sequence[ClassPairs], permutations: Sequence[np.ndarray] = ()
) -> list[PathScores]:
    """Scores the shortest paths between pairs of points, for several labellings and their permutations at once.

    All of them read the same shortest paths, each source's being searched once.

    Args:
        graph: Of the points.
        labelings: The pairs of each labelling.
        permutations: Of the points: `permutation[i]` is the point that gets the label of point i. Its pairs are those of
            the labelling with both points so replaced.

    Returns:
        The scores of each labelling.
    """
    num_points = len(graph.neighbors)
    permutations = [np.arange(num_points), *permutations]
    inverses = [np.argsort(permutation) for permutation in permutations]
    paths = [np.empty(len(pairs.sources)) for pairs in labelings]
    sums = [np.zeros((len(permutations), len(pairs.classes.names))) for pairs in labelings]
    is_source = np.zeros(num_points, dtype=bool)
    for pairs in labelings:
        for inverse in inverses:
            is_source |= pairs.has_pairs[inverse]
    for sources, predecessors in _shortest_paths(graph, np.flatnonzero(is_source)):
        rows = np.full(num_points, -1)
        rows[sources] = np.arange(len(sources))
        for labeling, pairs in enumerate(labelings):
            for number, (permutation, inverse) in enumerate(zip(permutations, inverses, strict=True)):
                chosen = pairs.from_sources(inverse[sources])
                ends = permutation[pairs.sources[chosen]], permutation[pairs.targets[chosen]]
                scores = _share_inside(predecessors, rows, *ends, pairs.classes.codes[inverse])
                if number == 0:
                    paths[labeling][chosen] = scores
                else:
                    codes = pairs.classes.codes[pairs.sources[chosen]]
                    sums[labeling][number] += np.bincount(codes, scores, len(pairs.classes.names))
    return [_summarize(*scores) for scores in zip(labelings, paths, sums, strict=True)]


def _summarize(pairs: ClassPairs, paths: np.ndarray, sums: np.ndarray) -> PathScores:
    per_class = pairs.by_class(paths)
    deviations = np.array([scores.std(ddof=1) for scores in per_class])
    return PathScores(
        paths=paths,
        class_means=np.array([scores.mean() for scores in per_class]),
        standard_errors=deviations / np.sqrt(pairs.classes.counts),
        permuted_class_means=sums[1:] / np.diff(pairs.bounds),
    )


def _shortest_paths(graph: NeighborGraph, sources: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of sources, with the predecessor of every vertex on the way from each: of shape (sources, points)."""
    num_points = len(graph.neighbors)
    block_size = max(1, BLOCK_BYTES // (VERTEX_BYTES * num_points))
    for start in range(0, len(sources), block_size):
        block = sources[start : start + block_size]
        # The matrix is symmetric; told that the graph is undirected, scipy would look at each edge twice.
        yield block, dijkstra(graph.distances, directed=True, indices=block, return_predecessors=True)[1]


def _share_inside(
    predecessors: np.ndarray, rows: np.ndarray, sources: np.ndarray, targets: np.ndarray, codes: np.ndarray
) -> np.ndarray:
    """The share of the inner vertices of each path that are of the class of its source.

    Args:
        predecessors: Of shape (rows, points).
        rows: The row of each source.
        sources: Of each pair.
        targets: Of each pair.
        codes: The class of every point.
    """
    scores = np.empty(len(sources))
    for start in range(0, len(sources), PAIRS_AT_ONCE):
        chunk = slice(start, start + PAIRS_AT_ONCE)
        scores[chunk] = _walk_back(predecessors, rows[sources[chunk]], sources[chunk], targets[chunk], codes)
    return scores


def _walk_back(
    predecessors: np.ndarray, rows: np.ndarray, sources: np.ndarray, targets: np.ndarray, codes: np.ndarray
) -> np.ndarray:
    """All paths a step at a time, from the targets to the sources."""
    num_inner = np.zeros(len(sources))
    num_inside = np.zeros(len(sources))
    vertices = predecessors[rows, targets]
    is_reached = vertices != NO_PREDECESSOR
    walking = np.flatnonzero(is_reached & (vertices != sources))
    vertices = vertices[walking]
    while len(walking):
        num_inner[walking] += 1
        num_inside[walking] += codes[vertices] == codes[sources[walking]]
        vertices = predecessors[rows[walking], vertices]
        is_inner = vertices != sources[walking]
        walking, vertices = walking[is_inner], vertices[is_inner]
    # A path without inner vertices is an edge, which is inside.
    return np.where(is_reached, np.divide(num_inside, num_inner, out=np.ones(len(sources)), where=num_inner > 0), 0)
