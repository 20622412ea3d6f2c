"""One-shot pruning to a target by fidelity as the method of a run: the smallest model that keeps it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..modeling.pretrained import PrunableModelMixin
from ..pruning.arguments import PruningArguments, PruningTrainingArguments
from ..pruning.fidelity import Fidelity, measure_fidelity
from ..pruning.stages import TrainingStages
from ..pruning.student import Student
from ..pruning.targets import FidelityTarget, Target
from ..runtime.training_plan import Stage
from .arguments import OneShotArguments
from .calibration import check_models
from .fidelity_search import FidelitySearch, FoundSize
from .method import OneShotMethod
from .one_shot_pruning import check_units
from .search_files import SearchFiles


class FidelityMethod(OneShotMethod):
    """One-shot pruning to the smallest model that keeps a fidelity on the held-out clips of the run.

    Args:
        options: Options for the model.
        one_shot: Options for calibration audio and settings.
        seed: Random seed of the run.
        target: Limit on the held-out clips.

    Attributes:
        found: Size that was found; `None` before `students`.
    """

    found: FoundSize | None = None
    _search: FidelitySearch

    def __init__(self, options: PruningArguments, one_shot: OneShotArguments, seed: int, target: FidelityTarget):
        super().__init__(options, one_shot, seed)
        self.target, self.sparsities = target, []

    @property
    def targets(self) -> Sequence[Target]:
        return [self.target]

    def prepare_(self, model: PrunableModelMixin) -> None:
        """Checks the model.

        Args:
            model: Model without gates, dense or pruned before; it is not changed.

        Raises:
            ValueError: If the model has gates or foreign modules, or units that cannot be pruned.
        """
        check_models(model, model)
        check_units(self.options.prune_units, model)

    def first_stage(self, args: PruningTrainingArguments) -> Stage:
        """Returns the stage of the search, which trains no model."""
        return Stage(
            f"one-shot pruning to the smallest model with a {self.target.quantity} of {self.target.limit}, "
            f"{self.source.describe()}"
        )

    def read_input(self, stages: TrainingStages) -> None:
        """Reads the calibration audio, and measures the model before anything is removed.

        Args:
            stages: Stages of the run, whose initial student is a prepared model.

        Raises:
            ValueError: If there is too little audio, the teacher does not fit the model, or the model misses the target as
                it is.
        """
        super().read_input(stages)
        pruning = self._pruning

        def measure(model: PrunableModelMixin) -> Fidelity:
            return measure_fidelity(model, pruning.teacher, stages.held_out_batches())

        self._search = FidelitySearch(pruning, self.target, measure, SearchFiles(stages.folder))
        self._search.check()

    def students(self, stages: TrainingStages) -> Iterator[tuple[Target, Student]]:
        """Searches, from the last measured candidate on, and yields the target with its student.

        Args:
            stages: Stages of the run, whose initial student is a prepared model.
        """
        self.found = self._search.run()
        self.rounds = self._search.records
        yield self.target, self._student(stages.initial_student)
