"""The graph of nearest neighbours that graph convexity and the neighbourhood hit are read from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array
from sklearn.neighbors import NearestNeighbors

from ..runtime.messages import first_names


# Candidates beyond the neighbours asked for: the search ranks by rounded distances, and exact ones decide among these.
SPARE_CANDIDATES = 8
# Of differences between points that are held at once.
BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class NeighborGraph:
    """Points joined to their nearest neighbours.

    Attributes:
        neighbors: The nearest neighbours of each point, nearest first and without the point itself, of shape (points,
            n_neighbors).
        distances: Symmetric, of shape (points, points): the Euclidean distance of two points of which at least one is
            among the other's neighbours, where it is not zero.
    """

    neighbors: np.ndarray
    distances: csr_array

    @property
    def edges(self) -> np.ndarray:
        """The edges (i, j) with i < j, in order, of shape (edges, 2)."""
        upper = self.distances.tocoo()
        edges = np.stack([upper.row, upper.col], axis=1)[upper.row < upper.col]
        return edges[np.lexsort((edges[:, 1], edges[:, 0]))]


def nearest_neighbor_graph(features: np.ndarray, n_neighbors: int = 10) -> NeighborGraph:
    """Joins every point to its nearest neighbours, found exactly (arXiv 2305.17154).

    Equally distant neighbours are taken in the order of the points. An exact duplicate takes a neighbour's place but
    gives no edge, because an edge of no length would be none in a sparse matrix.

    Args:
        features: Of shape (points, dimensions); float32 and float64 stay what they are.
        n_neighbors: 1 or more, and fewer than there are points.

    Raises:
        ValueError: If the features are not such an array, are not finite, too few, or all the same.
    """
    features = check_features(features)
    num_points = len(features)
    if not 1 <= n_neighbors < num_points:
        raise ValueError(
            f"{num_points} points cannot have {n_neighbors} neighbours each. Give more points, or set `n_neighbors` to "
            f"1 to {max(num_points - 1, 1)}."
        )
    candidates = _nearest_candidates(features, min(num_points, n_neighbors + 1 + SPARE_CANDIDATES))
    distances = _exact_distances(features, candidates)
    points = np.arange(num_points)
    distances[candidates == points[:, None]] = np.inf
    nearest = np.lexsort((candidates, distances))[:, :n_neighbors]
    distances = np.take_along_axis(distances, nearest, axis=1)
    neighbors = np.take_along_axis(candidates, nearest, axis=1)
    # Infinite where a point has so many duplicates that it is not among its own candidates.
    has_edge = (distances > 0) & np.isfinite(distances)
    if not has_edge.any():
        raise ValueError(
            f"All {num_points} points lie on each other's neighbours, so there is no graph. Check that the features "
            "differ between clips, and leave duplicates out."
        )
    rows = np.repeat(points, n_neighbors).reshape(neighbors.shape)
    directed = coo_array(
        (distances[has_edge], (rows[has_edge], neighbors[has_edge])), shape=(num_points, num_points)
    ).tocsr()
    return NeighborGraph(neighbors, directed.maximum(directed.T).tocsr())


def _nearest_candidates(features: np.ndarray, num_candidates: int) -> np.ndarray:
    """The nearest points to each, itself among them, in no particular order."""
    # About their mean, points lose fewer digits in the products of norms that the search is made of.
    centered = features - features.mean(axis=0, dtype=np.float64)
    search = NearestNeighbors(n_neighbors=num_candidates, algorithm="brute").fit(centered)
    return search.kneighbors(centered, return_distance=False)


def _exact_distances(features: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Euclidean distances from each point to its candidates, from differences in float64."""
    distances = np.empty(candidates.shape)
    block_size = max(1, BLOCK_BYTES // (8 * features.shape[1] * candidates.shape[1]))
    for start in range(0, len(features), block_size):
        block = slice(start, start + block_size)
        differences = features[candidates[block]].astype(np.float64)
        differences -= features[block, None]
        distances[block] = np.sqrt(np.square(differences, out=differences).sum(axis=2))
    return distances


def check_features(features: np.ndarray) -> np.ndarray:
    """Features as a contiguous array of float32 or float64.

    Raises:
        ValueError: If they are not of shape (points, dimensions), or not finite.
    """
    features = np.asarray(features)
    if features.ndim != 2 or 0 in features.shape or features.dtype.kind not in "fiub":
        raise ValueError(
            f"The features have the shape {features.shape} and the type {features.dtype}; they must be numbers of "
            "shape (points, dimensions), one row for each clip."
        )
    if features.dtype not in (np.float32, np.float64):
        features = features.astype(np.float32 if features.dtype == np.float16 else np.float64)
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        rows = [str(row) for row in np.flatnonzero(~finite)]
        raise ValueError(
            f"The features of {len(rows)} of {len(features)} points are NaN or infinite (rows {first_names(rows)}). "
            "Leave these clips out, or compute the features in float32."
        )
    return np.ascontiguousarray(features)


def neighbourhood_hit(graph: NeighborGraph, labels: np.ndarray) -> np.ndarray:
    """The share of each point's neighbours that are of its class, the neighbourhood hit of Paulovich et al. (2008).

    Args:
        graph: Of the points.
        labels: Of the points.

    Returns:
        Of shape (points,), from 0 to 1.
    """
    labels = np.asarray(labels)
    return (labels[graph.neighbors] == labels[:, None]).mean(axis=1)
