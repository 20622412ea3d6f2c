"""Report of the comparison: tables of values and of paired differences, the same as JSON, and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.result_files import save_result
from experiments.compared_students import TEACHER
from experiments.evidence_pictures import draw_comparison, draw_curves, draw_layers
from experiments.evidence_summary import (
    COLUMNS,
    PAIRED_COLUMNS,
    EvaluationColumn,
    Summary,
    find_summary,
    main_target,
    summarize,
)
from experiments.paired_differences import NUM_RESAMPLES, Difference
from hf_prunable.runtime.tables import markdown_table


# The report says so if sizes of one table differ by more than this fraction.
SIZE_TOLERANCE = 1e-3
# Rows that the others of the same size are compared with.
REFERENCES = (TEACHER, "one_shot_trained")


def write_report(results: Sequence[dict[str, Any]], folder: Path) -> None:
    """Writes `evidence.md`, `evidence.json`, `comparison.png`, `layers.png` and, with at least two sizes, `curve.png`.

    Args:
        results: Results of `load_results`.
        folder: Output folder.
    """
    summaries = summarize(results)
    differences = {
        (summary.row, summary.target_sparsity, reference.row): summary.differences(reference)
        for summary in summaries
        for reference in _references(summaries, summary)
    }
    entries = [_entry(summary, differences) for summary in summaries]
    text = format_report(results, summaries, differences)
    save_result(folder, "evidence", {"summaries": entries}, text)
    target = main_target(summaries)
    if target is not None:
        rows = [summary for summary in summaries if summary.target_sparsity in (target, None)]
        draw_comparison(rows, differences, folder / "comparison.png")
        draw_layers(rows, folder / "layers.png")
    counts = Counter(summary.row for summary in summaries)
    curves = [summary for summary in summaries if counts[summary.row] > 1 or summary.row == TEACHER]
    if any(summary.row != TEACHER for summary in curves):
        draw_curves(curves, folder / "curve.png")


def _references(summaries: Sequence[Summary], summary: Summary) -> list[Summary]:
    """Returns the rows that a student is compared with."""
    found = [
        find_summary(summaries, row, None if row == TEACHER else summary.target_sparsity)
        for row in REFERENCES
        if summary.row not in (TEACHER, row)
    ]
    return [reference for reference in found if reference is not None]


def _entry(summary: Summary, differences: dict[tuple, dict[str, Difference]]) -> dict[str, Any]:
    """Returns a summary as values of JSON, without outcomes of single groups."""
    values = {name: value for name, value in vars(summary).items() if name != "outcomes"}
    return values | {
        "mean": {name: summary.mean(name) for name in COLUMNS},
        "spread": {name: summary.spread(name) for name in COLUMNS},
        "differences": {
            reference: {name: value.rounded() for name, value in found.items()}
            for (row, target, reference), found in differences.items()
            if (row, target) == (summary.row, summary.target_sparsity)
        },
    }


def format_report(
    results: Sequence[dict[str, Any]],
    summaries: Sequence[Summary],
    differences: dict[tuple, dict[str, Difference]],
) -> str:
    """Formats the tables of each target, and notes on columns, machine and settings, as Markdown.

    Args:
        results: Results of `load_results`.
        summaries: Summaries of the results.
        differences: Differences by row, target and row of the reference.
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
        for reference in REFERENCES:
            compared = [(row, differences.get((row.row, target, reference))) for row in rows]
            if any(found is not None for _, found in compared):
                label = next(summary.label for summary in summaries if summary.row == reference)
                parts += [f"### Differences from the row “{label}”, in points", _format_differences(compared)]
    if not targets:
        parts.append(_format_table(teachers))
    return "\n\n".join([*parts, "## Notes", _format_notes(results), format_settings(results)]) + "\n"


def _format_table(summaries: Sequence[Summary]) -> str:
    titles = ["Student", "Parameters", "MACs, 10 s", *(column.label for column in COLUMNS.values()), "Seeds"]
    rows = []
    for summary in summaries:
        cells = [summary.label, f"{summary.num_parameters:,.0f}", f"{summary.macs / 1e9:.2f} G"]
        cells += [_format_value(summary, column) for column in COLUMNS.values()]
        rows.append([*cells, str(len(summary.seeds) or "–")])
    return markdown_table(titles, rows)


def _format_value(summary: Summary, column: EvaluationColumn) -> str:
    digits = 3 if column.outcome is not None else 4
    spread = summary.spread(column.name)
    return f"{summary.mean(column.name):.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _format_differences(compared: Sequence[tuple[Summary, dict[str, Difference] | None]]) -> str:
    titles = ["Student", *(column.label for column in PAIRED_COLUMNS)]
    rows = [
        [summary.label, *(found[column.name].in_points() for column in PAIRED_COLUMNS)]
        for summary, found in compared
        if found is not None
    ]
    return markdown_table(titles, rows)


def _format_notes(results: Sequence[dict[str, Any]]) -> str:
    units = results[0]["units"]
    return (
        "Mean ± standard deviation over the random seeds. All trained students of a table have the same number of optimizer "
        "steps.\n\n"
        f"- Distillation loss, cosine: hidden states of student and teacher, without a projection, on "
        f"{results[0]['held_out_frames']:,} frames of {len(units['group_sizes'])} held-out utterances. A student with "
        "fewer layers is compared with the teacher's layers at the same relative depths.\n"
        f"{format_probe_notes(results[0])}\n"
        "- Teacher's classifier: the classifiers of each fold, trained on the teacher's hidden states, are applied to the "
        "student's without a change.\n"
        f"- Units: fraction of held-out frames whose last hidden state falls into the teacher's k-means unit, of "
        f"{units['num_units']} units; {units['agreement_by_chance']:.3f} by chance.\n"
        f"- Differences are paired by clip, after the mean over seeds, with their 95 % interval: {NUM_RESAMPLES:,} bootstrap "
        "samples of the speakers, and for units of the utterances. Those whose interval excludes 0 are bold. Each interval "
        "stands for itself: of 20 students that do not differ, one is bold by chance."
    )


def format_probe_notes(result: dict[str, Any]) -> str:
    """Formats what words and speakers are, as items of a Markdown list.

    Args:
        result: Result with "words" and "speakers", see `ProbeTask.result`.
    """
    words, speakers = result["words"], result["speakers"]
    return (
        f"- Words: accuracy of a linear classifier of {words['classes']} words on a learned weighted sum of mean-pooled "
        f"hidden states, over {len(words['correct']):,} clips of {len(words['group_sizes'])} speakers: cross-validation in "
        "five folds with different speakers.\n"
        f"- Speakers: the same classifier of {speakers['classes']} speakers with four clips or more, over "
        f"{len(speakers['correct']):,} clips: cross-validation in four folds with clips of every speaker."
    )


def format_settings(results: Sequence[dict[str, Any]]) -> str:
    """Formats machine and settings of results as Markdown.

    Args:
        results: Results with "settings" and "machine".
    """
    values: dict[str, dict[str, None]] = {}
    for result in results:
        for name, value in (result["settings"] | {"machine": result["machine"]}).items():
            values.setdefault(name, {})[str(value)] = None
    machines = values.pop("machine")
    settings = ", ".join(f"`{name}` {' or '.join(found)}" for name, found in values.items())
    return f"Machine: {'; '.join(machines)}.\n\nSettings: {settings}."
