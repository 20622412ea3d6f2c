"""Results of the comparison on disk: one JSON file for each training, with the settings that it depends on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.result_files import RAW_FOLDER, without_keys
from experiments.compared_students import STUDENTS, TEACHER
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.runtime.settings import describe_differences


# Settings of the data that only some rows depend on: those with calibration audio, and those that are trained.
CALIBRATION_SETTINGS = ("num_crops",)
SHORTEST_CROP = "shortest_train_crop_seconds"
CROP_SETTINGS = ("train_crop_seconds", SHORTEST_CROP)
# Training arguments that a result depends on, by stage.
COMMON_SETTINGS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "freeze_feature_encoder",
    "max_grad_norm",
    "weight_decay",
    "lr_scheduler_type",
    "optim",
    "bf16",
    "fp16",
)
GATE_SETTINGS = (
    "max_steps",
    "learning_rate",
    "warmup_steps",
    "gate_learning_rate",
    "multiplier_learning_rate",
    "sparsity_warmup_steps",
)
FINAL_SETTINGS = ("final_steps", "final_learning_rate", "final_warmup_steps")


@dataclass(frozen=True)
class Run:
    """One training of the comparison, or the evaluation of the teacher.

    Attributes:
        row: Row name, one of `ROWS`.
        target_sparsity: Fraction of parameters to remove; `None` for the teacher.
        seed: Random seed of the training; `None` for the teacher.
    """

    row: str
    target_sparsity: float | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """File name without extension."""
        return TEACHER if self.row == TEACHER else f"{self.row}_{self.target_sparsity:g}_seed{self.seed}"


def plan_runs(rows: Iterable[str], target_sparsities: Iterable[float], seeds: Iterable[int]) -> list[Run]:
    """Lists all runs: the teacher, then one seed after the other, so that an interrupted comparison has complete seeds.

    Args:
        rows: Row names.
        target_sparsities: Fractions of parameters to remove.
        seeds: Random seeds.
    """
    rows = list(dict.fromkeys(rows))
    students = [row for row in rows if row != TEACHER]
    return [Run(TEACHER)] * (TEACHER in rows) + [
        Run(row, target, seed)
        for seed in dict.fromkeys(seeds)
        for target in dict.fromkeys(target_sparsities)
        for row in students
    ]


def settings_of(run: Run, measured: dict[str, Any], training: PruningTrainingArguments) -> dict[str, Any]:
    """Collects the settings that a result depends on, as values that JSON preserves.

    Args:
        run: Run of the result.
        measured: Settings of model and data, those of all rows together.
        training: Training arguments of the row, see `Student.training`.
    """
    settings, row = dict(measured), STUDENTS.get(run.row)
    if row is None or not row.uses_calibration:
        settings = without_keys(settings, CALIBRATION_SETTINGS)
    if row is None or not row.is_trained:
        settings = without_keys(settings, CROP_SETTINGS)
    elif not row.has_random_lengths:
        settings = without_keys(settings, (SHORTEST_CROP,))
    if row is not None and row.is_trained:
        names = COMMON_SETTINGS + (() if row.compaction is None else GATE_SETTINGS) + FINAL_SETTINGS
        settings |= {name: getattr(training, name) for name in names}
        settings["distillation_projections"] = row.projections
    return json.loads(json.dumps(settings))


def is_finished(path: Path, settings: dict[str, Any]) -> bool:
    """Checks whether a result exists.

    Args:
        path: Result file.
        settings: Settings of the result, see `settings_of`.

    Raises:
        ValueError: If the result exists and has other settings.
    """
    if not path.exists():
        return False
    found = json.loads(path.read_text(encoding="utf-8")).get("settings", {})
    if differences := describe_differences(found, settings):
        raise ValueError(
            f"{path} has other settings: {'; '.join(differences)}. Use the earlier settings or another `output_dir`, or "
            "delete the file to run it again."
        )
    return True


def result_path(folder: Path, run: Run) -> Path:
    """Returns the result file of a run.

    Args:
        folder: Output folder of the comparison.
        run: Run of the result.
    """
    return folder / RAW_FOLDER / f"{run.name}.json"


def load_results(folder: Path) -> list[dict[str, Any]]:
    """Loads all results of a comparison, in the order of their names.

    Args:
        folder: Output folder of the comparison.

    Raises:
        ValueError: If there are no results.
    """
    paths = sorted((folder / RAW_FOLDER).glob("*.json"))
    if not paths:
        raise ValueError(f"There are no results in {str(folder)!r}. Give the `output_dir` of an earlier comparison.")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]
