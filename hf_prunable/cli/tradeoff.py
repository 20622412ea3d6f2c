"""How small can a model become? Measures the loss of one-shot pruning at several sizes, without saving a model.

    hf-prunable tradeoff --model_name_or_path microsoft/wavlm-base --dataset_name my_recordings \
        --output_dir wavlm-base-sizes

`hf-prunable tradeoff --help` shows the options; a .yaml or .json file may hold them. The same command resumes an
interrupted run.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..data.arguments import SpeechArguments
from ..modeling.pretrained import PrunableModelMixin
from ..one_shot.arguments import OneShotArguments
from ..one_shot.calibration import check_models
from ..one_shot.method import OneShotMethod
from ..one_shot.one_shot_pruning import check_reachable, check_units
from ..pruning.arguments import PruningArguments
from ..pruning.stages import TrainingStages
from ..reporting.measurement import measure_dense
from ..reporting.provenance import Provenance
from ..reporting.public_text import command_line
from ..reporting.tradeoff_report import (
    PICTURE_FILE,
    TABLE_FILE,
    TradeoffPoint,
    TradeoffReport,
    draw_tradeoff,
    format_tradeoff,
    measure_point,
)
from ..runtime.console import console_output
from ..runtime.files import write_text_atomically
from ..runtime.interruptions import stoppable
from ..runtime.options import OptionParser
from ..runtime.process_group import leave_process_group
from ..runtime.run_folder import RunFolder
from ..runtime.settings import remember_settings
from ..runtime.user_errors import user_errors
from .pruning_methods import given_options
from .pruning_setup import PruningSetup
from .tradeoff_options import TRADEOFF_TABLE, TradeoffArguments


logger = logging.getLogger("hf_prunable")

PROGRAM = "hf-prunable tradeoff"
# Options that a result does not depend on.
UNRECORDED = (
    "output_dir",
    "override",
    "disable_tqdm",
    "dataloader_num_workers",
    "per_device_eval_batch_size",
    "use_cpu",
)
# Options that the command for one of the models does not repeat.
OWN_OPTIONS = ("output_dir", "override", "sparsities", "macs", "disable_tqdm")


class TradeoffRecipe:
    """Prunes a checkpoint to several sizes in one series of rounds, and measures each.

        recipe = TradeoffRecipe(options, speech_options, one_shot)
        recipe.setup()
        recipe.finish(recipe.measure())

    The working folder `OUTPUT_DIR.partial` keeps finished rounds; after an interruption, the same calls continue from them.
    With several processes, all of them make these calls, and the main process writes the results.

    Args:
        options: Options for checkpoint and sizes.
        speech_options: Options for the audio.
        one_shot: Options of one-shot pruning.
    """

    def __init__(self, options: TradeoffArguments, speech_options: SpeechArguments, one_shot: OneShotArguments):
        self.options, self.speech_options, self.one_shot = options, speech_options, one_shot
        # Read now, because a recipe file may have changed when the run is over.
        self.command = command_line(sys.argv)
        self.output_dir = Path(options.output_dir)
        self.folder = RunFolder(self.output_dir)
        self.training = options.training(self.folder.working_dir)
        self.is_main_process = self.training.process_index == 0
        # Set by `setup`.
        self.loaded: PruningSetup
        self.method: OneShotMethod
        self.stages: TrainingStages

    def setup(self) -> None:
        """Checks the output, loads audio and model, and records the settings of the run."""
        self.folder.check()
        asked = self.options.pruning(self.options.sparsities)
        self.loaded = PruningSetup(asked, self.speech_options, self.options.objective(), self.training)
        reachable = self._reachable(self.loaded.model, asked)
        self.method = OneShotMethod(self.options.pruning(reachable), self.one_shot, self.options.seed)
        self.stages = self.loaded.stages(self.method, self.output_dir)
        if self.is_main_process:
            settings = asdict(self.options) | asdict(self.speech_options) | asdict(self.one_shot)
            settings = {name: value for name, value in settings.items() if name not in UNRECORDED}
            identity = self.loaded.identity(self.method)
            self.folder.hold()
            remember_settings(self.folder.working_dir, settings, self.options.override, identity)
            if self.stages.plan is not None:
                logger.info(self.stages.plan.describe())

    def _reachable(self, model: PrunableModelMixin, asked: PruningArguments) -> list[float]:
        """Returns the sizes that the units can reach, and logs those that they cannot."""
        units, (_, measure) = asked.prune_units, asked.targets()
        check_models(model, model)
        check_units(units, model)
        reachable = []
        for sparsity in self.options.sparsities:
            try:
                check_reachable(model.config, sparsity, measure, units, asked.stock_shape)
            except ValueError as error:
                left_out = error
                logger.warning(f"{sparsity:g} is left out. {error}")
            else:
                reachable.append(sparsity)
        if not reachable:
            raise ValueError(f"None of `sparsities` can be reached. {left_out}")
        return reachable

    def measure(self) -> TradeoffReport:
        """Prunes to one size after the other and measures each model."""
        student, measure = self.stages.initial_student, self.method.measure
        # Weights that are not finite are found before the work begins.
        self.stages.held_out_loss(student)
        report = TradeoffReport(
            self.loaded.inputs(self.method, self.stages, self.command),
            Provenance.of_this_process(self.training.device),
            str(measure),
            measure_dense(student.model, measure.mac_seconds),
        )
        self._add(report, student.model, None)
        for target, pruned in self.method.students(self.stages):
            assert isinstance(target, float)
            self._add(report, pruned.model, target)
        return report

    def _add(self, report: TradeoffReport, model: PrunableModelMixin, target: float | None) -> None:
        """Measures a model and adds its point; the main process alone does."""
        if not self.is_main_process:
            return
        reference = self.stages.teacher
        assert reference is not None
        fidelity = self.stages.fidelity(model, reference)
        assert fidelity is not None
        point = measure_point(model, target, self.method.measure, fidelity)
        report.points.append(point)
        logger.info(_describe(point))

    def finish(self, report: TradeoffReport) -> None:
        """Writes table, record and picture, prints the table and removes the working folder.

        Args:
            report: Complete record of the run.
        """
        if not self.is_main_process:
            return
        folder = self.folder.new_result()
        table = format_tradeoff(report)
        write_text_atomically(folder / TABLE_FILE, table)
        report.save(folder)
        draw_tradeoff(report, folder / PICTURE_FILE)
        self.folder.finish()
        sys.stdout.write(f"{table}\n")
        sys.stdout.flush()
        logger.info(f"Table and picture are in {self.output_dir}. {self._closing_words()}")

    def _closing_words(self) -> str:
        """Returns the command that makes one of the models."""
        sparsity = self.method.sparsities[len(self.method.sparsities) // 2]
        given = {
            name: value
            for arguments in (self.options, self.speech_options, self.one_shot)
            for name, value in given_options(arguments).items()
            if name not in OWN_OPTIONS
        }
        words = ["hf-prunable", "prune", "--method", "one_shot"]
        for name, value in given.items():
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [f"--{name}", *map(str, values)]
        words += [f"--{self.method.measure.option}", f"{sparsity:g}"]
        words += ["--output_dir", f"{self.output_dir}-{sparsity:g}"]
        return f"To make the model of one size, in rounds of its own, so that its loss can differ a little:\n{shlex.join(words)}"


def _describe(point: TradeoffPoint) -> str:
    return (
        f"{100 * point.removed:.1f} % removed: loss {point.fidelity.distillation_loss:.4f}, mean cosine "
        f"{point.fidelity.mean_cosine:.4f}."
    )


def make_parser() -> OptionParser:
    """Returns the parser of the command's options."""
    return OptionParser(
        PROGRAM,
        "Measures how much one-shot pruning costs at several sizes, before a target is chosen: a table and a picture of the\n"
        "loss on held-out audio against parameters and multiply-accumulates. No model is saved.",
        (TradeoffArguments, SpeechArguments, OneShotArguments),
        TRADEOFF_TABLE,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures a checkpoint at several sizes.

    Args:
        arguments: Options of the command, after a recipe or without one; `None` for those of this process.
    """
    with console_output(), leave_process_group():
        options = make_parser().parse(sys.argv[1:] if arguments is None else arguments)
        with stoppable(PROGRAM) as progress:
            with user_errors(PROGRAM):
                recipe = TradeoffRecipe(*options)
                progress.folder = recipe.folder
                recipe.setup()
            recipe.finish(recipe.measure())


if __name__ == "__main__":
    main()
