"""Report of the comparison: a table over the random seeds, the same values as JSON, and two pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.result_files import save_result
from experiments.compared_students import TEACHER
from experiments.evidence_pictures import draw_comparison, draw_curves
from experiments.evidence_summary import COLUMNS, EvaluationColumn, Summary, main_target, summarize
from hf_prunable.runtime.tables import markdown_table


# The report says so if sizes of one table differ by more than this fraction.
SIZE_TOLERANCE = 1e-3


def format_report(results: Sequence[dict[str, Any]], summaries: Sequence[Summary]) -> str:
    """Formats a table for each target, and notes on columns, machine and settings, as Markdown.

    Args:
        results: Results of `load_results`.
        summaries: Summaries of the results.
    """
    parts = ["# Students of one size"]
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
    titles = ["Student", "Parameters", "MACs, 10 s", *(column.label for column in COLUMNS), "Seeds"]
    rows = []
    for summary in summaries:
        cells = [summary.label, f"{summary.num_parameters:,.0f}", f"{summary.macs / 1e9:.2f} G"]
        cells += [_format_value(summary, column) for column in COLUMNS]
        rows.append([*cells, str(len(summary.seeds) or "–")])
    return markdown_table(titles, rows)


def _format_value(summary: Summary, column: EvaluationColumn) -> str:
    mean, spread = summary.mean(column.name), summary.spread(column.name)
    if mean is None:
        return "–"
    return f"{mean:.{column.digits}f}" + ("" if spread is None else f" ± {spread:.{column.digits}f}")


def _format_notes(results: Sequence[dict[str, Any]]) -> str:
    has_ladder = any("ladder" in result["settings"] for result in results)
    words, speakers, units = (results[0][name] for name in ("words", "speakers", "units"))
    return (
        "Mean ± standard deviation over the random seeds. All students of a table have the same number of optimizer steps"
        f"{', except the ladder, whose gates are trained once for all of its sizes' if has_ladder else ''}.\n\n"
        "- Distillation loss: on held-out audio.\n"
        f"- Word accuracy: test accuracy of a linear classifier of {words['classes']} words on a learned weighted sum of "
        f"mean-pooled hidden states; {words['test_clips']} clips, standard error at most "
        f"{0.5 / words['test_clips'] ** 0.5:.3f}. Last layer, mean over layers: logistic regressions on single hidden "
        "states.\n"
        f"- Speaker accuracy: the same classifier of {speakers['classes']} speakers on {speakers['test_clips']} one-second "
        f"segments, standard error at most {0.5 / speakers['test_clips'] ** 0.5:.3f}. There is one session per "
        "speaker.\n"
        f"- Unit purity: k-means units of the last hidden state of {units['frames']:,} held-out frames, with the "
        f"teacher's {units['units']} units of the same frames as reference; {units['purity_by_chance']:.3f} by chance. "
        "The upper bound is the teacher against itself with another seed of k-means."
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
    """Writes `evidence.md`, `evidence.json`, `comparison.png` and, with at least two sizes, `curve.png`.

    Args:
        results: Results of `load_results`.
        folder: Output folder.
    """
    summaries = summarize(results)
    entries = [
        asdict(summary)
        | {
            "mean": {column.name: summary.mean(column.name) for column in COLUMNS},
            "spread": {column.name: summary.spread(column.name) for column in COLUMNS},
        }
        for summary in summaries
    ]
    save_result(folder, "evidence", {"summaries": entries}, format_report(results, summaries))
    drawn = [column for column in COLUMNS if column.is_drawn]
    target = main_target(summaries)
    if target is not None:
        rows = [summary for summary in summaries if summary.target_sparsity in (target, None)]
        draw_comparison(rows, drawn, folder / "comparison.png")
    counts = Counter(summary.row for summary in summaries)
    curves = [summary for summary in summaries if counts[summary.row] > 1 or summary.row == TEACHER]
    if any(summary.row != TEACHER for summary in curves):
        draw_curves(curves, drawn, folder / "curve.png")
