"""Summaries of the comparison: the values of each student over the random seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.compared_students import ROWS, TEACHER


@dataclass(frozen=True)
class EvaluationColumn:
    """One column of the table.

    Attributes:
        name: Key in `evidence.json`.
        label: Heading in table and pictures.
        path: Nested keys of the value in a result.
        digits: Number of decimals.
        is_drawn: Whether the pictures show it.
    """

    name: str
    label: str
    path: tuple[str, ...]
    digits: int = 3
    is_drawn: bool = True

    @property
    def direction(self) -> str:
        """Whether lower or higher values are better, in words."""
        return "lower is better" if self.name.endswith("loss") else "higher is better"


COLUMNS = (
    EvaluationColumn("held_out_loss", "Distillation loss", ("held_out_loss",), digits=4),
    EvaluationColumn("words", "Word accuracy", ("words", "accuracy")),
    EvaluationColumn("words_last_layer", "Word accuracy, last layer", ("words", "last_layer"), is_drawn=False),
    EvaluationColumn(
        "words_mean_over_layers", "Word accuracy, mean over layers", ("words", "mean_over_layers"), is_drawn=False
    ),
    EvaluationColumn("speakers", "Speaker accuracy", ("speakers", "accuracy")),
    EvaluationColumn("units", "Unit purity", ("units", "purity")),
)


@dataclass(frozen=True)
class Summary:
    """One student at one size, over the random seeds.

    Attributes:
        row: Row name, one of `ROWS`.
        target_sparsity: Fraction of parameters removed; `None` for the teacher.
        seeds: Random seeds of the trainings; empty for the teacher.
        num_parameters: Number of parameters, mean over the seeds.
        macs: Multiply-accumulates of a 10 s clip, mean over the seeds.
        values: By column name, one value per seed.
    """

    row: str
    target_sparsity: float | None
    seeds: tuple[int, ...]
    num_parameters: float
    macs: float
    values: dict[str, tuple[float, ...]]

    @property
    def label(self) -> str:
        """Row name in table and pictures."""
        return self.row.replace("_", " ").replace(" ste", " STE")

    def mean(self, column: str) -> float | None:
        """Mean over the seeds; `None` without values.

        Args:
            column: Column name.
        """
        return float(np.mean(self.values[column])) if self.values[column] else None

    def spread(self, column: str) -> float | None:
        """Sample standard deviation over the seeds; `None` with fewer than two values.

        Args:
            column: Column name.
        """
        return float(np.std(self.values[column], ddof=1)) if len(self.values[column]) > 1 else None


def summarize(results: Sequence[dict[str, Any]]) -> list[Summary]:
    """Groups results by target and row, smaller targets first and rows in the order of `ROWS`.

    Args:
        results: Results of `load_results`.
    """
    groups: dict[tuple[str, float | None], list[dict[str, Any]]] = {}
    for result in sorted(results, key=lambda result: (result["seed"] is not None, result["seed"])):
        groups.setdefault((result["row"], result["target_sparsity"]), []).append(result)
    order = sorted(groups, key=lambda key: (key[1] or 0.0, ROWS.index(key[0])))
    return [
        Summary(
            row,
            target,
            tuple(result["seed"] for result in groups[row, target] if result["seed"] is not None),
            float(np.mean([result["num_parameters"] for result in groups[row, target]])),
            float(np.mean([result["macs"] for result in groups[row, target]])),
            {column.name: _values(groups[row, target], column) for column in COLUMNS},
        )
        for row, target in order
    ]


def _values(results: Sequence[dict[str, Any]], column: EvaluationColumn) -> tuple[float, ...]:
    found = []
    for result in results:
        value: Any = result
        for name in column.path:
            value = (value or {}).get(name)
        if value is not None:
            found.append(value)
    return tuple(found)


def main_target(summaries: Sequence[Summary]) -> float | None:
    """Finds the target with the most rows, and the largest of several; `None` without students.

    Args:
        summaries: Result of `summarize`.
    """
    counts = Counter(summary.target_sparsity for summary in summaries if summary.row != TEACHER)
    return max(counts, key=lambda target: (counts[target], target), default=None)
