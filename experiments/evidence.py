"""Compares pruned students of one size: how near they are to their teacher, and what classifiers read from them.

    python -m experiments evidence --teacher wavlm-mini --dataset_name LibriSpeech/train-clean-100 \
        --speech_commands speech_commands_v0.02 --output_dir evidence --seeds 42 43 44

Values over size: `--rows one_shot one_shot_trained teacher --target_sparsities 0.3 0.5 0.72 0.85`. A teacher of another
family needs another output folder.
Each student writes one JSON file to the folder `raw`, and one model to the folder `models`. Existing results are not made
again, so the same command resumes an interrupted comparison. `--report_only` writes tables and pictures of the existing
results; it needs no option other than `--output_dir`.
"""

from __future__ import annotations

import copy
import json
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoFeatureExtractor, HfArgumentParser, set_seed
from transformers.utils import logging

from benchmarks.result_files import without_keys, write_json
from experiments.compared_students import DEFAULT_ROWS, ROWS, STUDENTS, TEACHER, Source, Student
from experiments.encoder_evaluation import EncoderEvaluation
from experiments.evidence_report import write_report
from experiments.evidence_results import (
    CROP_SETTINGS,
    Run,
    is_finished,
    load_results,
    plan_runs,
    result_path,
    settings_of,
)
from experiments.one_shot_students import check_rows, load_teacher
from experiments.split_audio import SplitAudio
from experiments.student_measurement import measure_at_depth
from experiments.teacher_and_audio import FOLDERS, TeacherAndAudioArguments
from hf_prunable.modeling.pretrained import PrunableModelMixin
from hf_prunable.pruning.arguments import DEFAULT_FINAL_STEPS, PruningTrainingArguments
from hf_prunable.pruning.objective_arguments import ObjectiveArguments
from hf_prunable.pruning.stages import TrainingStages
from hf_prunable.pruning.training_data import TrainingData
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.reporting.pictures import draw_shape


logger = logging.get_logger("hf_prunable.benchmarks")

# Settings of model and data that results depend on.
DATA_SETTINGS = (*FOLDERS, "crop_seconds", "held_out_every", "num_crops", *CROP_SETTINGS)
# Keys of a result that are too long to be logged.
LONG_KEYS = ("history", "shape", "settings", "correct", "drop_in_correct", "group_sizes", "agreeing_frames")


@dataclass(kw_only=True)
class EvidenceArguments(TeacherAndAudioArguments):
    """Teacher, students, sizes, seeds and audio."""

    rows: list[str] = field(
        default_factory=lambda: list(DEFAULT_ROWS),
        metadata={"help": f"Rows to run, of {', '.join(ROWS)}; default: {', '.join(DEFAULT_ROWS)}."},
    )
    target_sparsities: list[float] = field(
        default_factory=lambda: [0.72],
        metadata={"help": "Fractions of the dense encoder's parameters to remove, between 0 and 1."},
    )
    seeds: list[int] = field(
        default_factory=lambda: [42], metadata={"help": "Random seeds, one student per row, size and seed."}
    )
    train_crop_seconds: float = field(default=2.0, metadata={"help": "Length of the training crops in seconds."})
    shortest_train_crop_seconds: float = field(
        default=1.0, metadata={"help": "Length of the shortest training crops in seconds in rows with random lengths."}
    )
    ungated_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of rows without gates; default: `learning_rate`."}
    )
    refitted_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Peak learning rate of the last stage after one-shot pruning or a refit; default: that of the other "
            "rows."
        },
    )


class Comparison:
    """Makes and evaluates students of one teacher on one set of audio.

    Args:
        options: Options of the experiment.

    Raises:
        ValueError: If a required option is missing, or the teacher is pruned.
    """

    def __init__(self, options: EvidenceArguments):
        self.options = options
        self.teacher_folder, dataset_name, speech_commands = options.folders()
        self.teacher = load_teacher(self.teacher_folder)
        if not self.teacher.is_stock:
            raise ValueError(f"The teacher {self.teacher_folder!r} is pruned. Give a dense checkpoint.")
        feature_extractor = AutoFeatureExtractor.from_pretrained(self.teacher_folder)
        self.audio = SplitAudio(dataset_name, feature_extractor, options.crop_seconds, options.held_out_every)
        self.evaluation = EncoderEvaluation(self.teacher, feature_extractor, self.audio, speech_commands)

    def run(self, run: Run, training: PruningTrainingArguments, model_folder: Path) -> dict[str, Any]:
        """Makes, saves and evaluates one student, or evaluates the teacher.

        Args:
            run: Row, target and random seed.
            training: Training arguments of the row.
            model_folder: Output folder of the student and of a picture of its shape.

        Returns:
            Sizes, evaluation, times, history and shape.
        """
        self.teacher.to(training.device)
        if run.row == TEACHER:
            return self.evaluation(self.teacher)
        assert run.target_sparsity is not None and run.seed is not None
        row = STUDENTS[run.row]
        set_seed(run.seed)
        start = time.perf_counter()
        clips = torch.zeros(0, 0)
        if row.uses_calibration:
            clips = self.audio.calibration(self.options.num_crops, run.seed)
        source = Source(self.teacher_folder, run.target_sparsity, clips)
        student, result = row.start(source), {}
        if row.is_trained:
            student, result = self._train(row, student, source, training, run.seed)
        result["making_seconds"] = time.perf_counter() - start
        student.save_pretrained(model_folder)
        draw_shape(student.config.shape, student.config, model_folder / "shape.png")
        start = time.perf_counter()
        result |= self.evaluation(student.to(training.device))
        return result | {
            "evaluation_seconds": time.perf_counter() - start,
            "shape": student.config.shape.to_dict(),
        }

    def _train(
        self,
        row: Student,
        model: PrunableModelMixin,
        source: Source,
        training: PruningTrainingArguments,
        seed: int,
    ) -> tuple[PrunableModelMixin, dict[str, Any]]:
        crop_seconds, training = self.options.train_crop_seconds, copy.copy(training)
        shortest = self.options.shortest_train_crop_seconds if row.has_random_lengths else None
        training.seed = seed
        # An interrupted training starts anew, so checkpoints are of no use.
        training.save_strategy = "no"
        audio = self.audio
        clips = (audio.train_clips, audio.held_out_clips)
        data = TrainingData(*clips, audio.feature_extractor, crop_seconds, shortest_crop_seconds=shortest)
        objective = ObjectiveArguments(
            crop_seconds=crop_seconds, shortest_crop_seconds=shortest, distillation_projections=row.projections
        )
        with tempfile.TemporaryDirectory() as folder:
            stages = TrainingStages(model, self.teacher, training.in_folder(Path(folder)), objective, data)
            student = stages.initial_student
            if row.compaction is not None:
                (gates,) = stages.learn_gates(student, [source.target_sparsity])
                student = gates.load(student)
                student = replace(student, model=row.compaction(student.model, source))
            before = measure_at_depth(student.model.to(training.device), self.teacher, self.audio.held_out_batches())
            student = stages.train_student(student)
        result = {"loss": before.distillation_loss, "cosine": before.cosine}
        return student.model, {"before_final_steps": result, "history": student.history}


def make_results(options: EvidenceArguments, training: PruningTrainingArguments, folder: Path) -> None:
    """Makes the students whose results do not exist yet.

    Args:
        options: Options of the experiment.
        training: Training arguments of a row with both stages.
        folder: Output folder.

    Raises:
        ValueError: If an option is wrong, or a result exists that has other settings.
    """
    check_rows(options.rows, ROWS)
    waiting = []
    for run in plan_runs(options.rows, options.target_sparsities, options.seeds):
        path, row_training = result_path(folder, run), training
        if run.row != TEACHER:
            row_training = STUDENTS[run.row].training(
                training, options.ungated_learning_rate, options.refitted_learning_rate
            )
        settings = settings_of(run, options.settings(DATA_SETTINGS), row_training)
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
        logger.warning(json.dumps(without_keys(result, LONG_KEYS)))


def main() -> None:
    options, training = HfArgumentParser((EvidenceArguments, PruningTrainingArguments)).parse_args_into_dataclasses()
    training = training.with_final_steps(DEFAULT_FINAL_STEPS)
    folder = Path(training.output_dir)
    if not options.report_only:
        make_results(options, training, folder)
    write_report(load_results(folder), folder)


if __name__ == "__main__":
    main()
