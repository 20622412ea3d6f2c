"""Inputs of a pruning run, for its report and card."""

from __future__ import annotations

from dataclasses import dataclass

from ..pruning.arguments import GATES
from .run_report import RunInputs


@dataclass
class Calibration:
    """Audio that statistics were taken from.

    Attributes:
        num_crops: Number of crops.
        seconds: Length of a crop in seconds.
        num_clips: Number of training clips that the crops were cut from.
        num_too_short: Number of training clips that are shorter than a crop.
    """

    num_crops: int
    seconds: float
    num_clips: int
    num_too_short: int


@dataclass(kw_only=True)
class PruningInputs(RunInputs):
    """Inputs of a pruning run.

    Attributes:
        method: Pruning method: "gates", "one_shot" or "magnitude".
        teacher_name: Folder or Hub id of the teacher, as given by the user; `None` without distillation.
        objective: Training objective of the student: "distillation", "task" or "both".
        units: Kinds of units that were pruned.
        steps: Number of optimizer steps of each stage; empty for a run without training.
        seed: Random seed of the run.
        calibration: Audio of the statistics; `None` for a method without them.
        stock_shape: Whether the shape was restricted to what a stock class can express.
        has_projections: Whether training compared hidden states behind learned projections, which are not part of the
            result.
        gate_start: Initial order of the gates: "weights", "rotated" or "one_shot"; `None` without gates.
        refit: Whether the pruned model was refitted after gates or magnitude.
    """

    method: str = GATES

    teacher_name: str | None
    objective: str
    units: list[str]
    steps: dict[str, int]
    seed: int
    calibration: Calibration | None = None
    stock_shape: bool = False
    has_projections: bool = False
    gate_start: str | None = None
    refit: bool = False

    @property
    def loss_name(self) -> str:
        """Name of the loss that the student is trained with."""
        distillation = f"Distillation loss{' behind the learned projections' if self.has_projections else ''}"
        return {"distillation": distillation, "task": "Task loss", "both": f"{distillation}, plus task loss"}[
            self.objective
        ]

    @property
    def reference(self) -> str:
        """Model that the pruned one's hidden states are compared with: "teacher", or without one "dense model"."""
        return "dense model" if self.teacher_name is None else "teacher"
