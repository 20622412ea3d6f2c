"""K-means units of a teacher's frames, and how many frames of a student fall into the same unit."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


# Number of clusters of HuBERT's first iteration (arXiv 2106.07447).
NUM_UNITS = 100
# With fewer frames per cluster, the clusters follow single frames.
FRAMES_PER_UNIT = 50
KMEANS_SEED = 0


class TeacherUnits:
    """Clusters of a teacher's frames by k-means, after each dimension is standardized.

    There are 100 clusters, or one for every 50 frames if there are fewer than 5,000 frames.

    Args:
        frames: Hidden states of the teacher, of shape (frames, hidden size).

    Attributes:
        units: Cluster index of each frame, of shape (frames,).
        num_units: Number of clusters.
    """

    def __init__(self, frames: np.ndarray):
        self.num_units = max(2, min(NUM_UNITS, len(frames) // FRAMES_PER_UNIT))
        clusters = MiniBatchKMeans(self.num_units, batch_size=4096, n_init=3, random_state=KMEANS_SEED)
        self._clustering = make_pipeline(StandardScaler(), clusters).fit(frames)
        self.units = self._clustering.predict(frames)

    @property
    def agreement_by_chance(self) -> float:
        """Expected agreement of the teacher's units with themselves in random order."""
        return float(np.square(np.bincount(self.units) / len(self.units)).sum())

    def is_same(self, frames: np.ndarray) -> np.ndarray:
        """Assigns frames to the teacher's clusters and compares them with the teacher's.

        Args:
            frames: Hidden states of the same audio, of shape (frames, hidden size).

        Returns:
            Whether each frame has the teacher's unit, of shape (frames,).
        """
        return self._clustering.predict(frames) == self.units
