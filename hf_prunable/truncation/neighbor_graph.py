"""The graph of nearest neighbours, from which graph convexity and the neighbourhood hit are computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array
from sklearn.neighbors import NearestNeighbors
from transformers.utils import logging

from ..runtime.messages import first_names


logger = logging.get_logger(__name__)

# Candidates per point beyond `n_neighbors`: the search ranks by rounded distances, exact ones rank the candidates.
SPARE_CANDIDATES = 8
# Rounding error of the search's squared distances relative to squared norms, for thousands of dimensions in float64.
SEARCH_ERROR = 1e-11
# Maximum bytes of differences between points held at once.
BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class NeighborGraph:
    """Undirected graph in which two points share an edge if either is among the nearest neighbours of the other.

    Attributes:
        neighbors: Indices of the nearest neighbours of each point, nearest first, without the point itself, of shape
            (points, n_neighbors).
        distances: Edge weights, a symmetric sparse matrix of shape (points, points): the Euclidean distance of the two
            points of each edge, more than 0.
    """

    neighbors: np.ndarray
    distances: csr_array

    @property
    def edges(self) -> np.ndarray:
        """Point indices (i, j) of each edge, with i < j, in ascending order, of shape (edges, 2)."""
        upper = self.distances.tocoo()
        edges = np.stack([upper.row, upper.col], axis=1)[upper.row < upper.col]
        return edges[np.lexsort((edges[:, 1], edges[:, 0]))]


def nearest_neighbor_graph(features: np.ndarray, n_neighbors: int) -> NeighborGraph:
    """Connects every point to its nearest neighbours by Euclidean distance, found exactly (arXiv 2305.17154).

    Among equally distant points, those of lower index come first. An exact duplicate counts as a neighbour but makes
    no edge, because a sparse matrix cannot hold an edge of length 0; the authors' code does the same.

    Args:
        features: Numbers of shape (points, dimensions). Distances are computed in float64.
        n_neighbors: Number of neighbours of each point, from 1 to the number of points minus 1.

    Raises:
        ValueError: If the features do not have this shape, are not finite or are all equal, or `n_neighbors` is out of
            range, or distances exceed the range of float64.
    """
    features = check_features(features)
    num_points = len(features)
    if not 1 <= n_neighbors < num_points:
        raise ValueError(
            f"{num_points} points cannot have {n_neighbors} neighbours each. Give more points, or set `n_neighbors` "
            f"to 1 to {max(num_points - 1, 1)}."
        )
    # Divided by a power of two, which changes no digits: squares of very large and small numbers are not representable.
    exponent = int(np.frexp(np.abs(features).max())[1])
    neighbors, scaled_distances = _nearest_neighbors(np.ldexp(features, -exponent), n_neighbors)
    with np.errstate(over="ignore"):
        distances = np.ldexp(scaled_distances, exponent)
    has_edge = distances > 0
    limits = np.finfo(np.float64)
    is_out_of_range = distances.max() > limits.max / num_points or (distances[has_edge] < limits.tiny).any()
    if is_out_of_range or _has_different_points(features, neighbors, ~has_edge):
        raise ValueError(
            "The features are too large or too small, all or some of them: distances exceed the range of float64. Divide each "
            "dimension by its standard deviation, and leave outliers out."
        )
    if not has_edge.any():
        raise ValueError(
            f"All {num_points} points have the same features as their neighbours, so the graph has no edge. Check "
            "that the features differ between clips, and leave duplicates out."
        )
    if num_equal := int((~has_edge).any(axis=1).sum()):
        logger.warning_once(
            f"{num_equal} of {num_points} points have the same features as another point. Such points are neighbours "
            "without an edge, which lowers the scores of their classes. Leave duplicates out."
        )
    rows = np.repeat(np.arange(num_points), n_neighbors).reshape(neighbors.shape)
    directed = coo_array(
        (distances[has_edge], (rows[has_edge], neighbors[has_edge])), shape=(num_points, num_points)
    ).tocsr()
    return NeighborGraph(neighbors, directed.maximum(directed.T).tocsr())


def _has_different_points(features: np.ndarray, neighbors: np.ndarray, is_equal: np.ndarray) -> bool:
    """Returns whether neighbours at a computed distance of 0 differ from their point.

    Args:
        features: Features of all points.
        neighbors: Indices of the neighbours of each point, of shape (points, n_neighbors).
        is_equal: Whether their distance is 0, of the same shape.
    """
    points = np.flatnonzero(is_equal.any(axis=1))
    return any((features[neighbors[point, is_equal[point]]] != features[point]).any() for point in points)


def _nearest_neighbors(features: np.ndarray, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and distances of the nearest neighbours of each point, each of shape (points, n_neighbors)."""
    num_points = len(features)
    # The search expands squared distances into norms and a dot product. Centred points lose fewer digits there.
    centered = features - features.mean(axis=0, dtype=np.float64)
    num_candidates = min(num_points, n_neighbors + 1 + SPARE_CANDIDATES)
    search = NearestNeighbors(n_neighbors=num_candidates, algorithm="brute").fit(centered)
    candidates = search.kneighbors(centered, return_distance=False)
    neighbors = np.empty((num_points, n_neighbors), dtype=candidates.dtype)
    distances = np.empty((num_points, n_neighbors))
    farthest = np.empty(num_points)
    block_size = max(1, BLOCK_BYTES // (8 * features.shape[1] * num_candidates))
    for start in range(0, num_points, block_size):
        block = np.arange(start, min(start + block_size, num_points))
        neighbors[block], distances[block], farthest[block] = _rank(features, block, candidates[block], n_neighbors)
    if num_candidates < num_points:
        # Where the last neighbour is as far as all further candidates, points that are no candidates may be as near.
        error = SEARCH_ERROR * (np.linalg.norm(centered, axis=1) + farthest) ** 2
        everyone = np.arange(num_points)[None]
        for point in np.flatnonzero(farthest**2 - distances[:, -1] ** 2 <= error):
            neighbors[point], distances[point], _ = _rank(features, np.array([point]), everyone, n_neighbors)
    return neighbors, distances


def _rank(
    features: np.ndarray, points: np.ndarray, candidates: np.ndarray, n_neighbors: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks candidates by their Euclidean distances in float64, and equally distant ones by index.

    Args:
        features: Features of all points.
        points: Indices of some points.
        candidates: Indices of the candidates of each of these points, of shape (points, candidates).
        n_neighbors: Number of neighbours of each point, less than the number of its candidates.

    Returns:
        Indices and distances of the nearest candidates, each of shape (points, n_neighbors), and the distance of the
        farthest candidate of each point.
    """
    differences = features[candidates].astype(np.float64)
    differences -= features[points, None]
    distances = np.sqrt(np.square(differences, out=differences).sum(axis=2))
    farthest = distances.max(axis=1)
    # A point is not its own neighbour: it is ranked last among its candidates, which outnumber its neighbours.
    distances[candidates == points[:, None]] = np.inf
    nearest = np.lexsort((candidates, distances))[:, :n_neighbors]
    return np.take_along_axis(candidates, nearest, axis=1), np.take_along_axis(distances, nearest, axis=1), farthest


def check_features(features: np.ndarray) -> np.ndarray:
    """Validates features and returns them as a contiguous float32 or float64 array.

    Args:
        features: Numbers of shape (points, dimensions).

    Raises:
        ValueError: If they are not numbers of this shape, or are not finite.
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
    """Neighbourhood hit: the share of each point's nearest neighbours that are of its class (Paulovich et al. 2008).

    Args:
        graph: Graph of the points.
        labels: Label of each point, of shape (points,).

    Returns:
        Shares from 0 to 1, of shape (points,).
    """
    labels = np.asarray(labels)
    return (labels[graph.neighbors] == labels[:, None]).mean(axis=1)
