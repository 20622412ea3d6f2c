"""Plan of a run, which is shown before training, and estimates of the remaining time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging


logger = logging.get_logger(__name__)

# Steps or seconds after which the first estimate is shown, whichever comes first.
FIRST_STEPS, FIRST_SECONDS = 20, 30.0
# Fractions of a stage after which it is updated, and the minimum time between two estimates in seconds.
FRACTIONS = (0.1, 0.25, 0.5, 0.75)
PAUSE_SECONDS = 30.0

NO_GPU = (
    "No GPU was found, and training on a CPU is slow: start with a small model and few steps, and see the estimate after "
    "the first steps. Add --use_cpu to say that this is intended."
)


@dataclass(frozen=True)
class Stage:
    """Stage of a run.

    Attributes:
        name: Short description, such as "train the pruned model".
        num_steps: Number of optimizer steps; 0 for a stage without training.
    """

    name: str
    num_steps: int = 0


@dataclass(frozen=True)
class Audio:
    """Audio of a run.

    Attributes:
        train_seconds: Duration of each training clip in seconds; `None` for a stream.
        num_held_out: Number of clips for evaluation.
    """

    train_seconds: Sequence[float] | None
    num_held_out: int

    def describe(self) -> str:
        """Returns the number of clips and the hours of audio."""
        if self.train_seconds is None:
            training = "a stream of clips for training"
        else:
            hours = format_duration(sum(self.train_seconds))
            training = f"{len(self.train_seconds):,} clips for training ({hours})"
        return f"{training}, {self.num_held_out:,} for evaluation"


@dataclass(frozen=True)
class TrainingPlan:
    """Device, stages, audio and output of a run.

    Attributes:
        stages: Stages in their order, by a key such as the name of their folder.
        args: Arguments of the Trainer.
        audio: Audio for training and evaluation.
        output_dir: Folder of the result.
    """

    stages: Mapping[str, Stage]
    args: TrainingArguments
    audio: Audio
    output_dir: str

    def describe(self) -> str:
        """Returns the plan as text of several lines."""
        args = self.args
        clips = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        lines = [f"Device: {describe_device(args)}"]
        for number, stage in enumerate(self.stages.values(), start=1):
            steps = f", {stage.num_steps:,} steps of {clips} clips" if stage.num_steps else ""
            lines.append(f"Stage {number}: {stage.name}{steps}")
        lines += [f"Audio:  {self.audio.describe()}", f"Output: {self.output_dir}"]
        is_trained = any(stage.num_steps for stage in self.stages.values())
        if is_trained and args.device.type == "cpu" and not args.use_cpu:
            lines.append(NO_GPU)
        return "\n".join(lines)

    def callback(self, key: str) -> TimeEstimate:
        """Returns a callback that announces a stage and estimates the remaining time.

        Args:
            key: Key of the stage in `stages`.
        """
        return TimeEstimate(list(self.stages.values()), list(self.stages).index(key))


class TimeEstimate(TrainerCallback):
    """Announces a stage when it begins, and estimates the remaining time of the stage and of the run.

    Args:
        stages: Stages of the run.
        stage_idx: Index of the stage that is trained.
        clock: Function that returns the time in seconds.
    """

    def __init__(self, stages: Sequence[Stage], stage_idx: int, clock: Callable[[], float] = time.monotonic):
        self.stages, self.stage_idx, self._clock = stages, stage_idx, clock
        self._first_step, self._start, self._last_shown = 0, 0.0, 0.0
        self._num_shown = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Announces the stage."""
        if state.is_world_process_zero:
            stage = self.stages[self.stage_idx]
            begun = f", from step {state.global_step:,} on" if state.global_step else ""
            logger.info(
                f"Stage {self.stage_idx + 1} of {len(self.stages)}: {stage.name}, {state.max_steps:,} steps{begun}."
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measures the time per step, and shows an estimate if one is due."""
        now = self._clock()
        if not self._start:
            # The first step is not counted: it starts worker processes and compiles kernels.
            self._first_step, self._start = state.global_step, now
            return
        steps, steps_left = state.global_step - self._first_step, state.max_steps - state.global_step
        if state.is_world_process_zero and steps_left > 0 and self._is_due(state, steps, now):
            self._last_shown = now
            self._show((now - self._start) / steps, steps_left)

    def _is_due(self, state: TrainerState, steps: int, now: float) -> bool:
        if not self._last_shown:
            return steps >= FIRST_STEPS or now - self._start >= FIRST_SECONDS
        if now - self._last_shown < PAUSE_SECONDS:
            return False
        passed = sum(state.global_step >= fraction * state.max_steps for fraction in FRACTIONS)
        is_due, self._num_shown = passed > self._num_shown, max(passed, self._num_shown)
        return is_due

    def _show(self, seconds_per_step: float, steps_left: int) -> None:
        parts = [f"about {format_duration(seconds_per_step * steps_left)} left in this stage"]
        later = sum(stage.num_steps for stage in self.stages[self.stage_idx + 1 :])
        if later:
            parts.append(f"{format_duration(seconds_per_step * later)} in those after it at the same speed")
            parts.append(f"{format_duration(seconds_per_step * (steps_left + later))} in all")
        logger.info(f"{seconds_per_step:.2f} s per step: {', '.join(parts)}.")


def format_duration(seconds: float) -> str:
    """Formats a duration in its two largest units, such as "2 h 5 min" or "40 s".

    Args:
        seconds: Duration in seconds.
    """
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} days {hours % 24} h"


def describe_device(args: TrainingArguments) -> str:
    """Describes the training device and the number of processes.

    Args:
        args: Arguments of the Trainer.
    """
    if args.device.type == "cuda":
        name = torch.cuda.get_device_name(args.device)
    elif args.device.type == "cpu":
        threads = torch.get_num_threads()
        name = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    else:
        name = args.device.type
    return f"{args.world_size} processes, each on {name}" if args.world_size > 1 else name
