"""How fast training goes, and the memory that it takes."""

from __future__ import annotations

import resource
import sys
import time

import torch
from transformers import TrainingArguments

from ..modeling.size import SAMPLING_RATE


# What getrusage counts in: bytes on macOS, else KiB.
BYTES_PER_UNIT = 1 if sys.platform == "darwin" else 1024


class Throughput:
    """Counts the audio of the steps between two log entries.

    Args:
        args: Of the Trainer.
    """

    def __init__(self, args: TrainingArguments):
        self.args = args
        self._step: int | None = None
        self._seconds_of_audio = 0.0
        self._start = time.perf_counter()

    def add(self, input_values: torch.Tensor) -> None:
        """Counts a batch of shape (batch, samples)."""
        self._seconds_of_audio += input_values.numel() / SAMPLING_RATE * self.args.world_size

    def read(self, step: int) -> dict[str, float]:
        """What was seen since the last call, and starts anew.

        Returns:
            "steps_per_second" (from the second call on), "audio_seconds_per_second" over all processes, and
            "peak_memory_gib" of this process: on a GPU what torch allocated there, else resident memory.
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
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_PER_UNIT / 2**30
