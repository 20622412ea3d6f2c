"""The ragged model of the same size, which a stock-shaped one is compared with."""

from __future__ import annotations

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.units import DEFAULT_UNITS
from ..pruning.stages import TrainingStages
from .method import OneShotMethod
from .one_shot_pruning import OneShotPruning, sizes_of_rounds
from .resumable_rounds import ResumableRounds


class RaggedComparison:
    """Prunes the model of a run to shapes whose widths vary, from the same audio as its stock-shaped students.

    Args:
        method: Method of the run, which has read its audio.
        stages: Stages of the run.
    """

    def __init__(self, method: OneShotMethod, stages: TrainingStages):
        self.method, self.stages = method, stages

    def of_size(self, size: int) -> PrunableModelMixin:
        """Returns the ragged model of a size, in as many rounds from the first model on as the options say.

        An interrupted run goes on after its last finished round. In a distributed run, all processes must call it.

        Args:
            size: Largest size allowed, in the unit of the run's measure.
        """
        method, stages = self.method, self.stages
        pruning = OneShotPruning(
            stages.initial_student.model,
            method.source.audio.waveforms,
            units=DEFAULT_UNITS,
            measure=method.measure,
            teacher=stages.teacher,
            config=method.source.config,
        )
        for model in (pruning.model, pruning.teacher):
            model.to(stages.args.device)
        (sizes,) = sizes_of_rounds(pruning.size(), [size], method.one_shot.rounds)
        folder, title = stages.folder / f"ragged_{size}", "Comparison with a ragged shape, round"
        ResumableRounds(pruning, folder, len(sizes), title).prune_(sizes)
        return pruning.model.to(stages.initial_student.model.device)
