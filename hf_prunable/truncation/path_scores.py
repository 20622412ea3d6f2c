"""Scores of shortest paths, for blocks of source points that several processes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from joblib import Parallel, delayed
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from .class_pairs import ClassPairs
from .neighbor_graph import NeighborGraph


# Maximum bytes of shortest-path trees held at once, for any number of points.
BLOCK_BYTES = 8 * 2**20
# Bytes per point of one tree: a float64 distance and an int32 predecessor.
POINT_BYTES = 12
# Maximum number of pairs whose paths are followed at once.
PAIRS_AT_ONCE = 2**17
# scipy's predecessor of a point that has none: the source itself and points that cannot be reached.
NO_PREDECESSOR = -9999
# Number of sources times points from which on several processes share the work: about ten seconds of it. Starting one takes
# some seconds.
SHARED_FROM = 10**8
# Sources of a task of one process: some seconds of work, of few results.
SOURCES_OF_TASK = 256


class BlockScores(NamedTuple):
    """Scores of the paths that start at some points, for one set of labels.

    Attributes:
        pairs: Indices of the scored pairs.
        paths: Score of the path of each, of the same shape.
        permuted_sums: Sums of the path scores of each class after each permutation, of shape (permutations, classes).
    """

    pairs: np.ndarray
    paths: np.ndarray
    permuted_sums: np.ndarray


@dataclass(frozen=True)
class PathScorer:
    """What the paths from any point are scored by.

    Attributes:
        distances: Edge weights of the graph, see `NeighborGraph`.
        label_sets: Pairs to score of each set of labels.
        permutations: Permutations of the point indices and their inverses, each of shape (points,).
    """

    distances: csr_array
    label_sets: Sequence[ClassPairs]
    permutations: Sequence[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(
        cls, graph: NeighborGraph, label_sets: Sequence[ClassPairs], permutations: Sequence[np.ndarray]
    ) -> PathScorer:
        """Returns the scorer of a graph; arguments are those of `score_paths`."""
        return cls(graph.distances, label_sets, [(each, np.argsort(each)) for each in permutations])

    @property
    def num_points(self) -> int:
        """Number of points of the graph."""
        return int(self.distances.shape[0])

    def sources(self) -> np.ndarray:
        """Returns ascending indices of the points that are the first of a pair of any set of labels, permuted or not."""
        is_source = np.zeros(self.num_points, dtype=bool)
        for pairs in self.label_sets:
            is_source |= pairs.has_pairs
            for _, inverse in self.permutations:
                is_source |= pairs.has_pairs[inverse]
        return np.flatnonzero(is_source)

    def score(self, sources: np.ndarray) -> list[list[BlockScores]]:
        """Scores the paths from some points.

        Args:
            sources: Ascending indices of the points.

        Returns:
            For each block of these points, the scores of each set of labels.
        """
        block_size = max(1, BLOCK_BYTES // (POINT_BYTES * self.num_points))
        return [self._score_block(sources[start : start + block_size]) for start in range(0, len(sources), block_size)]

    def _score_block(self, block: np.ndarray) -> list[BlockScores]:
        # The matrix is symmetric already. With `directed=False`, scipy would visit each edge twice.
        predecessors = dijkstra(self.distances, directed=True, indices=block, return_predecessors=True)[1]
        rows = np.full(self.num_points, -1)
        rows[block] = np.arange(len(block))
        trees = _Trees(predecessors, rows)
        return [self._score_labels(trees, block, pairs) for pairs in self.label_sets]

    def _score_labels(self, trees: _Trees, block: np.ndarray, pairs: ClassPairs) -> BlockScores:
        codes, num_classes = pairs.classes.codes, len(pairs.classes.names)
        chosen = pairs.starting_at(block)
        scores = trees.score(pairs.sources[chosen], pairs.targets[chosen], codes)
        sums = np.zeros((len(self.permutations), num_classes))
        for permutation_idx, (permutation, inverse) in enumerate(self.permutations):
            permuted = pairs.starting_at(inverse[block])
            ends = permutation[pairs.sources[permuted]], permutation[pairs.targets[permuted]]
            permuted_scores = trees.score(*ends, codes[inverse])
            sums[permutation_idx] = np.bincount(codes[pairs.sources[permuted]], permuted_scores, num_classes)
        return BlockScores(chosen, scores, sums)


def score_blocks(scorer: PathScorer) -> Iterator[list[BlockScores]]:
    """Scores all paths, on large graphs in as many processes as torch uses threads; the scores are the same to the bit.

    Args:
        scorer: Graph, pairs and permutations.

    Yields:
        For each block of source points, in order, the scores of each set of labels.
    """
    sources = scorer.sources()
    num_processes = torch.get_num_threads() if len(sources) * scorer.num_points >= SHARED_FROM else 1
    parts = [sources[start : start + SOURCES_OF_TASK] for start in range(0, len(sources), SOURCES_OF_TASK)]
    # scipy's search holds the interpreter, so that threads would take turns.
    run = Parallel(num_processes, return_as="generator", max_nbytes="1M")
    for blocks in run(delayed(scorer.score)(part) for part in parts):
        yield from blocks


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
