"""Compares learned shapes with other students of the same size, trained for the same number of steps.

    python -m experiments evidence --teacher wavlm-mini --dataset_name LibriSpeech/train-clean-100 \
        --speech_commands speech_commands_v0.02 --output_dir evidence --seeds 42 43 44

Accuracy over size: `--rows learned uniform_width first_layers teacher --target_sparsities 0.3 0.5 0.72 0.85`. Several sizes
from one training of the gates: `--rows learned_ladder --target_sparsities 0.3 0.5 0.72`.
Each training writes one JSON file to the folder `raw`, and one model to the folder `models`. Existing results are not run
again, so the same command resumes an interrupted comparison. `--report_only` writes table and pictures of the existing
results; it needs no option other than `--output_dir`.
"""

from __future__ import annotations

import copy
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoFeatureExtractor, HfArgumentParser, PreTrainedModel, set_seed
from transformers.utils import logging

from benchmarks.result_files import without_keys, write_json
from experiments.compared_students import DEFAULT_ROWS, ROWS, STUDENTS, TEACHER, check_rows
from experiments.encoder_evaluation import EncoderEvaluation, EvaluationArguments
from experiments.evidence_report import write_report
from experiments.evidence_results import Run, is_finished, load_results, plan_runs, result_path, settings_of
from hf_prunable import load_prunable
from hf_prunable.modeling.size import UnitCounts, count_macs
from hf_prunable.pruning.arguments import DEFAULT_FINAL_STEPS, ObjectiveArguments, PruningTrainingArguments
from hf_prunable.pruning.gate_pruning import compact_student
from hf_prunable.pruning.stages import TrainingStages, final_stage_name
from hf_prunable.pruning.training_data import TrainingData
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.reporting.pictures import draw_shape


logger = logging.get_logger("hf_prunable.benchmarks")


@dataclass(kw_only=True)
class EvidenceArguments(EvaluationArguments):
    """Teacher, students, sizes and seeds."""

    teacher: str | None = field(default=None, metadata={"help": "Folder or Hub id of the dense checkpoint."})
    rows: list[str] = field(
        default_factory=lambda: list(DEFAULT_ROWS),
        metadata={"help": f"Rows to run, of {', '.join(ROWS)}; default: all except learned_ladder."},
    )
    target_sparsities: list[float] = field(
        default_factory=lambda: [0.72],
        metadata={"help": "Fractions of the dense encoder's parameters to remove, between 0 and 1."},
    )
    seeds: list[int] = field(
        default_factory=lambda: [42], metadata={"help": "Random seeds, one training per row and seed."}
    )
    ungated_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of rows without gates; default: `learning_rate`."}
    )
    report_only: bool = field(
        default=False, metadata={"help": "Write table and pictures of existing results without training."}
    )


class Comparison:
    """Trains and evaluates students of one teacher on one set of audio.

    Args:
        options: Options of the experiment.

    Raises:
        ValueError: If a required option is missing, or the teacher is pruned.
    """

    def __init__(self, options: EvidenceArguments):
        missing = [name for name in ("teacher", "dataset_name", "speech_commands") if not getattr(options, name)]
        if missing:
            raise ValueError(
                f"{', '.join(f'`--{name}`' for name in missing)} must be given, except with `--report_only`."
            )
        self.options = options
        self.teacher = load_prunable(options.teacher, dtype=torch.float32)
        if not self.teacher.is_stock:
            raise ValueError(f"The teacher {options.teacher!r} is pruned. Give a dense checkpoint.")
        feature_extractor = AutoFeatureExtractor.from_pretrained(options.teacher)
        self.evaluation = EncoderEvaluation(self.teacher, feature_extractor, options)
        self._ladders = tempfile.TemporaryDirectory()

    def run(self, run: Run, training: PruningTrainingArguments, model_folder: Path) -> dict[str, Any]:
        """Trains, saves and evaluates one student, or evaluates the teacher.

        Args:
            run: Row, target and random seed.
            training: Training arguments of the row.
            model_folder: Output folder of the student and of a picture of its shape.

        Returns:
            Sizes, evaluation, training time, history and shape.
        """
        if run.row == TEACHER:
            self.teacher.to(training.device)
            return self._size(self.teacher) | self.evaluation(self.teacher)
        row, training = STUDENTS[run.row], copy.copy(training)
        training.seed = run.seed
        # An interrupted training starts anew, so checkpoints are of no use.
        training.save_strategy = "no"
        set_seed(run.seed)
        student = row.make(self.options.teacher, run.target_sparsity)
        targets = sorted(self.options.target_sparsities) if row.is_ladder else [run.target_sparsity]
        with tempfile.TemporaryDirectory() as training_folder:
            # The gates of a ladder are trained once: for the next target, the run finds them in this folder.
            training.output_dir = f"{self._ladders.name}/{run.seed}" if row.is_ladder else training_folder
            student, result = self._train(student, targets if row.learns_gates else [], run.target_sparsity, training)
        student.save_pretrained(model_folder)
        draw_shape(student.config.shape, student.config, model_folder / "shape.png")
        return self._size(student) | result

    def _train(
        self,
        model: PreTrainedModel,
        gate_targets: list[float],
        target_sparsity: float,
        training: PruningTrainingArguments,
    ) -> tuple[PreTrainedModel, dict[str, Any]]:
        crop_seconds = self.options.crop_seconds
        data = TrainingData(
            self.evaluation.train_clips,
            self.evaluation.held_out_clips,
            self.evaluation.feature_extractor,
            crop_seconds,
        )
        stages = TrainingStages(model, self.teacher, training, ObjectiveArguments(crop_seconds=crop_seconds), data)
        student, stage_name = stages.initial_student, "stage_2"
        result: dict[str, Any] = {}
        training_seconds, start = 0.0, time.perf_counter()
        if gate_targets:
            learned = stages.learn_gates(student, gate_targets)
            training_seconds += time.perf_counter() - start
            result["masked"] = {"held_out_loss": stages.held_out_loss(learned[-1].load(student))}
            (at_target,) = (gates for gates in learned if gates.target == target_sparsity)
            student = compact_student(at_target.load(student), target_sparsity)
            stage_name = final_stage_name(target_sparsity)
        if training.final_steps:
            result["before_final_steps"] = {"held_out_loss": stages.held_out_loss(student)}
            start = time.perf_counter()
            student = stages.train_student(student, stage_name)
            training_seconds += time.perf_counter() - start
        start = time.perf_counter()
        result |= {"held_out_loss": stages.held_out_loss(student), **self.evaluation(student.model)}
        return student.model, result | {
            "training_seconds": training_seconds,
            "evaluation_seconds": time.perf_counter() - start,
            "history": student.history,
            "shape": student.model.config.shape.to_dict(),
        }

    def _size(self, model: PreTrainedModel) -> dict[str, Any]:
        num_parameters = model.num_parameters()
        return {
            "num_parameters": num_parameters,
            "sparsity": 1 - num_parameters / self.teacher.num_parameters(),
            "macs": count_macs(model.config, UnitCounts.of(model.config.shape)),
        }


def make_results(options: EvidenceArguments, training: PruningTrainingArguments, folder: Path) -> None:
    """Runs the trainings whose results do not exist yet.

    Args:
        options: Options of the experiment.
        training: Training arguments of a row with both stages.
        folder: Output folder.

    Raises:
        ValueError: If an option is wrong, or a result exists that has other settings.
    """
    check_rows(options.rows)
    waiting = []
    for run in plan_runs(options.rows, options.target_sparsities, options.seeds):
        path, row_training = result_path(folder, run), training
        if run.row != TEACHER:
            row_training = STUDENTS[run.row].training(training, options.ungated_learning_rate)
        settings = settings_of(run, _data_settings(options), row_training)
        if run.row != TEACHER and STUDENTS[run.row].is_ladder:
            settings["ladder"] = sorted(options.target_sparsities)
        if is_finished(path, settings):
            logger.warning(f"{path} exists; skipped.")
        else:
            waiting.append((run, row_training, path, settings))
    if not waiting:
        return
    comparison = Comparison(options)
    for run, row_training, path, settings in waiting:
        result = {"row": run.row, "target_sparsity": run.target_sparsity, "seed": run.seed, "settings": settings}
        result["machine"] = describe_machine(training.device)
        result |= comparison.run(run, row_training, folder / "models" / run.name)
        write_json(path, result)
        logger.warning(json.dumps(without_keys(result, ("history", "shape", "settings"))))


def _data_settings(options: EvidenceArguments) -> dict[str, Any]:
    """Settings of model and data. Folders are compared by name, so that results of several machines fit together."""
    names = {name: getattr(options, name) for name in ("teacher", "dataset_name", "speech_commands", "librispeech")}
    names["librispeech"] = names["librispeech"] or names["dataset_name"]
    settings = {name: path and Path(path).name for name, path in names.items()}
    return settings | {name: getattr(options, name) for name in ("crop_seconds", "held_out_fraction", "held_out_seed")}


def main() -> None:
    options, training = HfArgumentParser((EvidenceArguments, PruningTrainingArguments)).parse_args_into_dataclasses()
    training = training.with_final_steps(DEFAULT_FINAL_STEPS)
    folder = Path(training.output_dir)
    if not options.report_only:
        make_results(options, training, folder)
    write_report(load_results(folder), folder)


if __name__ == "__main__":
    main()
