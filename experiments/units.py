"""How much of the teacher's division of speech into units a student keeps: k-means on frames, and purity."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics.cluster import contingency_matrix
from sklearn.preprocessing import StandardScaler


# HuBERT's number of units in its first iteration (arXiv 2106.07447).
NUM_UNITS = 100
# With fewer frames than that for each unit, purity measures chance.
FRAMES_PER_UNIT = 50
REFERENCE_SEED = 0
# Purity depends a little on where k-means starts; none of these starts is the reference's own.
SEEDS = (1, 2, 3)


def frame_units(frames: np.ndarray, seed: int) -> np.ndarray:
    """K-means units of frames, each dimension standardised.

    Args:
        frames: Of shape (frames, hidden size).
        seed: Of the start.

    Returns:
        The number of its unit for each frame, of shape (frames,): 100 units, or one for 50 frames where there are
        fewer than 5,000.
    """
    num_units = max(2, min(NUM_UNITS, len(frames) // FRAMES_PER_UNIT))
    clusters = MiniBatchKMeans(num_units, batch_size=4096, n_init=3, random_state=seed)
    return clusters.fit_predict(StandardScaler().fit_transform(frames))


def purity(units: np.ndarray, reference: np.ndarray) -> float:
    """The share of frames whose reference label is the most frequent one of their unit.

    Args:
        units: A number for each frame, of shape (frames,).
        reference: A label for each frame, of shape (frames,).

    Raises:
        ValueError: If they differ in length.
    """
    if len(units) != len(reference):
        raise ValueError(
            f"There are {len(units)} units and {len(reference)} reference labels; give one of each for every frame."
        )
    return float(contingency_matrix(reference, units).max(axis=0).sum() / len(units))


def unit_purity(frames: np.ndarray, teacher_units: np.ndarray) -> dict:
    """Purity of a student's units by the teacher's units of the same frames.

    The audio at hand has no phone labels, and the word of a Speech Commands clip says little about a single frame: so
    the reference is the teacher's own units, and this is a measure of likeness to the teacher. A teacher scores below
    1 against itself, because k-means starts elsewhere: that is the ceiling.

    Args:
        frames: Last hidden states, of shape (frames, hidden size).
        teacher_units: `frame_units` of the teacher at `REFERENCE_SEED`, of shape (frames,).

    Returns:
        "purity", the mean over three starts of k-means; "purity_by_chance", of the same units in random order;
        "units"; "frames".
    """
    started = [frame_units(frames, seed) for seed in SEEDS]
    shuffled = np.random.default_rng(REFERENCE_SEED).permutation(started[0])
    return {
        "purity": float(np.mean([purity(units, teacher_units) for units in started])),
        "purity_by_chance": purity(shuffled, teacher_units),
        "units": int(teacher_units.max()) + 1,
        "frames": len(frames),
    }
