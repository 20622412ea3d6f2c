"""A refit of the students of another method: what their removed units did is taken over by those that stay."""

from __future__ import annotations

from collections.abc import Iterator

from ..modeling.pretrained import PrunableModelMixin
from ..pruning.arguments import PruningTrainingArguments
from ..pruning.method import PruningMethod
from ..pruning.stages import TrainingStages
from ..pruning.student import Student
from ..pruning.targets import Target
from ..runtime.device_moves import on_device
from ..runtime.training_plan import Stage
from .calibration_source import CalibratedMethod, CalibrationSource
from .layerwise import refit_


class RefittedMethod(CalibratedMethod, PruningMethod):
    """Another method whose students are refitted to the teacher, see `refit_`.

    Args:
        method: The other method.
        source: Calibration audio of the run.
    """

    def __init__(self, method: PruningMethod, source: CalibrationSource):
        super().__init__(method.options)
        self.method, self.source = method, source
        self.default_final_steps = method.default_final_steps

    def prepare_(self, model: PrunableModelMixin) -> None:
        """Prepares a model for the other method.

        Args:
            model: Dense or pruned model without gates.

        Raises:
            ValueError: If the method cannot prune the model to a target.
        """
        self.method.prepare_(model)

    def first_stage(self, args: PruningTrainingArguments) -> Stage:
        """Describes the stage of the other method, and the refit."""
        stage = self.method.first_stage(args)
        return Stage(f"{stage.name}, then refit {self.source.describe()}", stage.num_steps)

    def read_input(self, stages: TrainingStages) -> None:
        """Reads the calibration audio from the training clips.

        Args:
            stages: Stages of the run, whose initial student is a prepared model.

        Raises:
            ValueError: If there is too little audio, or no teacher.
        """
        if stages.teacher is None:
            raise ValueError(
                f"`refit` brings hidden states back to a teacher's, and the objective {stages.objective.objective!r} has no "
                "teacher. Leave it out, or choose 'distillation' or 'both'."
            )
        self.method.read_input(stages)
        self.source.read(stages.data)

    def students(self, stages: TrainingStages) -> Iterator[tuple[Target, Student]]:
        """Yields each target with its refitted student.

        Args:
            stages: Stages of the run, whose initial student is a prepared model.
        """
        assert stages.teacher is not None
        for target, student in self.method.students(stages):
            with on_device([student.model], stages.args.device):
                refit_(student.model, stages.teacher, self.source.audio.waveforms, config=self.source.config)
            yield target, student
