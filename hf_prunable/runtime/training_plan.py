"""The plan of a run, shown before training starts, and estimates of the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging


logger = logging.get_logger(__name__)

# The first estimate comes after so many steps or seconds, whichever is first; others at these fractions of a stage.
FIRST_STEPS, FIRST_SECONDS = 20, 30.0
FRACTIONS = (0.1, 0.25, 0.5, 0.75)
# Seconds between two estimates, at least.
PAUSE_SECONDS = 30.0

NO_GPU = (
    "No GPU was found, and training on a CPU is slow: start with a small model and few steps, and see the estimate after "
    "the first steps. Add --use_cpu to say that this is intended."
)


@dataclass(frozen=True)
class Stage:
    """A part of a run in which a model is trained.

    Attributes:
        name: What the stage does, such as "train the pruned model".
        num_steps: Optimizer steps.
    """

    name: str
    num_steps: int


@dataclass(frozen=True)
class Audio:
    """The clips of a run.

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
    """What a run is going to do.

    Attributes:
        stages: Stages in their order, by a name of their own, such as that of their folder.
        args: Arguments of the Trainer, with the device and the batch size.
        audio: Clips to train and evaluate on.
        output_dir: Folder of the result.
        preparation: What is computed before the first stage; "" for nothing that takes long.
    """

    stages: Mapping[str, Stage]
    args: TrainingArguments
    audio: Audio
    output_dir: str
    preparation: str = ""

    def describe(self) -> str:
        """Returns the plan as text of several lines."""
        args = self.args
        clips = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        lines = [f"Device: {describe_device(args)}"]
        if self.preparation:
            lines.append(f"First:  {self.preparation}")
        lines += [
            f"Stage {number}: {stage.name}, {stage.num_steps:,} steps of {clips} clips"
            for number, stage in enumerate(self.stages.values(), start=1)
        ]
        lines += [f"Audio:  {self.audio.describe()}", f"Output: {self.output_dir}"]
        if args.device.type == "cpu" and not args.use_cpu:
            lines.append(NO_GPU)
        return "\n".join(lines)

    def callback(self, name: str) -> TimeEstimate:
        """Returns a callback that announces a stage and estimates the time that is left.

        Args:
            name: Name of the stage in `stages`.
        """
        return TimeEstimate(list(self.stages.values()), list(self.stages).index(name))


class TimeEstimate(TrainerCallback):
    """Announces a stage when it begins, and estimates the time that the run will still take.

    Args:
        stages: Stages of the run.
        stage_idx: Index of the stage that is trained.
        clock: Seconds since any fixed moment.
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
        """Measures the time of the steps, and shows an estimate when one is due."""
        now = self._clock()
        if not self._start:
            # The first step includes what is set up once, such as worker processes and compiled kernels.
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
    """Describes the device that is trained on, and how many processes there are.

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
