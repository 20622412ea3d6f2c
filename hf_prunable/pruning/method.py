"""What a pruning method is to a run: from a model and targets to a student at each target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from ..modeling.pretrained import PrunableModelMixin
from ..runtime.training_plan import Stage
from .arguments import PruningArguments, PruningTrainingArguments
from .stages import TrainingStages
from .student import Student


class PruningMethod(ABC):
    """Pruning method of a run.

    A run calls `prepare_`, `read_input` and `students`, in this order. With several processes, all of them make these calls.

    Args:
        options: Options for the model and its targets.

    Attributes:
        targets: Fractions of the dense encoder to remove, in ascending order.
        measure: Measure of the targets.

    Raises:
        ValueError: If targets are given in parameters and in multiply-accumulates.
    """

    # Steps of the training that follows, if the user gives none.
    default_final_steps: ClassVar[int] = 0

    def __init__(self, options: PruningArguments):
        self.options = options
        self.targets, self.measure = options.targets()

    @abstractmethod
    def prepare_(self, model: PrunableModelMixin) -> None:
        """Checks model and targets, and changes the model where the method needs it.

        Args:
            model: Dense or pruned model without gates.

        Raises:
            ValueError: If the method cannot prune the model to a target.
        """

    @abstractmethod
    def first_stage(self, args: PruningTrainingArguments) -> Stage:
        """Describes the stage of the method for the plan of the run; called after `prepare_`.

        Args:
            args: Training arguments.
        """

    def read_input(self, stages: TrainingStages) -> None:  # noqa: B027
        """Reads what the method needs besides the model; by default, nothing.

        Args:
            stages: Stages of the run, whose initial student is a prepared model.

        Raises:
            ValueError: If the data or the teacher do not fit the method.
        """

    @abstractmethod
    def students(self, stages: TrainingStages) -> Iterator[tuple[float, Student]]:
        """Yields each target with the student that was pruned to it.

        Args:
            stages: Stages of the run, whose initial student is a prepared model.
        """
