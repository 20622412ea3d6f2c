"""Graph convexity: whether the shortest paths between points of a class stay in the class.

All points are connected to their nearest neighbours, each edge as long as the Euclidean distance of its ends. The
shortest path between two points of a class is scored by the share of its inner points that belong to the same class.
The mean over pairs of a class, then over classes, is the graph convexity of the classes in this feature space (arXiv
2305.17154; layers of speech models: arXiv 2408.11858).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .class_pairs import ClassPairs, Label, PointClasses
from .convexity_config import ConvexityConfig
from .neighbor_graph import NeighborGraph, check_features, nearest_neighbor_graph
from .path_scores import PathScorer, score_blocks


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
    scorer = PathScorer.of(graph, label_sets, permutations)
    path_scores = [np.empty(len(pairs.sources)) for pairs in label_sets]
    permuted_sums = [np.zeros((len(permutations), len(pairs.classes.names))) for pairs in label_sets]
    for block in score_blocks(scorer):
        for scores, sums, (chosen, chosen_scores, added) in zip(path_scores, permuted_sums, block, strict=True):
            scores[chosen] = chosen_scores
            sums += added
    return [_summarize(*scores) for scores in zip(label_sets, path_scores, permuted_sums, strict=True)]


def _summarize(pairs: ClassPairs, paths: np.ndarray, permuted_sums: np.ndarray) -> PathScores:
    per_class = pairs.by_class(paths)
    deviations = np.array([scores.std(ddof=1) for scores in per_class])
    return PathScores(
        paths=paths,
        class_means=np.array([scores.mean() for scores in per_class]),
        standard_errors=deviations / np.sqrt(pairs.classes.counts),
        permuted_class_means=permuted_sums / np.diff(pairs.bounds),
    )
