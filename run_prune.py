"""Prunes a WavLM, HuBERT or wav2vec 2.0 checkpoint: learns gates by distillation, compacts, trains on, reports.

    python run_prune.py --model_name_or_path examples/wavlm-mini --dataset_name my_recordings \
        --target_sparsity 0.72 --max_steps 1500 --final_steps 500 --output_dir wavlm-mini-pruned

    accelerate launch run_prune.py recipe.yaml

All options, the Trainer's included, are listed by `python run_prune.py --help`; a .yaml or .json file may hold them.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from transformers import AutoConfig, AutoFeatureExtractor, HfArgumentParser

from hf_prunable.checkpoints import remember_settings
from hf_prunable.decisions import check_target
from hf_prunable.files import check_output_directory, move_into_place
from hf_prunable.modeling.auto import prunable_class
from hf_prunable.modeling.pretrained import DEFAULT_UNITS
from hf_prunable.objective import ObjectiveArguments
from hf_prunable.pruning import PruningRun, clips_digest
from hf_prunable.publication import measure_run, publish_report
from hf_prunable.report import HeldOutLoss, format_table
from hf_prunable.size import MAC_SECONDS
from hf_prunable.speech_data import load_speech_dataset, scan_speech_dataset, split_held_out
from hf_prunable.student import load_complete, load_student, restore_noise_
from hf_prunable.target import choose_target
from hf_prunable.task import load_task
from hf_prunable.training import PruningTrainingArguments


logger = logging.getLogger("hf_prunable")

# Options that a result does not depend on.
UNRECORDED = ("override", "latency_seconds")
DEFAULT_TARGET = 0.72


@dataclass
class PruningArguments:
    """What to prune, on what audio, to what size."""

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the checkpoint, stock or pruned before."})
    dataset_name: str = field(metadata={"help": "Folder of audio, parquet file or folder, or Hub id."})
    teacher_name_or_path: str | None = field(
        default=None, metadata={"help": "Checkpoint that the student learns from; the model itself by default."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    dataset_split: str = field(default="train", metadata={"help": "Split of the data set."})
    target_sparsity: list[float] | None = field(
        default=None,
        metadata={
            "help": f"Part of all parameters of the dense encoder to remove, {DEFAULT_TARGET} by default; several in "
            "ascending order for a model each."
        },
    )
    target_macs: list[float] | None = field(
        default=None,
        metadata={"help": "Part of its multiply-accumulates to remove, instead of `target_sparsity`; or several."},
    )
    mac_seconds: float = field(
        default=MAC_SECONDS, metadata={"help": "Length of the clip that multiply-accumulates are counted for."}
    )
    round_to: int | None = field(
        default=None,
        metadata={"help": "Round widths to multiples of this number, which moves the size off the target."},
    )
    prune_units: list[str] = field(
        default_factory=lambda: list(DEFAULT_UNITS),
        metadata={"help": "Units with gates: mha, head, qk, vo, ffn, int, conv."},
    )
    ste: bool = field(default=True, metadata={"help": "Let gradients pass the gates' hard limits."})
    initial_drop_rate: float = field(
        default=0.05, metadata={"help": "Where all gates start: nearer to 0, they take longer to reach a decision."}
    )
    min_seconds: float = field(default=1.0, metadata={"help": "Shorter clips are left out."})
    held_out_fraction: float = field(default=0.05, metadata={"help": "Part of the clips kept for evaluation."})
    latency_seconds: float = field(default=10.0, metadata={"help": "Length of the clip that latency is measured on."})
    override: bool = field(
        default=False, metadata={"help": "Go on with an interrupted run although the settings have changed."}
    )

    def __post_init__(self):
        # A recipe may name a single target without the brackets of a list.
        for name in ("target_sparsity", "target_macs"):
            if isinstance(getattr(self, name), int | float):
                setattr(self, name, [getattr(self, name)])


def prune(options: PruningArguments, objective: ObjectiveArguments, training: PruningTrainingArguments) -> Path:
    """Runs the stages and writes the result to `training.output_dir`, which appears only when complete.

    With several targets, each has a folder in it. A run that was interrupted left its working folder beside it, and
    goes on from there.
    """
    output_dir = Path(training.output_dir)
    working_dir = output_dir.with_name(f"{output_dir.name}.partial")
    check_output_directory(output_dir)
    for name in ("push_to_hub", "resume_from_checkpoint"):
        if getattr(training, name):
            raise ValueError(f"`{name}` is not supported by this script. Leave it out.")
    targets, measure = choose_target(options.target_sparsity, options.target_macs, options.mac_seconds)
    targets = [DEFAULT_TARGET] if targets is None else targets

    # Another kind of model is told by its name, before anything of it is read.
    prunable_class(AutoConfig.from_pretrained(options.model_name_or_path))
    feature_extractor = AutoFeatureExtractor.from_pretrained(options.model_name_or_path)
    clips, skipped = scan_speech_dataset(
        load_speech_dataset(
            options.dataset_name, split=options.dataset_split, config_name=options.dataset_config_name
        ),
        sampling_rate=feature_extractor.sampling_rate,
        min_seconds=options.min_seconds,
    )
    train_clips, held_out_clips = split_held_out(clips, fraction=options.held_out_fraction, seed=training.seed)
    task = None
    if objective.has_task:
        task = load_task(objective.task, options.model_name_or_path, clips, objective.label_column)
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
        train_clips=train_clips,
        held_out_clips=held_out_clips,
        feature_extractor=feature_extractor,
        task=task,
        measure=measure,
        round_to=options.round_to,
    )
    if training.process_index == 0:
        settings = asdict(options) | asdict(objective) | training.settings() | {"clips": clips_digest(train_clips)}
        settings = {name: value for name, value in settings.items() if name not in UNRECORDED}
        remember_settings(working_dir, settings, options.override)

    dense_loss = run.held_out_loss()
    run.learn_gates(targets)
    dense = load_complete(options.model_name_or_path)
    for target in targets:
        run.compact(target)
        losses = HeldOutLoss(dense_loss, run.held_out_loss())
        if training.final_steps > 0:
            run.train_student()
            losses.after_final_steps = run.held_out_loss()
        if training.process_index > 0:
            # All processes hold the same model; one writes it.
            continue
        restore_noise_(run.student, original_config)
        folder = working_dir / "result"
        if len(targets) > 1:
            folder /= f"{measure.option.removeprefix('target_')}-{target:g}"
        run.student.save_pretrained(folder)
        feature_extractor.save_pretrained(folder)
        if task is not None and task.tokenizer is not None:
            task.tokenizer.save_pretrained(folder)
        report = measure_run(
            dense=dense,
            pruned=run.student.base_model,
            latency_seconds=options.latency_seconds,
            measure=measure,
            command=shlex.join(["python", *sys.argv]),
            seed=training.seed,
            model_name=teacher_name if objective.has_distillation else options.model_name_or_path,
            units=options.prune_units,
            steps={"with gates": training.max_steps, "after compaction": training.final_steps},
            skipped_audio={cause: len(names) for cause, names in skipped.names.items()},
            target_sparsity=target,
            round_to=options.round_to,
            objective=objective.objective,
            held_out_loss=losses,
            history=run.history,
        )
        publish_report(
            report, run.student, folder, title=output_dir.name, auto_class=head.get("auto_class", "AutoModel")
        )
        logger.info(f"At a target of {target:g}:\n{format_table(report)}")
    if training.process_index == 0:
        move_into_place(working_dir / "result", output_dir)
        shutil.rmtree(working_dir, ignore_errors=True)
        logger.info(f"The pruned model is in {output_dir}.")
    return output_dir


def main() -> None:
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    parser = HfArgumentParser((PruningArguments, ObjectiveArguments, PruningTrainingArguments))
    if len(sys.argv) == 2 and sys.argv[1].endswith((".yaml", ".yml", ".json")):
        read = parser.parse_json_file if sys.argv[1].endswith(".json") else parser.parse_yaml_file
        arguments = read(sys.argv[1])
    else:
        arguments = parser.parse_args_into_dataclasses()
    prune(*arguments)


if __name__ == "__main__":
    main()
