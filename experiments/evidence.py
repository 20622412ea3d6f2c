"""Does learning the shape pay? Students of one size, trained for the same number of steps, side by side.

    python -m experiments.evidence --teacher examples/wavlm-mini --dataset_name LibriSpeech/train-clean-100 \
        --speech_commands speech_commands_v0.02 --output_dir evidence --seeds 42 43 44

Accuracy against size: add `--rows learned uniform_width first_layers teacher --target_sparsities 0.3 0.5 0.72 0.85`. Three
sizes from one training of the gates: `--rows learned_ladder --target_sparsities 0.3 0.5 0.72`.
Every result is a JSON file of its own, and those that are there are not made again: the same command goes on where it
stopped. `--report_only` draws up table and pictures from what is there; `--output_dir` is all it needs beside.
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

from experiments.evidence_report import write_report
from experiments.evidence_results import Run, is_finished, load_results, plan_runs, settings_of
from experiments.measures import Measures
from experiments.students import DEFAULT_ROWS, ROWS, STUDENTS, TEACHER, check_rows
from hf_prunable import load_prunable
from hf_prunable.modeling.size import UnitCounts, count_macs
from hf_prunable.pruning.objective import ObjectiveArguments
from hf_prunable.pruning.run import PruningRun
from hf_prunable.pruning.training_arguments import PruningTrainingArguments
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.runtime.files import write_text_atomically


logger = logging.get_logger("hf_prunable.benchmarks")


@dataclass
class EvidenceArguments:
    """What to compare."""

    teacher: str | None = field(
        default=None, metadata={"help": "Dense checkpoint that all students come from and learn from."}
    )
    dataset_name: str | None = field(default=None, metadata={"help": "Folder of audio to distil on."})
    speech_commands: str | None = field(
        default=None, metadata={"help": "Folder with the extracted Speech Commands archive, for words."}
    )
    librispeech: str | None = field(
        default=None, metadata={"help": "Folder of LibriSpeech, for speakers; by default `dataset_name`."}
    )
    rows: list[str] = field(
        default_factory=lambda: list(DEFAULT_ROWS),
        metadata={"help": f"Which rows to run, of {', '.join(ROWS)}; by default all but the ladder."},
    )
    target_sparsities: list[float] = field(
        default_factory=lambda: [0.72], metadata={"help": "Parts of the dense encoder's parameters to remove."}
    )
    seeds: list[int] = field(default_factory=lambda: [42], metadata={"help": "One training of every row for each."})
    ungated_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak rate of rows without gates; by default `learning_rate`."}
    )
    crop_seconds: float = field(default=2.0, metadata={"help": "Length of the crops that are trained on."})
    held_out_fraction: float = field(default=0.1, metadata={"help": "Part of the clips kept for evaluation."})
    held_out_seed: int = field(default=42, metadata={"help": "Chooses these clips, the same for all seeds."})
    report_only: bool = field(default=False, metadata={"help": "Train nothing; write table and pictures."})


class Comparison:
    """Trains and measures students of one teacher on one set of audio.

    Args:
        options: With the names of model and data.

    Raises:
        ValueError: If one is not given, or the teacher is pruned already.
    """

    def __init__(self, options: EvidenceArguments):
        missing = [name for name in ("teacher", "dataset_name", "speech_commands") if not getattr(options, name)]
        if missing:
            raise ValueError(
                f"{', '.join(f'`--{name}`' for name in missing)} must be given, unless there is `--report_only`."
            )
        self.options = options
        self.teacher = load_prunable(options.teacher, dtype=torch.float32)
        if not self.teacher.is_stock:
            raise ValueError(f"The teacher {options.teacher!r} is pruned already. Give a dense checkpoint.")
        self.measures = Measures(
            self.teacher,
            AutoFeatureExtractor.from_pretrained(options.teacher),
            dataset_name=options.dataset_name,
            speech_commands=options.speech_commands,
            librispeech=options.librispeech or options.dataset_name,
            held_out_fraction=options.held_out_fraction,
            held_out_seed=options.held_out_seed,
            min_seconds=options.crop_seconds,
        )
        self._ladders = tempfile.TemporaryDirectory()

    def run(self, run: Run, training: PruningTrainingArguments, model_folder: Path) -> dict[str, Any]:
        """Trains one student, saves it and measures it.

        Args:
            run: Which one.
            training: Of its row.
            model_folder: To save it to.
        """
        if run.row == TEACHER:
            self.teacher.to(training.device)
            return self._size(self.teacher) | self.measures(self.teacher)
        row, training = STUDENTS[run.row], copy.copy(training)
        training.seed = run.seed
        # A row is made as a whole, so nothing could go on from a checkpoint within it.
        training.save_strategy = "no"
        set_seed(run.seed)
        student = row.make(self.options.teacher, run.target_sparsity)
        targets = sorted(self.options.target_sparsities) if row.is_ladder else [run.target_sparsity]
        with tempfile.TemporaryDirectory() as training_folder:
            # Gates of a ladder learn once: for its next target, the run finds there what they came to.
            training.output_dir = f"{self._ladders.name}/{run.seed}" if row.is_ladder else training_folder
            student, result = self._train(student, targets if row.learns_gates else [], run.target_sparsity, training)
        student.save_pretrained(model_folder)
        return self._size(student) | result

    def _train(
        self,
        student: PreTrainedModel,
        gate_targets: list[float],
        target_sparsity: float,
        training: PruningTrainingArguments,
    ) -> tuple[PreTrainedModel, dict[str, Any]]:
        pruning = PruningRun(
            student,
            self.teacher,
            training,
            ObjectiveArguments(crop_seconds=self.options.crop_seconds),
            train_clips=self.measures.train_clips,
            held_out_clips=self.measures.held_out_clips,
            feature_extractor=self.measures.feature_extractor,
        )
        result: dict[str, Any] = {}
        training_seconds, start = 0.0, time.perf_counter()
        if gate_targets:
            pruning.learn_gates(gate_targets)
            training_seconds += time.perf_counter() - start
            result["masked"] = {"held_out_loss": pruning.held_out_loss()}
            pruning.compact(target_sparsity)
        if training.final_steps:
            result["before_final_steps"] = {"held_out_loss": pruning.held_out_loss()}
            start = time.perf_counter()
            pruning.train_student()
            training_seconds += time.perf_counter() - start
        start = time.perf_counter()
        result |= {"held_out_loss": pruning.held_out_loss(), **self.measures(pruning.student)}
        return pruning.student, result | {
            "training_seconds": training_seconds,
            "measuring_seconds": time.perf_counter() - start,
            "history": pruning.history,
            "shape": pruning.student.config.shape.to_dict(),
        }

    def _size(self, model: PreTrainedModel) -> dict[str, Any]:
        num_parameters = model.num_parameters()
        return {
            "num_parameters": num_parameters,
            "sparsity": 1 - num_parameters / self.teacher.num_parameters(),
            "macs": count_macs(model.config, UnitCounts.of(model.config.shape)),
        }


def main() -> None:
    options, training = HfArgumentParser((EvidenceArguments, PruningTrainingArguments)).parse_args_into_dataclasses()
    folder = Path(training.output_dir)
    if not options.report_only:
        make_results(options, training, folder)
    write_report(load_results(folder), folder)


def make_results(options: EvidenceArguments, training: PruningTrainingArguments, folder: Path) -> None:
    """Makes the results that are not there yet.

    Args:
        options: What to compare.
        training: The arguments of a row that learns gates and trains on.
        folder: Of the results.

    Raises:
        ValueError: If an argument is wrong, or a result is there that holds for other settings.
    """
    check_rows(options.rows)
    # Folders by their last part: results are compared across machines.
    names = {name: getattr(options, name) for name in ("teacher", "dataset_name", "speech_commands", "librispeech")}
    names["librispeech"] = names["librispeech"] or names["dataset_name"]
    measured = {name: path and Path(path).name for name, path in names.items()}
    measured |= {name: getattr(options, name) for name in ("crop_seconds", "held_out_fraction", "held_out_seed")}
    waiting = []
    for run in plan_runs(options.rows, options.target_sparsities, options.seeds):
        path, row_training = folder / f"{run.name}.json", training
        if run.row != TEACHER:
            row_training = STUDENTS[run.row].training(training, options.ungated_learning_rate)
        settings = settings_of(run, measured, row_training)
        if run.row != TEACHER and STUDENTS[run.row].is_ladder:
            settings["ladder"] = sorted(options.target_sparsities)
        if is_finished(path, settings):
            logger.warning(f"{path} is there; not made again.")
        else:
            waiting.append((run, row_training, path, settings))
    if not waiting:
        return
    folder.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(options)
    for run, row_training, path, settings in waiting:
        result = {"row": run.row, "target_sparsity": run.target_sparsity, "seed": run.seed, "settings": settings}
        result["machine"] = describe_machine(training.device)
        result |= comparison.run(run, row_training, folder / "models" / run.name)
        write_text_atomically(path, json.dumps(result, indent=1) + "\n")
        print(json.dumps({key: value for key, value in result.items() if key not in ("history", "shape", "settings")}))


if __name__ == "__main__":
    main()
