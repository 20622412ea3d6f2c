"""Speech that is read while it is trained on: training starts at once, and the data set need not fit on the disk."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from datasets import Audio, Dataset, Features, IterableDataset, Value
from datasets.distributed import split_dataset_by_node
from transformers.utils import logging

from .audio import AudioError, decode_audio


logger = logging.get_logger(__name__)

# Clips that the order is drawn from. Larger is more random, and keeps more undecoded audio in memory.
SHUFFLE_BUFFER = 1000


@dataclass(frozen=True)
class SpeechStream:
    """A stream to train on, and what of it is not to be trained on.

    Attributes:
        clips: With an `audio` column of undecoded clips.
        min_seconds: Shorter clips are left out.
        held_out: Digests of clips for evaluation, see `clip_digest`.
    """

    clips: IterableDataset
    min_seconds: float
    held_out: frozenset[bytes] = frozenset()

    def hold_out(self, count: int) -> tuple[SpeechStream, Dataset]:
        """Takes the first clips for evaluation.

        By their digests, because places in a stream are not the same when its shards are split over processes.

        Args:
            count: How many, 1 or more.

        Returns:
            The stream without them, and the clips.

        Raises:
            ValueError: If the count is out of range or the stream has no more clips than that.
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
        # Their form is told, because a column of nothing but missing paths has none; and not as `Audio`, which would ask
        # for torchcodec.
        form = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}})
        dataset = Dataset.from_list(clips, features=form).cast_column("audio", Audio(decode=False))
        return replace(self, held_out=self.held_out | held_out), dataset


def clip_digest(audio: dict) -> bytes:
    """A hash of a clip's bytes, or of its path where it has no bytes."""
    content = audio["bytes"]
    return hashlib.blake2b(str(audio["path"]).encode() if content is None else content, digest_size=16).digest()


class StreamedCrops(torch.utils.data.IterableDataset):
    """Endless clips of a stream with a random place to crop, split over ranks and workers.

    Order and crops are a function of the seed, the rank and the worker. Where there are fewer shards than ranks, each
    rank reads all and keeps its part; where there are fewer than workers, some workers stay idle.

    Attributes:
        batches_read: Micro-batches that this rank has had before, in a run that goes on. They are read again and
            dropped. With several workers, the batches after them come in the order they had if their number is a
            multiple of the workers', and else in an order shifted by the rest.

    Args:
        stream: What to train on.
        sampling_rate: The rate of the waveforms, in Hz.
        batch_size: Clips of a micro-batch.
        seed: 0 or more.
        rank: Of this process.
        num_ranks: Number of processes.
        shuffle_buffer: Clips that the order is drawn from.
    """

    def __init__(
        self,
        stream: SpeechStream,
        *,
        sampling_rate: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        shuffle_buffer: int = SHUFFLE_BUFFER,
    ):
        super().__init__()
        self.stream = stream
        # One shard at a time: for several, datasets starts threads and waits five seconds for them in every pass.
        clips = stream.clips.select_columns("audio").shuffle(
            seed=seed, buffer_size=shuffle_buffer, max_buffer_input_shards=1
        )
        self.clips = split_dataset_by_node(clips, rank, num_ranks)
        self.sampling_rate = sampling_rate
        self.batch_size = batch_size
        self.seed, self.rank = seed, rank
        self.batches_read = 0

    def __iter__(self) -> Iterator[dict]:
        """Clips as `RandomCrops` gives them.

        Raises:
            AudioError: If a whole pass over the stream has no clip that can be used.
        """
        info = torch.utils.data.get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info is not None else (0, 1)
        # A loader takes a batch from each worker in turn.
        own_batches = max(0, -(-(self.batches_read - worker) // num_workers))
        generator = np.random.default_rng((self.seed, self.rank, worker))
        items = (
            {"waveform": waveform, "crop_position": float(generator.random())} for waveform in self._waveforms(worker)
        )
        yield from islice(items, own_batches * self.batch_size, None)

    def _waveforms(self, worker: int) -> Iterator[np.ndarray]:
        # A copy, because workers share the number of the epoch and do not come to its end together.
        clips, epoch = copy.deepcopy(self.clips), 0
        while True:
            clips.set_epoch(epoch)
            num_clips = num_used = 0
            for clip in clips:
                num_clips += 1
                if clip_digest(clip["audio"]) in self.stream.held_out:
                    continue
                try:
                    waveform = decode_audio(clip["audio"], self.sampling_rate)
                except AudioError as error:
                    logger.warning(f"Taking the next clip instead: {error}")
                    continue
                if len(waveform) >= self.stream.min_seconds * self.sampling_rate:
                    num_used += 1
                    yield waveform
            if num_clips == 0:
                # Its shards went to the other workers, as datasets has said by now.
                return
            if num_used == 0:
                raise AudioError(
                    f"Not one of the {num_clips} clips that worker {worker} of rank {self.rank} reads can be used: they "
                    f"are held out, cannot be decoded, or are shorter than {self.stream.min_seconds:g} s."
                )
            epoch += 1
