"""The results of the comparison on disk: one JSON file each, and the settings that it holds for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.students import STUDENTS, TEACHER
from hf_prunable.pruning.training_arguments import PruningTrainingArguments


# Arguments of training that change a result, by the stage that they belong to.
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
    """One result to be.

    Attributes:
        row: Of `ROWS`.
        target_sparsity: `None` for the teacher.
        seed: Of the training; `None` for the teacher.
    """

    row: str
    target_sparsity: float | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """Of its files, without an ending."""
        return TEACHER if self.row == TEACHER else f"{self.row}_{self.target_sparsity:g}_seed{self.seed}"


def plan_runs(rows: Iterable[str], target_sparsities: Iterable[float], seeds: Iterable[int]) -> list[Run]:
    """All runs: the teacher first, then one seed after the other, so that an interrupted comparison is complete in one."""
    rows = list(dict.fromkeys(rows))
    students = [row for row in rows if row != TEACHER]
    return [Run(TEACHER)] * (TEACHER in rows) + [
        Run(row, target, seed)
        for seed in dict.fromkeys(seeds)
        for target in dict.fromkeys(target_sparsities)
        for row in students
    ]


def settings_of(run: Run, measured: dict[str, Any], training: PruningTrainingArguments) -> dict[str, Any]:
    """What a result depends on beside its name, as JSON gives it back.

    Args:
        run: The result's.
        measured: Model and data, the same for all rows.
        training: Of this row, see `Student.training`.
    """
    names: tuple[str, ...] = ()
    if run.row != TEACHER:
        names = COMMON_SETTINGS
        names += GATE_SETTINGS if STUDENTS[run.row].learns_gates else ()
        names += FINAL_SETTINGS if STUDENTS[run.row].trains_on else ()
    return json.loads(json.dumps(measured | {name: getattr(training, name) for name in names}))


def is_finished(path: Path, settings: dict[str, Any]) -> bool:
    """Whether a result is there.

    Raises:
        ValueError: If it is, and holds for other settings.
    """
    if not path.exists():
        return False
    found = json.loads(path.read_text(encoding="utf-8")).get("settings", {})
    differences = [
        f"`{name}` was {found.get(name)!r} and is {settings.get(name)!r}"
        for name in sorted(found.keys() | settings.keys())
        if found.get(name) != settings.get(name)
    ]
    if differences:
        raise ValueError(
            f"{path} is the result of other settings: {'; '.join(differences)}. Give those again, or another "
            "`output_dir`, or remove the file to have it made anew."
        )
    return True


def load_results(folder: Path) -> list[dict[str, Any]]:
    """All results in a folder, in the order of their names.

    Raises:
        ValueError: If there are none.
    """
    loaded = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    results = [values for values in loaded if "row" in values and "settings" in values]
    if not results:
        raise ValueError(f"There are no results in {str(folder)!r}. Give the `output_dir` of an earlier comparison.")
    return results
