"""The time that training takes, without evaluation and saving."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState


class TrainingClock(TrainerCallback, ExportableState):
    """Measures the time of the training steps, including data loading, without evaluation and saving.

    Its state is saved in checkpoints, so that the time of a resumed run includes that before the interruption.

    Args:
        seconds: Training time so far, in seconds.
    """

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds
        self._start = 0.0

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Adds the time since the last event: one step with the loading of its batch."""
        now = time.perf_counter()
        self.seconds += now - self._start
        self._start = now

    # The time of an evaluation or a save does not count: the clock starts anew when it ends.
    on_evaluate = on_save = on_epoch_begin

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint stores, in transformers' form."""
        return {"args": {"seconds": self.seconds}, "attributes": {}}
