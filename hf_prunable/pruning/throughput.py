"""Speed and memory use of training."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import TrainingArguments


# Unit of getrusage's `ru_maxrss` in bytes: 1 on macOS, else a KiB.
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Throughput:
    """Measures training speed between two log entries.

    Args:
        args: Training arguments, which name the device and the number of processes.
        sampling_rate: Sampling rate of the audio in Hz.
    """

    def __init__(self, args: TrainingArguments, sampling_rate: int):
        self.args = args
        self.sampling_rate = sampling_rate
        self._step: int | None = None
        self._seconds_of_audio = 0.0
        self._start = time.perf_counter()

    def add(self, input_values: torch.Tensor) -> None:
        """Counts the audio of a micro-batch, of shape (batch, samples), once for each process."""
        self._seconds_of_audio += input_values.numel() / self.sampling_rate * self.args.world_size

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out the time of a block that does not train."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._start += time.perf_counter() - begin

    def read(self, step: int) -> dict[str, float]:
        """Computes the speed since the last call and starts a new interval.

        Args:
            step: Number of optimizer steps so far.

        Returns:
            "audio_seconds_per_second" over all processes; "peak_memory_gib" of this process, which is the memory that
            torch allocated on a GPU, else resident memory; and from the second call on "steps_per_second".
        """
        now = time.perf_counter()
        passed = now - self._start
        values = {"audio_seconds_per_second": self._seconds_of_audio / passed, "peak_memory_gib": self._peak_memory()}
        if self._step is not None:
            values["steps_per_second"] = (step - self._step) / passed
        self._step, self._seconds_of_audio, self._start = step, 0.0, now
        return values

    def _peak_memory(self) -> float:
        if self.args.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.args.device) / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT / 2**30
