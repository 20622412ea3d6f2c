"""Prunes a WavLM, HuBERT or wav2vec 2.0 checkpoint: learns gates by distillation, compacts, trains on, reports.

    python run_prune.py --model_name_or_path examples/wavlm-mini --dataset_name my_recordings \
        --target_sparsity 0.72 --max_steps 1500 --final_steps 500 --output_dir wavlm-mini-pruned

    accelerate launch run_prune.py recipe.yaml

All options, the Trainer's included, are listed by `python run_prune.py --help`; a .yaml or .json file may hold them.
The same command goes on with a run that was interrupted.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from transformers import AutoConfig, AutoFeatureExtractor

from ..data.arguments import SpeechArguments, load_speech
from ..data.labels import load_label_encoding
from ..hub import HubPush
from ..modeling.auto import prunable_class
from ..modeling.loading import load_complete
from ..pruning.arguments import PruningArguments
from ..pruning.decisions import check_target
from ..pruning.gate_initialization import order_gates_by_weights_
from ..pruning.objective import ObjectiveArguments
from ..pruning.run import PruningRun
from ..pruning.student import load_student, restore_noise_
from ..pruning.training_arguments import PruningTrainingArguments
from ..reporting.measurement import as_loaded, measure_latency
from ..reporting.provenance import Provenance, command_line
from ..reporting.pruning_report import (
    DENSE,
    PRUNED,
    HeldOutLoss,
    PruningInputs,
    PruningReport,
    format_table,
    measure_pruning,
)
from ..reporting.publication import publish_pruning
from ..runtime.console import console_output
from ..runtime.files import check_output_directory, move_into_place
from ..runtime.options import OptionParser
from ..runtime.settings import remember_settings
from .trainer_options import PRUNING_TABLE


logger = logging.getLogger("hf_prunable")

# Options that a result does not depend on.
PROGRAM = "hf-prunable prune"
UNRECORDED = ("override", "latency_seconds")


def prune(
    options: PruningArguments,
    speech_options: SpeechArguments,
    objective: ObjectiveArguments,
    training: PruningTrainingArguments,
) -> Path:
    """Runs the stages and writes the result to `training.output_dir`, which appears only when complete.

    With several targets, each has a folder in it, and on the Hub a repository of its own. A run that was interrupted left
    its working folder beside it, and goes on from there.
    """
    # A recipe may be another one by the time that the run is over.
    command, output_dir = command_line(sys.argv), Path(training.output_dir)
    working_dir = output_dir.with_name(f"{output_dir.name}.partial")
    check_output_directory(output_dir)
    if training.resume_from_checkpoint:
        raise ValueError("`resume_from_checkpoint` is not supported by this script. Leave it out.")
    targets, measure = options.targets()
    parts = options.parts()
    hub = HubPush.take_from(training, parts)
    is_first = training.process_index == 0
    if is_first:
        hub.check()

    # Another kind of model is told by its name, before anything of it is read.
    prunable_class(AutoConfig.from_pretrained(options.model_name_or_path))
    feature_extractor = AutoFeatureExtractor.from_pretrained(options.model_name_or_path)
    speech = load_speech(speech_options, feature_extractor.sampling_rate, training.seed)
    task = None
    if objective.has_task:
        task = load_label_encoding(
            objective.task, options.model_name_or_path, speech.train_clips, objective.label_column
        )
    head = {} if task is None else {"auto_class": task.auto_class, **task.model_options}
    student, original_config = load_student(options.model_name_or_path, **head)
    student.attach_gates(tuple(options.prune_units), options.ste, options.initial_drop_rate)
    for target in targets:
        check_target(student, target, measure)
    teacher_name = options.teacher_name_or_path or options.model_name_or_path

    training.output_dir = str(working_dir)
    run = PruningRun(
        student,
        load_complete(teacher_name) if objective.has_distillation else None,
        training,
        objective,
        train_clips=speech.train_clips,
        held_out_clips=speech.held_out_clips,
        feature_extractor=feature_extractor,
        task=task,
        measure=measure,
        round_to=options.round_to,
    )
    if is_first:
        settings = asdict(options) | asdict(speech_options) | asdict(objective) | training.settings()
        settings = {name: value for name, value in settings.items() if name not in UNRECORDED}
        remember_settings(working_dir, settings | {"clips": speech.digest}, options.override)

    inputs = PruningInputs(
        command=command,
        model_name=options.model_name_or_path,
        family=student.config.stock_config_class.model_type,
        sampling_rate=feature_extractor.sampling_rate,
        dataset_name=speech_options.dataset_name,
        num_skipped=speech.num_skipped,
        teacher_name=teacher_name if objective.has_distillation else None,
        objective=objective.objective,
        units=options.prune_units,
        steps={"with gates": training.max_steps, "after compaction": training.final_steps},
        seed=training.seed,
    )
    provenance = Provenance.of_this_process(student.device)

    dense_loss = run.held_out_loss()
    # Gates of small weights may start below 1, so the loss before pruning is taken first.
    order_gates_by_weights_(student, options.initial_norm_spread)
    run.learn_gates(targets)
    dense = load_complete(options.model_name_or_path)
    for target, part in zip(targets, parts, strict=True):
        run.compact(target)
        losses = HeldOutLoss(dense_loss, run.held_out_loss())
        if training.final_steps > 0:
            run.train_student()
            losses.after_final_steps = run.held_out_loss()
        # All processes hold the same model; one writes it.
        if is_first:
            folder = working_dir / "result" / part
            restore_noise_(run.student, original_config)
            for piece in (run.student, feature_extractor, task and task.tokenizer):
                if piece is not None:
                    piece.save_pretrained(folder)
            pruned = run.student.base_model
            sizes = measure_pruning(dense, pruned, measure=measure, target_sparsity=target, round_to=options.round_to)
            report = PruningReport(inputs, provenance, sizes)
            report.results.held_out_loss, report.results.history = losses, run.history
            report.results.latency = measure_latency(
                {DENSE: as_loaded(dense).to(pruned.device), PRUNED: pruned},
                seconds=options.latency_seconds,
                sampling_rate=feature_extractor.sampling_rate,
            )
            name, auto_class = f"{output_dir.name}-{part}".rstrip("-"), head.get("auto_class", "AutoModel")
            publish_pruning(report, run.student, folder, name, hub.repo_ids.get(part), auto_class)
            logger.info(f"At a target of {target:g}:\n{format_table(report)}")
    if is_first:
        move_into_place(working_dir / "result", output_dir)
        shutil.rmtree(working_dir, ignore_errors=True)
        logger.info(f"The pruned model is in {output_dir}.")
        hub.push(output_dir)
    return output_dir


def make_parser() -> OptionParser:
    """Returns the parser of the command's options."""
    return OptionParser(
        PROGRAM,
        "Prunes a WavLM, HuBERT or wav2vec 2.0 checkpoint: trains gates with the weights, removes what the gates have closed,\n"
        "and trains the smaller model. A recipe is a .yaml or .json file of options; options after it override it.",
        (PruningArguments, SpeechArguments, ObjectiveArguments, PruningTrainingArguments),
        PRUNING_TABLE,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prunes a checkpoint.

    Args:
        arguments: Options of the command, after a recipe or without one; `None` for those of this process.
    """
    with console_output():
        prune(*make_parser().parse(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    main()
