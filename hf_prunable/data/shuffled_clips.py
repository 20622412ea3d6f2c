"""Clips in shuffled order for training: each order is a function of the seed alone."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers.utils import logging

from .audio import AudioError, clip_name, undecoded_audio
from .crops import CropReader


logger = logging.get_logger(__name__)

# As in the Trainer's `group_by_length`: enough that the clips of a batch are of similar length, and few enough that the
# order stays random.
BATCHES_PER_BUCKET = 50
# Share of the length in its header below which a labelled clip is taken to be cut, so that its label no longer fits.
MIN_DECODED_SHARE = 0.9


@dataclasses.dataclass(frozen=True)
class LengthGrouping:
    """Groups clips of similar length into micro-batches, which come in random order.

    The shuffled clips are cut into buckets of `BATCHES_PER_BUCKET` micro-batches, and each bucket is sorted by length.

    Attributes:
        batch_size: Clips per micro-batch, 1 or more.
        max_seconds: Length in seconds from which all clips count as equally long, such as the length of the crops.
    """

    batch_size: int
    max_seconds: float = float("inf")

    def regroup(
        self, order: np.ndarray, seconds: np.ndarray, num_before: int, generator: np.random.Generator
    ) -> np.ndarray:
        """Regroups the clips of one pass over the data set.

        Args:
            order: Shuffled clip indices of the pass, of shape (clips,).
            seconds: Length of each clip in seconds, by clip index, of shape (clips,).
            num_before: Number of clips in the passes before. A pass may begin and end within a micro-batch.
            generator: Source of the order of the micro-batches.

        Returns:
            The clip indices in their new order, of shape (clips,).
        """
        seconds = np.minimum(seconds, self.max_seconds)
        bucket_size = BATCHES_PER_BUCKET * self.batch_size
        order = np.concatenate(
            [
                bucket[np.argsort(seconds[bucket], kind="stable")]
                for bucket in np.split(order, range(bucket_size, len(order), bucket_size))
            ]
        )
        # Clips that complete the last micro-batch of the pass before.
        num_first = min(-num_before % self.batch_size, len(order))
        num_batches = (len(order) - num_first) // self.batch_size
        first, whole, rest = np.split(order, [num_first, num_first + num_batches * self.batch_size])
        batches = whole.reshape(num_batches, self.batch_size)[generator.permutation(num_batches)]
        return np.concatenate([first, batches.flatten(), rest])


class ShuffledClips(torch.utils.data.Dataset):
    """Clips in shuffled order, each with a random position and length for `CropCollator` to crop.

    Order, positions and lengths are functions of the seed and the index alone, not of a process's random state, so that
    several ranks and workers and a resumed run agree. Read the items with a sequential sampler: they are already
    shuffled, in another order for each pass over the clips.

    Args:
        dataset: Clips in a column `audio`, and their lengths in a column `seconds`, which `length_grouping` needs.
        num_samples: Number of items; if larger than the number of clips, the clips are repeated in several passes.
        reader: How clips are decoded: sampling rate, length of the crops, minimum length.
        seed: Random seed of order and positions, 0 or more.
        label_column: Name of the column with labels, which each item then holds; `None` for items without label.
        length_grouping: How clips of similar length share micro-batches; by default they do not.

    Raises:
        ValueError: If there is no clip or the seed is negative.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        num_samples: int,
        reader: CropReader,
        seed: int = 0,
        label_column: str | None = None,
        length_grouping: LengthGrouping | None = None,
    ):
        if len(dataset) == 0:
            raise ValueError("There are no clips to shuffle: the data set is empty. Give one with at least one clip.")
        if seed < 0:
            raise ValueError(f"seed is {seed}; it must be 0 or more.")
        self.clips = undecoded_audio(dataset)
        self.num_samples = num_samples
        self.reader = reader
        self.seed = seed
        self.label_column = label_column
        self.labels = None if label_column is None else dataset.select_columns(label_column).with_format(None)
        self.length_grouping = length_grouping
        has_seconds = "seconds" in dataset.column_names
        self._seconds = np.asarray(dataset["seconds"][:] if has_seconds else [0.0] * len(dataset))
        # The order of one pass is kept, because items are mostly read in turn.
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Decodes one clip; one that cannot be decoded or is too short is replaced by the next one, with a warning.

        Args:
            index: Index of the item, from 0 to `num_samples` - 1.

        Returns:
            The values of `CropReader.read`; and `label`: the clip's label, if there is a `label_column`.

        Raises:
            AudioError: If none of the clips can be used.
        """
        index = operator.index(index)
        if not 0 <= index < self.num_samples:
            raise IndexError(f"index is {index}; it must be 0 to {self.num_samples - 1}.")
        epoch, place = divmod(index, len(self.clips))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._order_of(epoch)
        position, length = np.random.default_rng((self.seed, index)).random(2).tolist()
        for offset in range(len(self.clips)):
            clip = int(self._order[(place + offset) % len(self.clips)])
            try:
                return self._read(clip, position, length)
            except AudioError as error:
                logger.warning(f"Taking the next clip instead: {error}")
        raise AudioError(f"Not one of the {len(self.clips)} clips can be decoded.")

    def _read(self, clip: int, position: float, length: float) -> dict[str, Any]:
        audio = self.clips[clip]["audio"]
        item = self.reader.read(audio, position, length)
        if self.labels is None:
            return item
        seconds = item["num_samples"] / self.reader.sampling_rate
        if seconds < MIN_DECODED_SHARE * self._seconds[clip]:
            raise AudioError(
                f"{clip_name(audio, clip)}: has {seconds:.2f} s of the {self._seconds[clip]:.2f} s in its header"
            )
        return {**item, "label": self.labels[clip][self.label_column]}

    def _order_of(self, epoch: int) -> np.ndarray:
        """Clip indices of one pass. The 1 in the seed keeps these draws apart from those of the crop positions."""
        generator = np.random.default_rng((self.seed, epoch, 1))
        order = generator.permutation(len(self.clips))
        if self.length_grouping is None:
            return order
        return self.length_grouping.regroup(order, self._seconds, epoch * len(order), generator)
