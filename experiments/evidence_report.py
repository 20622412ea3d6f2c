"""What the comparison ends with: a table over the seeds, the same as JSON, and two pictures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from experiments.evidence_pictures import draw_comparison, draw_curves
from experiments.students import ROWS, TEACHER
from hf_prunable.runtime.files import write_text_atomically


logger = logging.get_logger("hf_prunable.benchmarks")


@dataclass(frozen=True)
class Measure:
    """One column of the table.

    Attributes:
        name: In `evidence.json`.
        label: In table and pictures.
        path: Where a result has it.
        digits: After the point.
        is_drawn: Whether the pictures show it.
    """

    name: str
    label: str
    path: tuple[str, ...]
    digits: int = 3
    is_drawn: bool = True


MEASURES = (
    Measure("held_out_loss", "Distillation loss", ("held_out_loss",), digits=4),
    Measure("words", "Words", ("words", "accuracy")),
    Measure("words_last_layer", "Words, last layer", ("words", "last_layer"), is_drawn=False),
    Measure("words_mean_over_layers", "Words, mean over layers", ("words", "mean_over_layers"), is_drawn=False),
    Measure("speakers", "Speakers", ("speakers", "accuracy")),
    Measure("units", "Unit purity", ("units", "purity")),
)
SIZE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Summary:
    """One row at one size, over the seeds.

    Attributes:
        row: Of `ROWS`.
        target_sparsity: `None` for the teacher.
        seeds: Of its trainings; empty for the teacher.
        num_parameters: The mean over the seeds.
        macs: Likewise.
        values: By measure, one number a seed.
    """

    row: str
    target_sparsity: float | None
    seeds: tuple[int, ...]
    num_parameters: float
    macs: float
    values: dict[str, tuple[float, ...]]

    @property
    def label(self) -> str:
        """The row's name in table and pictures."""
        return self.row.replace("_", " ").replace(" ste", " STE")

    def mean(self, measure: str) -> float | None:
        """Over the seeds; `None` where it is not measured."""
        return float(np.mean(self.values[measure])) if self.values[measure] else None

    def spread(self, measure: str) -> float | None:
        """The standard deviation over the seeds (ddof 1); `None` with fewer than two."""
        return float(np.std(self.values[measure], ddof=1)) if len(self.values[measure]) > 1 else None


def summarize(results: Sequence[dict[str, Any]]) -> list[Summary]:
    """Gathers the seeds of each row and target, in the order of `ROWS`, smaller targets first."""
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
            {measure.name: _values(groups[row, target], measure) for measure in MEASURES},
        )
        for row, target in order
    ]


def _values(results: Sequence[dict[str, Any]], measure: Measure) -> tuple[float, ...]:
    found = []
    for result in results:
        value: Any = result
        for name in measure.path:
            value = (value or {}).get(name)
        if value is not None:
            found.append(value)
    return tuple(found)


def main_target(summaries: Sequence[Summary]) -> float | None:
    """The target with the most rows, the largest one of several."""
    counts = Counter(summary.target_sparsity for summary in summaries if summary.row != TEACHER)
    return max(counts, key=lambda target: (counts[target], target), default=None)


def format_report(results: Sequence[dict[str, Any]], summaries: Sequence[Summary]) -> str:
    """The Markdown text: a table for each target, and how the figures came about."""
    parts = ["# Students of one size, side by side"]
    teachers = [summary for summary in summaries if summary.row == TEACHER]
    targets = dict.fromkeys(summary.target_sparsity for summary in summaries if summary.row != TEACHER)
    for target in targets:
        rows = [summary for summary in summaries if summary.target_sparsity == target and summary.row != TEACHER]
        parts += [f"## {100 * target:g} % of the parameters removed", _format_table(rows + teachers)]
        sizes = [summary.num_parameters for summary in rows]
        if max(sizes) > (1 + SIZE_TOLERANCE) * min(sizes):
            parts.append(f"**The sizes differ by {100 * (max(sizes) / min(sizes) - 1):.2f} %.**")
    if not targets:
        parts.append(_format_table(teachers))
    return "\n\n".join([*parts, _format_notes(results), _format_settings(results)]) + "\n"


def _format_table(summaries: Sequence[Summary]) -> str:
    titles = ["Row", "Parameters", "MACs, 10 s", *(measure.label for measure in MEASURES), "Seeds"]
    lines = [f"| {' | '.join(titles)} |", f"| --- |{' ---: |' * (len(titles) - 1)}"]
    for summary in summaries:
        cells = [summary.label, f"{summary.num_parameters:,.0f}", f"{summary.macs / 1e9:.2f} G"]
        cells += [_format_value(summary, measure) for measure in MEASURES]
        lines.append(f"| {' | '.join([*cells, str(len(summary.seeds) or '–')])} |")
    return "\n".join(lines)


def _format_value(summary: Summary, measure: Measure) -> str:
    mean, spread = summary.mean(measure.name), summary.spread(measure.name)
    if mean is None:
        return "–"
    return f"{mean:.{measure.digits}f}" + ("" if spread is None else f" ± {spread:.{measure.digits}f}")


def _format_notes(results: Sequence[dict[str, Any]]) -> str:
    has_ladder = any("ladder" in result["settings"] for result in results)
    words, speakers, units = (results[0][name] for name in ("words", "speakers", "units"))
    return (
        "Mean ± standard deviation over the seeds. All students of a table had the same number of optimizer steps"
        f"{', but for the ladder, whose gates learn once for all of its sizes' if has_ladder else ''}.\n\n"
        "- Distillation loss: on held-out audio; lower is better.\n"
        f"- Words: test accuracy of a linear classifier of {words['classes']} words on a learned weighted sum of "
        f"mean-pooled hidden states, {words['test_clips']} clips (one standard error is at most "
        f"{0.5 / words['test_clips'] ** 0.5:.3f}). Last layer, mean over layers: logistic regressions on single hidden "
        "states.\n"
        f"- Speakers: the same classifier of {speakers['classes']} speakers on {speakers['test_clips']} one-second "
        f"segments (one standard error is at most {0.5 / speakers['test_clips'] ** 0.5:.3f}). There is one session a "
        "speaker.\n"
        f"- Unit purity: k-means units of the last hidden state of {units['frames']:,} held-out frames against the "
        f"teacher's {units['units']} units of the same frames; by chance {units['purity_by_chance']:.3f}. The teacher "
        "against itself, from another start of k-means, is the ceiling."
    )


def _format_settings(results: Sequence[dict[str, Any]]) -> str:
    values: dict[str, dict[str, None]] = {}
    for result in results:
        for name, value in (result["settings"] | {"machine": result["machine"]}).items():
            values.setdefault(name, {})[str(value)] = None
    machines = values.pop("machine")
    settings = ", ".join(f"`{name}` {' or '.join(found)}" for name, found in values.items())
    return f"Machine: {'; '.join(machines)}.\n\nSettings: {settings}."


def write_report(results: Sequence[dict[str, Any]], folder: Path) -> None:
    """Writes `evidence.md`, `evidence.json`, `comparison.png` and, from two sizes up, `curve.png`.

    Args:
        results: As `load_results` gives them.
        folder: To write to.
    """
    summaries = summarize(results)
    write_text_atomically(folder / "evidence.md", format_report(results, summaries))
    entries = [
        asdict(summary)
        | {
            "mean": {measure.name: summary.mean(measure.name) for measure in MEASURES},
            "spread": {measure.name: summary.spread(measure.name) for measure in MEASURES},
        }
        for summary in summaries
    ]
    write_text_atomically(folder / "evidence.json", json.dumps({"summaries": entries}, indent=1) + "\n")
    drawn = [measure for measure in MEASURES if measure.is_drawn]
    target = main_target(summaries)
    if target is not None:
        rows = [summary for summary in summaries if summary.target_sparsity in (target, None)]
        draw_comparison(rows, drawn, folder / "comparison.png")
    counts = Counter(summary.row for summary in summaries)
    curves = [summary for summary in summaries if counts[summary.row] > 1 or summary.row == TEACHER]
    if any(summary.row != TEACHER for summary in curves):
        draw_curves(curves, drawn, folder / "curve.png")
    logger.warning(f"Table and pictures of {len(results)} results are in {folder}.")
