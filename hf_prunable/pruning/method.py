"""What a pruning method is to a run: from a model and targets to a student at each target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from ..data.calibration_audio import CalibrationAudio
from ..modeling.pretrained import PrunableModelMixin
from ..runtime.training_plan import Stage
from .arguments import PruningArguments, PruningTrainingArguments
from .stages import TrainingStages
from .student import Student
from .targets import Target, target_text


class PruningMethod(ABC):
    """Pruning method of a run.

    A run calls `prepare_`, `read_input` and `students`, in this order. With several processes, all of them make these calls.

    Args:
        options: Options for the model and its targets.

    Attributes:
        sparsities: Fractions of the dense encoder to remove, in ascending order.
        measure: Measure of the sizes.

    Raises:
        ValueError: If targets are given in parameters and in multiply-accumulates.
    """

    # Steps of the training that follows, if the user gives none.
    default_final_steps: int = 0

    def __init__(self, options: PruningArguments):
        self.options = options
        self.sparsities, self.measure = options.targets()

    @property
    def targets(self) -> Sequence[Target]:
        """Targets of the run, each with a student of its own: fractions to remove, or a fidelity to keep."""
        return self.sparsities

    def parts(self) -> dict[Target, str]:
        """Returns the folder inside the output folder by target: "" for a single target."""
        if len(self.targets) == 1:
            return {self.targets[0]: ""}
        name = self.measure.option.removeprefix("target_")
        return {target: f"{name}-{target_text(target)}" for target in self.targets}

    @property
    def calibration(self) -> CalibrationAudio | None:
        """Audio that statistics are taken from, known after `read_input`; `None` for a method without them."""
        return None

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
    def students(self, stages: TrainingStages) -> Iterator[tuple[Target, Student]]:
        """Yields each target with the student that was pruned to it.

        Args:
            stages: Stages of the run, whose initial student is a prepared model.
        """
