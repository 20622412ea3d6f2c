"""Purity of k-means units: how well the clusters of a student's frames agree with those of the teacher's frames."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics.cluster import contingency_matrix
from sklearn.preprocessing import StandardScaler


# Number of clusters of HuBERT's first iteration (arXiv 2106.07447).
NUM_UNITS = 100
# With fewer frames per cluster, purity is high by chance.
FRAMES_PER_UNIT = 50
REFERENCE_SEED = 0
# Purity varies with the start of k-means. None of these is the seed of the reference.
SEEDS = (1, 2, 3)


def frame_units(frames: np.ndarray, seed: int) -> np.ndarray:
    """Clusters frames by k-means, after standardizing each dimension.

    Args:
        frames: Features of shape (frames, hidden size).
        seed: Random seed of k-means.

    Returns:
        Cluster index of each frame, of shape (frames,). There are 100 clusters, or one for every 50 frames if there are
        fewer than 5,000 frames.
    """
    num_units = max(2, min(NUM_UNITS, len(frames) // FRAMES_PER_UNIT))
    clusters = MiniBatchKMeans(num_units, batch_size=4096, n_init=3, random_state=seed)
    return clusters.fit_predict(StandardScaler().fit_transform(frames))


def purity(units: np.ndarray, reference: np.ndarray) -> float:
    """Computes the fraction of frames whose reference label is the most frequent one of their cluster.

    Args:
        units: Cluster index of each frame, of shape (frames,).
        reference: Reference label of each frame, of shape (frames,).

    Returns:
        Purity between 0 and 1.

    Raises:
        ValueError: If the lengths differ.
    """
    if len(units) != len(reference):
        raise ValueError(
            f"There are {len(units)} units and {len(reference)} reference labels; give one of each for every frame."
        )
    return float(contingency_matrix(reference, units).max(axis=0).sum() / len(units))


def unit_purity(frames: np.ndarray, teacher_units: np.ndarray) -> dict:
    """Computes the purity of a student's clusters, with the teacher's clusters of the same frames as reference.

    The audio has no phone labels, so the teacher's clusters serve as reference labels, and the purity measures agreement
    with the teacher. The upper bound is the teacher's purity against itself, which is below 1 because k-means starts
    from another seed.

    Args:
        frames: Last hidden states of the student, of shape (frames, hidden size).
        teacher_units: Result of `frame_units` for the teacher with `REFERENCE_SEED`, of shape (frames,).

    Returns:
        "purity", the mean over three seeds of k-means; "purity_by_chance", of the first seed's clusters in random order;
        number of "units"; number of "frames".
    """
    started = [frame_units(frames, seed) for seed in SEEDS]
    shuffled = np.random.default_rng(REFERENCE_SEED).permutation(started[0])
    return {
        "purity": float(np.mean([purity(units, teacher_units) for units in started])),
        "purity_by_chance": purity(shuffled, teacher_units),
        "units": int(teacher_units.max()) + 1,
        "frames": len(frames),
    }
