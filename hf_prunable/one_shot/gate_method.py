"""Learned gates that start from statistics, as the method of a run."""

from __future__ import annotations

from ..modeling.pretrained import PrunableModelMixin
from ..pruning.arguments import BY_ONE_SHOT, PruningArguments, PruningTrainingArguments
from ..pruning.gate_initialization import order_gates_by_weights_
from ..pruning.gate_pruning import GatePruning
from ..pruning.stages import TrainingStages
from ..runtime.device_moves import on_device
from ..runtime.training_plan import Stage
from .calibration_source import CalibratedMethod, CalibrationSource
from .gate_start import order_gates_by_one_shot_, orderable_gates, rotate_gated_heads_


class GatesFromStatistics(CalibratedMethod, GatePruning):
    """Learned gates on rotated heads, in the order of weight norms or of one-shot pruning.

    Args:
        options: Options for the model, its targets and the start of the gates.
        source: Calibration audio of the run.

    Raises:
        ValueError: If options are out of range.
    """

    def __init__(self, options: PruningArguments, source: CalibrationSource):
        super().__init__(options)
        self.source = source

    def prepare_(self, model: PrunableModelMixin) -> None:
        """Attaches the gates to a model and checks the targets.

        Args:
            model: Dense or pruned model without gates.

        Raises:
            ValueError: If a kind of unit cannot be pruned, statistics do not order any, or the gates cannot reach a target.
        """
        super().prepare_(model)
        if self.options.gate_start == BY_ONE_SHOT:
            orderable_gates(model)

    def first_stage(self, args: PruningTrainingArguments) -> Stage:
        """Returns the stage that trains the gates."""
        stage = super().first_stage(args)
        order = "in one-shot order" if self.options.gate_start == BY_ONE_SHOT else "on rotated heads"
        return Stage(f"{stage.name} {order}, {self.source.describe()}", stage.num_steps)

    def read_input(self, stages: TrainingStages) -> None:
        """Reads the calibration audio from the training clips.

        Args:
            stages: Stages of the run, whose initial student is a prepared model.

        Raises:
            ValueError: If there is too little audio.
        """
        self.source.read(stages.data)

    def start_(self, model: PrunableModelMixin, stages: TrainingStages) -> None:
        """Rotates the heads and gives the gates their initial values.

        Args:
            model: Prepared model; changed in place.
            stages: Stages of the run.

        Raises:
            ValueError: If the audio or the teacher do not fit the model.
        """
        clips, spread = self.source.audio.waveforms, self.options.initial_norm_spread
        with on_device([model], stages.args.device):
            if self.options.gate_start == BY_ONE_SHOT:
                order_gates_by_one_shot_(
                    model,
                    stages.teacher,
                    clips,
                    target=self.sparsities[-1],
                    measure=self.measure,
                    spread=spread,
                    config=self.source.config,
                )
            else:
                rotate_gated_heads_(model, clips, self.source.config.batch_size)
                order_gates_by_weights_(model, spread)
