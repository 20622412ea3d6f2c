"""Truncates a model at the layer where classes are most convex, and fine-tunes it on labelled clips.

    hf-prunable finetune-speech-commands --model_name_or_path microsoft/wavlm-base \
        --dataset_name speech_commands_v0.02 --task word --compare --output_dir wavlm-base-words

The same command continues an interrupted run.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..finetuning.arguments import TruncationArguments
from ..finetuning.classifier import FinetuningArguments, fine_tune, make_classifier
from ..finetuning.stage_plan import plan_stages, stage_name
from ..finetuning.task_data import TaskData, TrainedVariant
from ..finetuning.task_profiles import choose_depth, profile_labels
from ..hub import HubPush, PushError
from ..modeling.auto import prunable_class
from ..modeling.loading import load_complete, load_config, load_feature_extractor
from ..modeling.other_weights import describe_other_weights, read_other_weights
from ..modeling.pretrained import PrunableModelMixin
from ..reporting.finetuning_report import (
    FULL,
    TRUNCATED,
    FinetuningInputs,
    FinetuningReport,
    LayerSelection,
    Variant,
    format_table,
    paired_difference,
)
from ..reporting.layer_pictures import draw_profiles
from ..reporting.measurement import as_loaded, measure_latency, measure_size
from ..reporting.model_card_parts import PROFILE_PICTURE
from ..reporting.provenance import Provenance
from ..reporting.public_text import command_line
from ..reporting.publication import publish_finetuning
from ..runtime.console import console_output
from ..runtime.interruptions import stoppable
from ..runtime.options import OptionParser
from ..runtime.process_group import leave_process_group
from ..runtime.run_folder import RunFolder
from ..runtime.settings import remember_settings
from ..runtime.trackers import check_trackers
from ..runtime.training_plan import TrainingPlan
from ..runtime.user_errors import one_line_errors, user_errors
from ..truncation.layer_choice import check_num_layers
from .trainer_options import FINETUNING_TABLE


PROGRAM = "hf-prunable finetune-speech-commands"

logger = logging.getLogger("hf_prunable")

# Stages that layers are scored in.
PRETRAINED, FINETUNED = "pretrained", "fine-tuned"


class FinetuningRecipe:
    """Chooses the number of layers, fine-tunes, evaluates and saves.

        recipe = FinetuningRecipe(options, training)
        recipe.setup()
        recipe.run()

    The working folder `OUTPUT_DIR.partial` keeps checkpoints and finished results; after an interruption, the same calls
    continue from them. With several processes, all of them set up and train, and the main process evaluates and saves.

    Args:
        options: Model, task, and choice of the layers.
        training: Arguments of the Trainer; `output_dir` must be a new or an empty folder.

    Attributes:
        hub: Push to the Hub, set by `setup`.
        data: Clips of the task, set by `setup`.
        report: Record of the run, started by `setup` with the chosen layers.
        plan: Plan of the trainings, set by `setup`.
    """

    hub: HubPush
    data: TaskData
    report: FinetuningReport
    plan: TrainingPlan

    def __init__(self, options: TruncationArguments, training: FinetuningArguments):
        self.options, self.training = options, training
        # Formatted now, because a recipe file can change while the run proceeds.
        self.command = command_line(sys.argv)
        self.output_dir = Path(training.output_dir)
        self.folder = RunFolder(self.output_dir)
        self.is_main_process = training.process_index == 0

    def setup(self) -> None:
        """Checks the outputs, loads the clips and chooses the number of layers.

        Raises:
            ValueError: If the output folder is in use, an interrupted run had other settings, or the options do not fit
                model and clips.
            PushError: If a push to the Hub would fail.
        """
        self.folder.check()
        check_trackers(self.training.report_to)
        # Another kind of model is refused before any audio is read.
        prunable_class(load_config(self.options.model_name_or_path))
        self.hub = self._setup_hub()
        model = load_complete(self.options.model_name_or_path)
        if self.options.truncate.isdecimal():
            check_num_layers(int(self.options.truncate), model.config.num_hidden_layers)
        other_weights = read_other_weights(self.options.model_name_or_path, model)
        if other_weights and self.is_main_process:
            logger.warning(describe_other_weights(other_weights, model, is_kept=False))
        self.data = self._setup_data(model)
        self.report = self._setup_report(model)
        self.plan = plan_stages(
            self.depths, self.options.seeds, self.training, self.data.task.splits, str(self.output_dir)
        )
        if self.is_main_process:
            logger.info(self.plan.describe())

    def _setup_hub(self) -> HubPush:
        hub = HubPush.take_from(self.training)
        if self.is_main_process:
            hub.check()
        return hub

    def _setup_data(self, model: PrunableModelMixin) -> TaskData:
        feature_extractor = load_feature_extractor(self.options.model_name_or_path)
        with self.training.main_process_first(desc="reading the clips"):
            data = TaskData(feature_extractor, self.options.load_task(feature_extractor.sampling_rate))
            if self.is_main_process:
                identity = data.identity(model)
                self.folder.hold()
                settings = asdict(self.options) | self.training.settings()
                remember_settings(self.folder.working_dir, settings, self.options.override, identity)
        return data

    def _setup_report(self, model: PrunableModelMixin) -> FinetuningReport:
        options, task = self.options, self.data.task
        inputs = FinetuningInputs(
            command=self.command,
            model_name=options.model_name_or_path,
            family=model.config.stock_config_class.model_type,
            sampling_rate=self.data.feature_extractor.sampling_rate,
            dataset_name=options.dataset_name,
            num_skipped={cause: len(names) for cause, names in task.skipped.names.items()},
            dataset_config_name=options.dataset_config_name,
            task=task.name,
            has_own_labels=options.has_own_labels,
            group_column=options.group_column,
            clip_seconds=task.clip_seconds,
            words=options.words,
            class_names=task.class_names,
            num_clips={name: len(split) for name, split in task.splits.items()},
            num_layers=model.config.num_hidden_layers,
        )
        return FinetuningReport(inputs, Provenance.of_this_process("cpu"), self._select_layers(model))

    def _select_layers(self, model: PrunableModelMixin) -> LayerSelection:
        if self.is_main_process:
            logger.info(f"Scoring the layers on at most {self.options.profile_clips:,} training clips.")
        with self.training.main_process_first(desc="scoring the layers"):
            profiles = profile_labels(
                model,
                self.data.task,
                self.data.feature_extractor,
                self.options,
                self.folder.working_dir / "features",
            )
        choice = choose_depth(profiles, self.data.task.name, self.options)
        if choice is not None and choice.num_layers == model.config.num_hidden_layers:
            logger.warning(
                f"All {choice.num_layers} layers are kept, by {choice.criterion}; there is nothing to truncate or to compare."
            )
        return LayerSelection(choice, {PRETRAINED: profiles})

    @property
    def depths(self) -> dict[str, int]:
        """Number of layers of each variant that is trained; the last variant is saved."""
        num_layers, choice = self.report.inputs.num_layers, self.report.layers.choice
        if choice is None or choice.num_layers == num_layers:
            return {FULL: num_layers}
        return ({FULL: num_layers} if self.options.compare else {}) | {TRUNCATED: choice.num_layers}

    def run(self) -> Path:
        """Trains, and in the main process evaluates and saves.

        Returns:
            The output folder.
        """
        trained = self.train()
        if self.is_main_process:
            self.save(self.evaluate(trained), trained)
        return self.output_dir

    def train(self) -> dict[str, TrainedVariant]:
        """Fine-tunes each variant with each seed.

        Returns:
            Trained variants by name.
        """
        trained: dict[str, TrainedVariant] = {}
        for seed in self.options.seeds:
            for name, num_layers in self.depths.items():
                stage, args = stage_name(name, seed), copy.copy(self.training)
                args.seed, args.output_dir = seed, str(self.folder.working_dir / stage)
                model = make_classifier(self.options, self.data.task.class_names, num_layers, seed)
                callbacks = [self.plan.callback(stage)]
                result = fine_tune(model, self.data.task, self.data.feature_extractor, args, callbacks)
                variant = trained.setdefault(name, TrainedVariant(model.cpu().eval(), []))
                variant.results.append(result)
        return trained

    def evaluate(self, trained: dict[str, TrainedVariant]) -> FinetuningReport:
        """Measures latency and size, scores the layers after fine-tuning, and compares the variants.

        Args:
            trained: Trained variants by name.

        Returns:
            The complete record of the run.
        """
        report, data = self.report, self.data
        first = next(iter(trained.values()))
        report.layers.profiles[FINETUNED] = profile_labels(
            first.model, data.task, data.feature_extractor, self.options
        )
        latency = measure_latency(
            {name: as_loaded(variant.model) for name, variant in trained.items()},
            seconds=data.task.clip_seconds,
            sampling_rate=data.feature_extractor.sampling_rate,
        )
        results = report.results
        results.references = data.task.splits["test"]["label"][:]
        for name, variant in trained.items():
            num_parameters = measure_size(variant.model).num_parameters
            results.variants[name] = Variant(self.depths[name], num_parameters, latency[name], variant.results)
        if len(trained) == 2:
            results.difference = paired_difference(
                trained[FULL].results, trained[TRUNCATED].results, results.references
            )
        return report

    def save(self, report: FinetuningReport, trained: dict[str, TrainedVariant]) -> None:
        """Saves the model of the last variant with its card, moves it to the output folder, and pushes it if asked to.

        Args:
            report: Complete record of the run.
            trained: Trained variants by name.

        Raises:
            RuntimeError: If the saved model does not load, or computes other values.
            PushError: If the push fails; the output folder is complete.
        """
        folder, model = self.folder.new_result(), list(trained.values())[-1].model
        model.save_pretrained(folder)
        self.data.feature_extractor.save_pretrained(folder)
        draw_profiles(report.layers.profiles, report.layers.choice, self.data.task.name, folder / PROFILE_PICTURE)
        publish_finetuning(report, model, folder, self.folder.output_dir.name, self.hub.repo_ids.get(""))
        self.folder.finish()
        logger.info(f"{format_table(report)}\nThe model is in {self.output_dir}.")
        self.hub.push(self.output_dir)


def finetune(options: TruncationArguments, training: FinetuningArguments) -> Path:
    """Runs the recipe.

    Args:
        options: Model, task, and choice of the layers.
        training: Arguments of the Trainer; `output_dir` must be a new or an empty folder.

    Returns:
        The output folder, which is only there when it is complete.
    """
    recipe = FinetuningRecipe(options, training)
    recipe.setup()
    return recipe.run()


def make_parser() -> OptionParser:
    """Returns the parser of the command's options."""
    return OptionParser(
        PROGRAM,
        "Keeps the first layers of a WavLM, HuBERT or wav2vec 2.0 checkpoint, chosen by how convex its classes are, and\n"
        "fine-tunes them on Speech Commands or on labelled clips of your own.",
        (TruncationArguments, FinetuningArguments),
        FINETUNING_TABLE,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Truncates and fine-tunes a checkpoint.

    Args:
        arguments: Options of the command, after a recipe or without one; `None` for those of this process.
    """
    with console_output(), leave_process_group():
        options, training = make_parser().parse(sys.argv[1:] if arguments is None else arguments)
        with stoppable(PROGRAM) as progress:
            with user_errors(PROGRAM, PushError):
                recipe = FinetuningRecipe(options, training)
                progress.folder = recipe.folder
                recipe.setup()
            # The finished model is in its place when a push fails.
            with one_line_errors(PROGRAM, PushError):
                recipe.run()


if __name__ == "__main__":
    main()
