"""One-shot pruning as the method of a run: calibration audio, rounds that survive an interruption, students."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

from transformers.utils import logging

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import UnitCounts
from ..pruning.arguments import PruningArguments, PruningTrainingArguments
from ..pruning.method import PruningMethod
from ..pruning.stages import TrainingStages
from ..pruning.student import Student
from ..pruning.targets import Target
from ..runtime.training_plan import Stage
from .arguments import OneShotArguments
from .calibration import check_models
from .calibration_source import CalibratedMethod, CalibrationSource
from .one_shot_pruning import OneShotPruning, check_reachable, check_units, sizes_of_rounds
from .resumable_rounds import ResumableRounds
from .round_files import PruningRound


logger = logging.get_logger(__name__)


class OneShotMethod(CalibratedMethod, PruningMethod):
    """Pruning by statistics of some clips, in rounds, without training.

    Args:
        options: Options for the model and its targets.
        one_shot: Options for calibration audio and rounds.
        seed: Random seed of the run.

    Attributes:
        rounds: Records of the rounds up to the student that `students` has yielded last.

    Raises:
        ValueError: If options are out of range.
    """

    def __init__(self, options: PruningArguments, one_shot: OneShotArguments, seed: int):
        super().__init__(options)
        self.one_shot, self.source = one_shot, CalibrationSource(one_shot, seed)
        if one_shot.rounds is not None and one_shot.rounds < 1:
            raise ValueError(f"`rounds` is {one_shot.rounds}; it must be 1 or more.")
        self.rounds: list[PruningRound] = []
        # Sizes that the rounds to each target end at.
        self._schedule: list[list[float]] = []
        self._pruning: OneShotPruning

    def prepare_(self, model: PrunableModelMixin) -> None:
        """Checks model and targets, and plans the rounds.

        Args:
            model: Model without gates, dense or pruned before; it is not changed.

        Raises:
            ValueError: If the model has gates or foreign modules, or its units cannot reach a target.
        """
        check_models(model, model)
        check_units(self.options.prune_units, model)
        config = model.config
        for target in self.sparsities:
            check_reachable(config, target, self.measure, self.options.prune_units, self.options.stock_shape)
        if self.sparsities != sorted(set(self.sparsities)):
            raise ValueError(f"`{self.measure.option}` must be in ascending order, but is {self.sparsities}.")
        present = self.measure.count(config, UnitCounts.of(config.shape))
        sizes = [(1 - target) * self.measure.dense(config) for target in self.sparsities]
        self._schedule = sizes_of_rounds(present, sizes, self.one_shot.rounds)

    @property
    def num_rounds(self) -> int:
        """Number of rounds to the last target; known after `prepare_`."""
        return sum(map(len, self._schedule))

    def first_stage(self, args: PruningTrainingArguments) -> Stage:
        """Returns the stage of the rounds, which trains no model."""
        rounds = "1 round" if self.num_rounds == 1 else f"{self.num_rounds} rounds"
        return Stage(f"one-shot pruning in {rounds}, {self.source.describe()}")

    def read_input(self, stages: TrainingStages) -> None:
        """Reads the calibration audio from the training clips, and checks audio and teacher.

        Args:
            stages: Stages of the run, whose initial student is a prepared model.

        Raises:
            ValueError: If there is too little audio, or the teacher does not fit the model.
        """
        self._pruning = OneShotPruning(
            stages.initial_student.model,
            self.source.read(stages.data).waveforms,
            units=self.options.prune_units,
            measure=self.measure,
            teacher=stages.teacher,
            stock_shape=self.options.stock_shape,
            config=self.source.config,
        )
        for moved in (self._pruning.model, self._pruning.teacher):
            moved.to(stages.args.device)

    def students(self, stages: TrainingStages) -> Iterator[tuple[Target, Student]]:
        """Prunes in rounds, from the last finished one on, and yields each target with its student.

        Args:
            stages: Stages of the run, whose initial student is a prepared model.
        """
        rounds = ResumableRounds(self._pruning, stages.folder, self.num_rounds)
        if rounds.num_finished:
            logger.info(f"Going on after round {rounds.num_finished} of {self.num_rounds}.")
        self.rounds = rounds.records
        for target, sizes in zip(self.sparsities, self._schedule, strict=True):
            rounds.prune_(sizes)
            yield target, self._student(stages.initial_student)

    def _student(self, student: Student) -> Student:
        """Returns a student with a copy of the model that pruning has come to.

        Args:
            student: Student before pruning.
        """
        return replace(student, model=copy.deepcopy(self._pruning.model).to(student.model.device))
