"""The ragged model of the same size, which a stock-shaped one is compared with."""

from __future__ import annotations

from transformers.utils import logging

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.units import DEFAULT_UNITS
from ..pruning.stages import TrainingStages
from .calibration import from_first_process
from .method import OneShotMethod
from .one_shot_pruning import OneShotPruning, sizes_of_rounds
from .round_files import PruningRound, load_round, round_path, save_round


logger = logging.get_logger(__name__)


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
            method.audio.waveforms,
            units=DEFAULT_UNITS,
            measure=method.measure,
            teacher=stages.teacher,
            config=method.config,
        )
        for model in (pruning.model, pruning.teacher):
            model.to(stages.args.device)
        dense = method.measure.dense(pruning.model.config)
        (sizes,) = sizes_of_rounds(pruning.size(), [size], method.one_shot.rounds)
        paths = [round_path(stages.folder / f"ragged_{size}", number) for number in range(1, len(sizes) + 1)]
        # All processes must skip the same rounds.
        is_finished = from_first_process([path.exists() for path in paths])
        for number, (path, round_size) in enumerate(zip(paths, sizes, strict=True), start=1):
            if is_finished[number - 1]:
                pruning.model, _ = load_round(path, pruning.model)
                continue
            logger.info(
                f"Comparison with a ragged shape, round {number} of {len(sizes)}: to {round_size / dense:.1%} of the dense "
                f"encoder's {method.measure}."
            )
            pruning.round(round_size, is_draft=round_size != sizes[-1])
            if stages.args.process_index == 0:
                shape, sparsity = pruning.model.config.shape, 1 - pruning.size() / dense
                path.parent.mkdir(exist_ok=True)
                save_round(path, pruning.model, PruningRound.of(shape, sparsity, None, method.config.price_fraction))
        return pruning.model.to(stages.initial_student.model.device)
