"""Streamed speech: clips are read while training, so that it starts at once and the data set need not fit on the disk."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from datasets import Audio, Dataset, Features, IterableDataset, Value
from datasets.distributed import split_dataset_by_node
from transformers.utils import logging

from .audio import AudioError, EncodedAudio
from .crops import CropReader


logger = logging.get_logger(__name__)

# A larger buffer makes the order more random and keeps more undecoded audio in memory.
SHUFFLE_BUFFER = 1000


@dataclass(frozen=True)
class SpeechStream:
    """A stream of clips to train on, and which of its clips are left out.

    Attributes:
        clips: Undecoded clips in a column `audio`.
        min_seconds: Length in seconds below which clips are left out.
        held_out: Digests (see `clip_digest`) of the clips that are kept for evaluation and left out here.
        shuffle_buffer: Number of clips that are read ahead; the next clip is drawn from them.
    """

    clips: IterableDataset
    min_seconds: float
    held_out: frozenset[bytes] = frozenset()
    shuffle_buffer: int = SHUFFLE_BUFFER

    def hold_out(self, count: int) -> tuple[SpeechStream, Dataset]:
        """Takes the first clips of the stream for evaluation.

        They are recognised by their digests, because positions in a stream change when its shards are split over
        processes.

        Args:
            count: Number of clips, 1 or more.

        Returns:
            The stream without these clips, and the clips.

        Raises:
            ValueError: If the count is below 1, or the stream has no further clip to train on.
        """
        if count < 1:
            raise ValueError(f"count is {count}; it must be 1 or more.")
        clips = list(self.clips.select_columns("audio").take(count + 1))
        if len(clips) <= count:
            raise ValueError(
                f"{count} clips cannot be held out of a stream of {len(clips)}: none would be left to train on. Hold "
                "out fewer."
            )
        clips = clips[:count]
        held_out = frozenset(clip_digest(clip["audio"]) for clip in clips)
        # The types are given, because they cannot be inferred from a column of missing paths only. They are not given
        # as `Audio`, which would need torchcodec.
        features = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}})
        dataset = Dataset.from_list(clips, features=features).cast_column("audio", Audio(decode=False))
        return replace(self, held_out=self.held_out | held_out), dataset


def clip_digest(audio: EncodedAudio) -> bytes:
    """Hash of a clip's bytes, or of its path if it has no bytes."""
    content = audio["bytes"]
    return hashlib.blake2b(str(audio["path"]).encode() if content is None else content, digest_size=16).digest()


class StreamedClips(torch.utils.data.IterableDataset):
    """Endless clips of a stream in shuffled order, each with a random position for `CropCollator` to crop at.

    Clips are split over ranks and workers. Order and positions are functions of the seed, the rank and the worker. If
    there are fewer shards than ranks, each rank reads all shards and uses its part of the clips. If there are fewer
    shards than workers, some workers stay idle.

    Attributes:
        batches_read: Number of micro-batches that this rank read before the run was interrupted; they are read again
            and dropped. With several workers, the batches after them come in the order of the uninterrupted run only if
            this is a multiple of the number of workers.

    Args:
        stream: Stream of clips to train on.
        reader: How clips are decoded: sampling rate and length of the crops.
        batch_size: Clips per micro-batch.
        seed: Random seed of order, positions and lengths, 0 or more.
        rank: Rank of this process, from 0 to `num_ranks` - 1.
        num_ranks: Number of processes.
    """

    def __init__(
        self,
        stream: SpeechStream,
        *,
        reader: CropReader,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
    ):
        super().__init__()
        self.stream = stream
        # One shard at a time: for several, datasets starts threads and waits five seconds for them in every pass.
        clips = stream.clips.select_columns("audio").shuffle(
            seed=seed, buffer_size=stream.shuffle_buffer, max_buffer_input_shards=1
        )
        self.clips = split_dataset_by_node(clips, rank, num_ranks)
        self.reader = reader
        self.batch_size = batch_size
        self.seed, self.rank = seed, rank
        self.batches_read = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields clips without end.

        Yields:
            Items as `CropReader.read` returns them.

        Raises:
            AudioError: If no clip of a whole pass over the stream can be used.
        """
        info = torch.utils.data.get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info is not None else (0, 1)
        # The data loader takes one batch from each worker in turn.
        own_batches = max(0, -(-(self.batches_read - worker) // num_workers))
        yield from islice(self._items(worker), own_batches * self.batch_size, None)

    def _items(self, worker: int) -> Iterator[dict[str, Any]]:
        # A copy, because workers share the epoch of the original and do not finish a pass at the same time.
        clips, epoch = copy.deepcopy(self.clips), 0
        min_samples = self.stream.min_seconds * self.reader.sampling_rate
        positions = np.random.default_rng((self.seed, self.rank, worker))
        lengths = np.random.default_rng((self.seed, self.rank, worker, 1))
        # A clip that cannot be used leaves its position and length to the next one.
        position, length = positions.random(), lengths.random()
        while True:
            clips.set_epoch(epoch)
            num_clips = num_used = 0
            for clip in clips:
                num_clips += 1
                if clip_digest(clip["audio"]) in self.stream.held_out:
                    continue
                try:
                    item = self.reader.read(clip["audio"], position, length)
                except AudioError as error:
                    logger.warning(f"Taking the next clip instead: {error}")
                    continue
                if item["num_samples"] >= min_samples:
                    num_used += 1
                    position, length = positions.random(), lengths.random()
                    yield item
            if num_clips == 0:
                # All shards are read by the other workers; datasets has warned about that.
                return
            if num_used == 0:
                raise AudioError(
                    f"Not one of the {num_clips} clips that worker {worker} of rank {self.rank} reads can be used: they "
                    f"are held out, cannot be decoded, or are shorter than {self.stream.min_seconds:g} s."
                )
            epoch += 1
