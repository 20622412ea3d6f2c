"""Options for what a student learns from: its teacher, labels or both."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

from .distillation import LOSSES
from .projections import AUTO, EACH, SHARED


# Whether distillation and a task's loss take part, by the name of the objective.
OBJECTIVES = {"distillation": (True, False), "task": (False, True), "both": (True, True)}


@dataclass
class ObjectiveArguments:
    """Options for the losses that the student is trained with.

    Raises:
        ValueError: If the objective is unknown or does not fit the task, the shortest crops are out of range, or options
            for projections contradict each other.
    """

    objective: str = field(
        default="distillation",
        metadata={"help": "Loss: 'distillation', 'task' (needs labels) or 'both'."},
    )
    crop_seconds: float = field(
        default=5.0, metadata={"help": "Length of crops in seconds; clips with labels are not cropped."}
    )
    shortest_crop_seconds: float | None = field(
        default=None,
        metadata={
            "help": "Length of the shortest crops to train on: each batch has a random length from it to `crop_seconds`; "
            "by default all crops are equally long."
        },
    )
    distillation_layers: list[int] | None = field(
        default=None, metadata={"help": "Student layers to distill; by default 0 and one at each third of the depth."}
    )
    distillation_form: str = field(
        default="layers",
        metadata={
            "help": f"{' or '.join(map(repr, LOSSES))}: each layer is compared with the teacher's, or the last one "
            "predicts all of them."
        },
    )
    distillation_projections: str = field(
        default=AUTO,
        metadata={"help": "Maps to the teacher: 'none', 'shared', 'each'; 'auto': by size."},
    )
    share_projections: bool | None = field(
        default=None,
        metadata={
            "help": "Deprecated, until version 0.3: `distillation_projections` 'shared' if true, 'each' if false."
        },
    )
    task: str | None = field(
        default=None, metadata={"help": "Task of an objective with labels: 'ctc' or 'classification'."}
    )
    label_column: str | None = field(
        default=None,
        metadata={"help": "Column of the labels; by default 'text' for CTC and 'label' for classification."},
    )
    task_weight: float = field(
        default=1.0, metadata={"help": "Weight of the task's loss; that of the distillation loss is 1."}
    )

    def __post_init__(self):
        if self.objective not in OBJECTIVES:
            raise ValueError(f"`objective` is {self.objective!r}; choose from {', '.join(map(repr, OBJECTIVES))}.")
        self._take_deprecated_projections()
        if self.has_task != (self.task is not None):
            raise ValueError(
                f"`objective` is {self.objective!r} and `task` is {self.task!r}. Give a task, 'ctc' or 'classification', "
                "with the objectives 'task' and 'both', and none with 'distillation'."
            )
        self._check_shortest_crops()

    def _check_shortest_crops(self) -> None:
        shortest = self.shortest_crop_seconds
        if shortest is None:
            return
        if self.has_task:
            raise ValueError(
                f"`shortest_crop_seconds` is {shortest}, but clips with labels are not cropped. Leave it out, or choose the "
                "objective 'distillation'."
            )
        if not 0 < shortest <= self.crop_seconds:
            raise ValueError(
                f"`shortest_crop_seconds` is {shortest}; it must be above 0 and at most `crop_seconds`, {self.crop_seconds}."
            )

    def _take_deprecated_projections(self) -> None:
        if self.share_projections is None:
            return
        replacement = SHARED if self.share_projections else EACH
        if self.distillation_projections not in (AUTO, replacement):
            raise ValueError(
                f"`share_projections` is {self.share_projections}, which is `distillation_projections` {replacement!r}, but "
                f"that is {self.distillation_projections!r}. Leave `share_projections` out."
            )
        warnings.warn(
            f"`share_projections` goes in version 0.3. Give `distillation_projections` {replacement!r} instead.",
            FutureWarning,
            stacklevel=4,
        )
        self.distillation_projections, self.share_projections = replacement, None

    @property
    def has_distillation(self) -> bool:
        """Whether the loss has a distillation part."""
        return OBJECTIVES[self.objective][0]

    @property
    def has_task(self) -> bool:
        """Whether the loss has a part that is computed from labels."""
        return OBJECTIVES[self.objective][1]
