"""Results of one-shot pruning on disk: one JSON file for each student, with the settings that it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.result_files import RAW_FOLDER
from experiments.one_shot_students import ROWS


@dataclass(frozen=True)
class Run:
    """One student of the comparison.

    Attributes:
        row: Row name, one of `ROWS`.
        target_sparsity: Fraction of parameters to remove.
        audio: Name of the folder of calibration audio; `None` for a row without audio, as all that follows.
        num_crops: Number of calibration crops; 0 for all.
        crop_seconds: Length of a calibration crop in seconds.
        seed: Random seed of the draw.
        ladder: All targets of the row, if the student of one depends on the others; empty otherwise.
    """

    row: str
    target_sparsity: float
    audio: str | None = None
    num_crops: int | None = None
    crop_seconds: float | None = None
    seed: int | None = None
    ladder: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """File name without extension."""
        name = f"{self.row}_{self.target_sparsity:g}"
        if self.audio is None:
            return name
        return f"{name}_{self.audio}_{self.num_crops or 'all'}x{self.crop_seconds:g}s_seed{self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of this run, as values that JSON preserves."""
        return {f"run_{name}": value for name, value in asdict(self).items()} | {"run_ladder": list(self.ladder)}


def plan_groups(
    rows: Iterable[str],
    targets: Mapping[str, Sequence[float]],
    audio: str,
    num_crops: Iterable[int],
    crop_seconds: float,
    seeds: Iterable[int],
) -> list[list[Run]]:
    """Lists all runs, in groups that are computed together: the targets of one row on the same audio.

    Args:
        rows: Row names.
        targets: Fractions of parameters to remove, in ascending order, by row.
        audio: Name of the folder of calibration audio.
        num_crops: Numbers of calibration crops.
        crop_seconds: Length of a calibration crop in seconds.
        seeds: Random seeds of the draws.
    """
    draws = [
        (audio, number, crop_seconds, seed) for seed in dict.fromkeys(seeds) for number in dict.fromkeys(num_crops)
    ]
    return [
        [Run(row, target, *draw, ladder=tuple(targets[row]) if ROWS[row].is_ladder else ()) for target in targets[row]]
        for row in dict.fromkeys(rows)
        for draw in (draws if ROWS[row].uses_audio else [()])
    ]


def result_path(folder: Path, run: Run) -> Path:
    """Returns the result file of a run.

    Args:
        folder: Output folder of the comparison.
        run: Run of the result.
    """
    return folder / RAW_FOLDER / f"{run.name}.json"
