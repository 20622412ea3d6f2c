"""Truncates a model at the layer where classes are most convex, and fine-tunes it on Speech Commands.

    python run_finetune_speech_commands.py --model_name_or_path microsoft/wavlm-base \
        --dataset_name speech_commands_v0.02 --task word --compare --output_dir wavlm-base-words

All options, the Trainer's included, are listed by `--help`; a .yaml or .json file may hold them. The same command goes on
with a run that was interrupted.
"""

from __future__ import annotations

import copy
import logging
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from transformers import AutoFeatureExtractor

from ..data.speech_commands_tasks import CLIP_SECONDS
from ..finetuning.arguments import TruncationArguments
from ..finetuning.classifier import FinetuningArguments, fine_tune, make_classifier
from ..finetuning.task_profiles import choose_depth, profile_labels
from ..hub import HubPush
from ..modeling.loading import load_complete
from ..reporting.finetuning_report import (
    FULL,
    TRUNCATED,
    FinetuningReport,
    Variant,
    format_table,
    paired_difference,
)
from ..reporting.layer_pictures import draw_profiles
from ..reporting.measurement import describe_machine, measure_latency, measure_size
from ..reporting.model_card import PROFILE_PICTURE
from ..reporting.provenance import command_line, library_versions, source_commit
from ..reporting.publication import publish_finetuning
from ..runtime.console import console_output
from ..runtime.files import check_output_directory, move_into_place
from ..runtime.options import OptionParser
from ..runtime.settings import remember_settings
from .trainer_options import FINETUNING_TABLE


PROGRAM = "hf-prunable finetune-speech-commands"

logger = logging.getLogger("hf_prunable")


def finetune(options: TruncationArguments, training: FinetuningArguments) -> Path:
    """Chooses the depth, trains, measures, and writes the result to `training.output_dir` when it is complete."""
    # A recipe may be another one by the time that the run is over.
    command, output_dir = command_line(sys.argv), Path(training.output_dir)
    working_dir = output_dir.with_name(f"{output_dir.name}.partial")
    check_output_directory(output_dir)
    hub = HubPush.take_from(training)
    if training.process_index == 0:
        hub.check()
    feature_extractor = AutoFeatureExtractor.from_pretrained(options.model_name_or_path)
    with training.main_process_first(desc="reading the clips"):
        splits, skipped = options.load_clips(feature_extractor.sampling_rate)
        if training.process_index == 0:
            remember_settings(working_dir, asdict(options) | training.settings(), options.override)

    features_dir = working_dir / "features"
    with training.main_process_first(desc="scoring the layers"):
        base = load_complete(options.model_name_or_path)
        stages = {"pretrained": profile_labels(base, splits["train"], feature_extractor, options, features_dir)}
    choice = choose_depth(stages["pretrained"], options)
    depth = base.config.num_hidden_layers
    is_truncated = choice is not None and choice.num_layers < depth
    depths = {FULL: depth} if options.compare or not is_truncated else {}
    if is_truncated:
        depths[TRUNCATED] = choice.num_layers
    elif choice is not None:
        logger.warning(f"All {depth} layers are kept, by {choice.criterion}; there is nothing to compare or to save.")

    class_names = splits["train"].features["label"].names
    models, results = {}, defaultdict(list)
    for seed in options.seeds:
        for name, num_layers in depths.items():
            args = copy.copy(training)
            args.seed, args.output_dir = seed, str(working_dir / f"{name}_seed_{seed}")
            model = make_classifier(options, class_names, num_layers, seed)
            results[name].append(fine_tune(model, splits, feature_extractor, args))
            # The first seed's model is measured and kept.
            models.setdefault(name, model.cpu().eval())
    if training.process_index > 0:
        return output_dir

    stages["fine-tuned"] = profile_labels(next(iter(models.values())), splits["train"], feature_extractor, options)
    latency = measure_latency(
        {name: model.to_stock() if model.is_stock else model for name, model in models.items()}, seconds=CLIP_SECONDS
    )
    references = splits["test"]["label"][:]
    report = FinetuningReport(
        command=command,
        model_name=options.model_name_or_path,
        task=options.task,
        machine=describe_machine("cpu"),
        class_names=class_names,
        num_clips={name: len(split) for name, split in splits.items()},
        num_skipped={cause: len(names) for cause, names in skipped.names.items()},
        choice=None if choice is None else asdict(choice),
        variants={
            name: Variant(depths[name], measure_size(model).num_parameters, latency[name], results[name])
            for name, model in models.items()
        },
        references=references,
        difference=paired_difference(results[FULL], results[TRUNCATED], references) if len(depths) == 2 else None,
        profiles={
            stage: {label: profile.to_dict() for label, profile in profiles.items()}
            for stage, profiles in stages.items()
        },
        num_layers=depth,
        family=base.config.stock_config_class.model_type,
        dataset_name=options.dataset_name,
        dataset_config_name=options.dataset_config_name,
        words=options.words,
        versions=library_versions(),
        commit=source_commit(),
    )
    *_, model = models.values()
    folder = working_dir / "result"
    model.save_pretrained(folder)
    feature_extractor.save_pretrained(folder)
    draw_profiles(stages, choice, options.task, folder / PROFILE_PICTURE)
    publish_finetuning(report, model, folder, output_dir.name, hub.repo_ids.get(""))
    move_into_place(folder, output_dir)
    shutil.rmtree(working_dir, ignore_errors=True)
    logger.info(f"{format_table(report)}\nThe model is in {output_dir}.")
    hub.push(output_dir)
    return output_dir


def make_parser() -> OptionParser:
    """Returns the parser of the command's options."""
    return OptionParser(
        PROGRAM,
        "Keeps the first layers of a WavLM, HuBERT or wav2vec 2.0 checkpoint, chosen by how convex its classes are, and\n"
        "fine-tunes them on Speech Commands. A recipe is a .yaml or .json file of options; options after it override it.",
        (TruncationArguments, FinetuningArguments),
        FINETUNING_TABLE,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Truncates and fine-tunes a checkpoint.

    Args:
        arguments: Options of the command, after a recipe or without one; `None` for those of this process.
    """
    with console_output():
        finetune(*make_parser().parse(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    main()
