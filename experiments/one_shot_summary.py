"""Summaries of one-shot pruning: the loss of one row against the target, over the draws of the calibration audio."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.compared_students import row_label
from experiments.one_shot_students import ROWS, TEACHER


# Students of the experiment `evidence` that tables and pictures show beside those of statistics.
TRAINED_ROWS = ("one_shot_trained", "gates_one_shot", "gates_paper", "magnitude_trained")


@dataclass(frozen=True)
class Draw:
    """Kind and amount of calibration audio.

    Attributes:
        audio: Name of the folder; `None` for none.
        num_crops: Number of crops.
        seconds: Length of all crops in seconds.
    """

    audio: str | None
    num_crops: int
    seconds: float

    @property
    def label(self) -> str:
        """Amount and kind in words."""
        return "none" if self.audio is None else f"{self.seconds:g} s of {self.audio}"


@dataclass
class LossCurve:
    """Losses of one row on one kind and amount of audio.

    Attributes:
        row: Row name.
        label: Row name in table and pictures.
        draw: Calibration audio.
        losses: Loss of each random seed, by target.
        num_parameters: Number of parameters of each seed's student, by target.
        seeds: Random seeds.
    """

    row: str
    label: str
    draw: Draw
    losses: dict[float, list[float]] = field(default_factory=dict)
    num_parameters: dict[float, list[float]] = field(default_factory=dict)
    seeds: set[int | None] = field(default_factory=set)

    def mean(self, target: float) -> float:
        """Mean loss over the seeds.

        Args:
            target: Fraction of parameters removed.
        """
        return float(np.mean(self.losses[target]))

    def spread(self, target: float) -> float | None:
        """Sample standard deviation over the seeds; `None` for one seed.

        Args:
            target: Fraction of parameters removed.
        """
        return float(np.std(self.losses[target], ddof=1)) if len(self.losses[target]) > 1 else None

    def size(self, target: float) -> float:
        """Mean number of parameters over the seeds.

        Args:
            target: Fraction of parameters removed.
        """
        return float(np.mean(self.num_parameters[target]))


def loss_curves(results: Sequence[dict[str, Any]]) -> list[LossCurve]:
    """Groups results of students by row and audio, rows in the order of `ROWS`, less audio first.

    Args:
        results: Results on disk.
    """
    curves: dict[tuple[str, Draw], LossCurve] = {}
    for result in results:
        if result["row"] == TEACHER:
            continue
        draw = Draw(result["audio"], result["num_crops"], result["calibration_seconds"])
        curve = curves.setdefault((result["row"], draw), LossCurve(result["row"], ROWS[result["row"]].label, draw))
        target = result["target_sparsity"]
        curve.losses.setdefault(target, []).append(result["loss"])
        curve.num_parameters.setdefault(target, []).append(result["num_parameters"])
        curve.seeds.add(result["seed"])
    order = list(ROWS)
    return sorted(
        curves.values(), key=lambda curve: (order.index(curve.row), curve.draw.audio or "", curve.draw.seconds)
    )


def main_draw(curves: Sequence[LossCurve]) -> Draw | None:
    """Finds the calibration audio of the most rows; `None` if no row uses audio.

    Args:
        curves: Result of `loss_curves`.
    """
    counts = Counter(curve.draw for curve in curves if curve.draw.audio is not None)
    return max(counts, key=lambda draw: (counts[draw], draw.seconds), default=None)


def trained_curves(path: str | Path) -> list[LossCurve]:
    """Reads students that were trained, from the summary of the experiment `evidence`.

    Args:
        path: File `evidence.json`.
    """
    curves: dict[str, LossCurve] = {}
    for summary in json.loads(Path(path).read_text(encoding="utf-8"))["summaries"]:
        if summary["row"] in TRAINED_ROWS:
            empty = LossCurve(summary["row"], row_label(summary["row"]), Draw(None, 0, 0.0))
            curve = curves.setdefault(summary["row"], empty)
            curve.losses[summary["target_sparsity"]] = summary["values"]["loss"]
            curve.num_parameters[summary["target_sparsity"]] = [summary["num_parameters"]]
            curve.seeds |= set(summary["seeds"])
    return [curves[row] for row in TRAINED_ROWS if row in curves]
