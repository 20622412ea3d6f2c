"""Summaries of the comparison: the values of each student over the random seeds, and differences between students."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.compared_students import ROWS, TEACHER, row_label
from experiments.paired_differences import Difference, GroupedOutcome, paired_difference


@dataclass(frozen=True)
class EvaluationColumn:
    """One column of the table.

    Attributes:
        name: Key in `evidence.json`.
        label: Heading in table and pictures.
        value: Function from a result to its value.
        outcome: Function from a result to its outcome by groups; `None` for a value without intervals.
        lower_is_better: Whether a lower value is better.
    """

    name: str
    label: str
    value: Callable[[dict[str, Any]], float]
    outcome: Callable[[dict[str, Any]], GroupedOutcome] | None = None
    lower_is_better: bool = False

    @property
    def direction(self) -> str:
        """Whether lower or higher values are better, in words."""
        return "lower is better" if self.lower_is_better else "higher is better"


def _probe_column(name: str, label: str, task: str, drop_in: str = "") -> EvaluationColumn:
    return EvaluationColumn(
        name,
        label,
        lambda result: result[task][f"{drop_in}accuracy"],
        lambda result: GroupedOutcome.of_clips(result[task][f"{drop_in}correct"], result[task]["group_sizes"]),
    )


def _agreeing_frames(result: dict[str, Any]) -> GroupedOutcome:
    units = result["units"]
    return GroupedOutcome(np.array(units["agreeing_frames"], dtype=float), np.array(units["group_sizes"]))


COLUMNS = {
    column.name: column
    for column in (
        EvaluationColumn("loss", "Distillation loss", lambda result: result["loss"], lower_is_better=True),
        EvaluationColumn("cosine", "Cosine, mean of layers", lambda result: float(np.mean(result["cosine"]))),
        EvaluationColumn("last_cosine", "Cosine, last layer", lambda result: result["cosine"][-1]),
        _probe_column("words", "Words", "words"),
        _probe_column("drop_in_words", "Words, teacher's classifier", "words", "drop_in_"),
        _probe_column("speakers", "Speakers", "speakers"),
        _probe_column("drop_in_speakers", "Speakers, teacher's classifier", "speakers", "drop_in_"),
        EvaluationColumn("units", "Units", lambda result: result["units"]["agreement"], _agreeing_frames),
    )
}
PAIRED_COLUMNS = tuple(column for column in COLUMNS.values() if column.outcome is not None)


@dataclass(frozen=True)
class Summary:
    """One student at one size, over the random seeds.

    Attributes:
        row: Row name, one of `ROWS`.
        target_sparsity: Fraction of parameters removed; `None` for the teacher.
        seeds: Random seeds of the students; empty for the teacher.
        num_parameters: Number of parameters, mean over the seeds.
        macs: Multiply-accumulates of a 10 s clip, mean over the seeds.
        values: By column name, one value per seed.
        layer_cosines: Cosine similarity of each hidden state, mean over the seeds.
        outcomes: By column name, the outcome by groups, mean over the seeds.
    """

    row: str
    target_sparsity: float | None
    seeds: tuple[int, ...]
    num_parameters: float
    macs: float
    values: dict[str, tuple[float, ...]]
    layer_cosines: tuple[float, ...]
    outcomes: dict[str, GroupedOutcome]

    @property
    def label(self) -> str:
        """Row name in table and pictures."""
        return row_label(self.row)

    def mean(self, column: str) -> float:
        """Mean over the seeds.

        Args:
            column: Column name.
        """
        return float(np.mean(self.values[column]))

    def spread(self, column: str) -> float | None:
        """Sample standard deviation over the seeds; `None` with fewer than two values.

        Args:
            column: Column name.
        """
        return float(np.std(self.values[column], ddof=1)) if len(self.values[column]) > 1 else None

    def differences(self, reference: Summary) -> dict[str, Difference]:
        """Computes the difference from another student by column name, with its interval.

        Args:
            reference: Summary that is subtracted.
        """
        return {name: paired_difference(outcome, reference.outcomes[name]) for name, outcome in self.outcomes.items()}


def summarize(results: Sequence[dict[str, Any]]) -> list[Summary]:
    """Groups results by target and row, smaller targets first and rows in the order of `ROWS`.

    Args:
        results: Results of `load_results`.

    Raises:
        ValueError: If the results of one student were measured on different clips.
    """
    groups: dict[tuple[str, float | None], list[dict[str, Any]]] = {}
    for result in sorted(results, key=lambda result: (result["seed"] is not None, result["seed"])):
        groups.setdefault((result["row"], result["target_sparsity"]), []).append(result)
    order = sorted(groups, key=lambda key: (key[1] or 0.0, ROWS.index(key[0])))
    return [_summarize(row, target, groups[row, target]) for row, target in order]


def _summarize(row: str, target: float | None, results: Sequence[dict[str, Any]]) -> Summary:
    # The depth of the student of a target is the same for all seeds.
    return Summary(
        row,
        target,
        tuple(result["seed"] for result in results if result["seed"] is not None),
        float(np.mean([result["num_parameters"] for result in results])),
        float(np.mean([result["macs"] for result in results])),
        {name: tuple(column.value(result) for result in results) for name, column in COLUMNS.items()},
        tuple(np.mean([result["cosine"] for result in results], axis=0).tolist()),
        {
            column.name: GroupedOutcome.mean([column.outcome(result) for result in results])
            for column in PAIRED_COLUMNS
            if column.outcome is not None
        },
    )


def find_summary(summaries: Sequence[Summary], row: str, target: float | None) -> Summary | None:
    """Finds the summary of a row at a target; `None` if there is none.

    Args:
        summaries: Result of `summarize`.
        row: Row name.
        target: Fraction of parameters removed; `None` for the teacher.
    """
    return next((found for found in summaries if (found.row, found.target_sparsity) == (row, target)), None)


def main_target(summaries: Sequence[Summary]) -> float | None:
    """Finds the target with the most rows, and the largest of several; `None` without students.

    Args:
        summaries: Result of `summarize`.
    """
    counts = Counter(summary.target_sparsity for summary in summaries if summary.row != TEACHER)
    return max(counts, key=lambda target: (counts[target], target), default=None)
