"""The time that training takes, without evaluation and checkpoints."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState


class TrainingClock(TrainerCallback, ExportableState):
    """Counts the seconds of training, without evaluation and checkpoints, over all parts of a run that is resumed.

    Args:
        seconds: Counted so far.
    """

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds
        self._start = 0.0

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """Starts counting."""
        self._start = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Counts a step and the reading of its clips."""
        now = time.perf_counter()
        self.seconds += now - self._start
        self._start = now

    # What comes between two steps does not count.
    on_evaluate = on_save = on_epoch_begin

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {"seconds": self.seconds}, "attributes": {}}
