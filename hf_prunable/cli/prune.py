"""Prunes a WavLM, HuBERT or wav2vec 2.0 checkpoint to one or several targets, by trained gates or without training.

    hf-prunable prune --model_name_or_path microsoft/wavlm-base --dataset_name my_recordings \
        --target_sparsity 0.72 --output_dir wavlm-base-pruned

    hf-prunable prune --method one_shot --model_name_or_path microsoft/wavlm-base --dataset_name my_recordings \
        --target_sparsity 0.3 0.5 0.72 --output_dir wavlm-base-smaller

    accelerate launch -m hf_prunable.cli.prune recipe.yaml

`hf-prunable prune --help` shows the options; a .yaml or .json file may hold them. The same command resumes an interrupted
run.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..data.arguments import SpeechArguments
from ..hub import HubPush, PushError
from ..modeling.loading import load_complete
from ..modeling.other_weights import OTHER_WEIGHTS_FILE
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import UnitCounts
from ..one_shot.arguments import OneShotArguments
from ..one_shot.method import OneShotMethod
from ..one_shot.ragged_comparison import RaggedComparison
from ..pruning.arguments import PruningArguments, PruningTrainingArguments
from ..pruning.objective_arguments import ObjectiveArguments
from ..pruning.stages import TrainingStages, final_stage_name
from ..pruning.student import Student, restore_noise_
from ..pruning.targets import Target, target_text
from ..reporting.measurement import as_loaded, measure_latency
from ..reporting.provenance import Provenance
from ..reporting.pruning_inputs import PruningInputs
from ..reporting.pruning_report import (
    DENSE,
    PRUNED,
    HeldOutLoss,
    PruningReport,
    measure_pruning,
)
from ..reporting.pruning_table import format_table
from ..reporting.public_text import command_line
from ..reporting.publication import publish_pruning
from ..reporting.ragged_shape import RaggedShape
from ..runtime.console import console_output
from ..runtime.files import save_tensors_atomically
from ..runtime.interruptions import stoppable
from ..runtime.options import OptionParser
from ..runtime.process_group import leave_process_group
from ..runtime.run_folder import RunFolder
from ..runtime.settings import remember_settings
from ..runtime.trackers import check_trackers
from ..runtime.user_errors import one_line_errors, user_errors
from .pruning_methods import check_options, found_by, make_method, settings_of_method, with_method
from .pruning_setup import PruningSetup
from .trainer_options import PRUNING_TABLE


logger = logging.getLogger("hf_prunable")

PROGRAM = "hf-prunable prune"
# Options that a result does not depend on.
UNRECORDED = ("override", "latency_seconds", "compare_ragged", "keep_other_weights")


class PruningRecipe:
    """Prunes a checkpoint to one or several targets, trains the students further, and saves and measures them.

        recipe = PruningRecipe(options, speech_options, objective, training)
        recipe.setup()
        recipe.prune()
        recipe.finish()

    The working folder `OUTPUT_DIR.partial` keeps checkpoints and finished stages; after an interruption, the same calls
    continue from them. With several processes, all of them make these calls, and the main process writes the results.

    Args:
        options: Options for the checkpoint, the method and the size of the pruned model.
        speech_options: Options for the audio.
        objective: Options for the losses.
        training: Training arguments; `output_dir` must be a new or an empty folder.
        one_shot: Options of one-shot pruning; `None` for their defaults.

    Raises:
        ValueError: If options contradict each other, or belong to another method.
    """

    def __init__(
        self,
        options: PruningArguments,
        speech_options: SpeechArguments,
        objective: ObjectiveArguments,
        training: PruningTrainingArguments,
        one_shot: OneShotArguments | None = None,
    ):
        options = with_method(options, objective, training)
        self.options, self.speech_options, self.objective = options, speech_options, objective
        # Read now, because a recipe file may have changed when the run is over.
        self.command = command_line(sys.argv)
        self.one_shot = OneShotArguments() if one_shot is None else one_shot
        check_options(options, self.one_shot, training)
        self.method = make_method(options, self.one_shot, training.seed)
        self.parts = self.method.parts()
        training = training.with_final_steps(self.method.default_final_steps)
        self.hub = HubPush.take_from(training, list(self.parts.values()))
        self.output_dir = Path(training.output_dir)
        self.folder = RunFolder(self.output_dir)
        self.training = training.in_folder(self.folder.working_dir)
        # All processes compute the same; the main one writes it.
        self.is_main_process = training.process_index == 0
        # Set by `setup`.
        self.loaded: PruningSetup
        self.stages: TrainingStages
        self.inputs: PruningInputs
        self.provenance: Provenance

    def setup(self) -> None:
        """Checks the output, loads audio, student and teacher, and records the settings of the run."""
        self._check_output()
        self.loaded = PruningSetup(self.options, self.speech_options, self.objective, self.training)
        self.stages = self.loaded.stages(self.method, self.output_dir)
        self.inputs = self.loaded.inputs(self.method, self.stages, self.command)
        self.provenance = Provenance.of_this_process(self.stages.initial_student.model.device)
        self._record_settings()
        if self.is_main_process and self.stages.plan is not None:
            logger.info(self.stages.plan.describe())

    def _check_output(self) -> None:
        self.folder.check()
        check_trackers(self.training.report_to)
        if self.training.resume_from_checkpoint:
            raise ValueError("`resume_from_checkpoint` is not supported by this script. Leave it out.")
        if self.is_main_process:
            self.hub.check()

    def _record_settings(self) -> None:
        """Takes the working folder, and records what the result depends on or compares it with the run that is continued."""
        if not self.is_main_process:
            return
        settings = (
            asdict(self.options) | asdict(self.speech_options) | asdict(self.objective) | self.training.settings()
        )
        settings = settings_of_method(self.options, settings, self.one_shot)
        settings = {name: value for name, value in settings.items() if name not in UNRECORDED}
        identity = self.loaded.identity(self.method)
        self.folder.hold()
        remember_settings(self.folder.working_dir, settings, self.options.override, identity)

    def prune(self) -> None:
        """Makes and saves the student of each target."""
        # Also where nothing is trained: weights that are not finite are found before the work begins.
        dense_loss = self.stages.held_out_loss(self.stages.initial_student)
        for target, student in self.method.students(self.stages):
            losses = HeldOutLoss(dense_loss, self.stages.held_out_loss(student)) if self.inputs.steps else None
            if self.training.num_final_steps > 0:
                student = self.stages.train_student(student, final_stage_name(target))
                if losses is not None:
                    losses.after_final_steps = self.stages.held_out_loss(student)
                    if losses.warning is not None:
                        logger.warning(losses.warning)
            ragged = self._ragged_of_same_size(student) if self.one_shot.compare_ragged else None
            if self.is_main_process:
                self.save(student, target, losses, ragged)

    def _ragged_of_same_size(self, student: Student) -> PrunableModelMixin:
        """Prunes to a ragged shape of the same size, which the report compares with the student's stock shape."""
        assert isinstance(self.method, OneShotMethod)
        size = self.method.measure.count(student.model.config, UnitCounts.of(student.model.config.shape))
        return RaggedComparison(self.method, self.stages).of_size(size)

    def save(
        self,
        student: Student,
        target: Target,
        losses: HeldOutLoss | None,
        ragged: PrunableModelMixin | None = None,
    ) -> None:
        """Saves a finished student with its report and card.

        Args:
            student: Student to save. Dropout, layer drop and SpecAugment of its configuration are restored.
            target: Target that it was compacted to.
            losses: Losses on the held-out clips; `None` if nothing was trained.
            ragged: Model of the same size whose widths vary, which is measured and not saved; `None` if there is none.

        Raises:
            RuntimeError: If a fresh process does not load the model, or computes something else with it.
        """
        part = self.parts[target]
        folder = self.folder.new_result(part)
        loaded = self.loaded
        restore_noise_(student.model, loaded.original_config)
        student.model.save_pretrained(folder)
        loaded.feature_extractor.save_pretrained(folder)
        if self.options.keep_other_weights and loaded.other_weights:
            save_tensors_atomically(folder / OTHER_WEIGHTS_FILE, loaded.other_weights)
        if loaded.labels is not None and loaded.labels.tokenizer is not None:
            loaded.labels.tokenizer.save_pretrained(folder)
        report = self._report(student, target, losses, ragged)
        name = f"{self.folder.output_dir.name}-{part}".rstrip("-")
        publish_pruning(report, student.model, folder, name, self.hub.repo_ids.get(part), loaded.auto_class)
        logger.info(f"At a target of {target_text(target)}:\n{format_table(report)}")

    def _report(
        self, student: Student, target: Target, losses: HeldOutLoss | None, ragged: PrunableModelMixin | None
    ) -> PruningReport:
        """Measures a finished student beside the dense model."""
        dense, pruned = load_complete(self.options.model_name_or_path), student.model.base_model
        measure, round_to = self.method.measure, self.options.round_to
        sizes = measure_pruning(dense, pruned, measure=measure, target=target, round_to=round_to)
        report = PruningReport(self.inputs, self.provenance, sizes)
        reference_name = self.loaded.teacher_name or self.options.model_name_or_path
        is_dense = reference_name == self.options.model_name_or_path
        reference = dense if is_dense else load_complete(reference_name)
        report.results.fidelity = self.stages.fidelity(pruned, reference)
        if ragged is not None:
            fidelity = self.stages.fidelity(ragged.base_model, reference)
            report.results.ragged = RaggedShape.of(ragged.base_model, fidelity)
        report.results.held_out_loss, report.results.history = losses, student.history
        report.results.gate_sparsity = student.gate_sparsity
        if isinstance(self.method, OneShotMethod):
            report.results.rounds = list(self.method.rounds)
        report.results.found_size = found_by(self.method)
        report.results.latency = measure_latency(
            {DENSE: as_loaded(dense), PRUNED: pruned},
            seconds=self.options.latency_seconds,
            sampling_rate=self.loaded.feature_extractor.sampling_rate,
        )
        return report

    def finish(self) -> None:
        """Gives the folder of the results its name, removes the working folder and pushes the results if asked to."""
        if not self.is_main_process:
            return
        self.folder.finish()
        logger.info(f"The pruned model is in {self.output_dir}.")
        self.hub.push(self.output_dir)


def prune(
    options: PruningArguments,
    speech_options: SpeechArguments,
    objective: ObjectiveArguments,
    training: PruningTrainingArguments,
    one_shot: OneShotArguments | None = None,
) -> Path:
    """Runs the recipe, whose arguments these are.

    Returns:
        The folder of the result, which is only there when it is complete; with several targets, with a folder for each.
    """
    recipe = PruningRecipe(options, speech_options, objective, training, one_shot)
    recipe.setup()
    recipe.prune()
    recipe.finish()
    return recipe.output_dir


def make_parser() -> OptionParser:
    """Returns the parser of the command's options."""
    return OptionParser(
        PROGRAM,
        "Prunes a WavLM, HuBERT or wav2vec 2.0 checkpoint: by gates that are trained with the weights, after which the smaller\n"
        "model is trained; or without training, by statistics of some clips (`--method one_shot`).",
        (PruningArguments, SpeechArguments, ObjectiveArguments, PruningTrainingArguments, OneShotArguments),
        PRUNING_TABLE,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prunes a checkpoint.

    Args:
        arguments: Options of the command, after a recipe or without one; `None` for those of this process.
    """
    with console_output(), leave_process_group():
        options = make_parser().parse(sys.argv[1:] if arguments is None else arguments)
        with stoppable(PROGRAM) as progress:
            with user_errors(PROGRAM, PushError):
                recipe = PruningRecipe(*options)
                progress.folder = recipe.folder
                recipe.setup()
            # The finished model is in its place when a push fails.
            with one_line_errors(PROGRAM, PushError):
                recipe.prune()
                recipe.finish()


if __name__ == "__main__":
    main()
