"""Pictures of the comparison: all students at one size, their layers, and values over the size."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from experiments.compared_students import DEFAULT_ROWS, STUDENTS, TEACHER
from experiments.evidence_summary import COLUMNS, EvaluationColumn, Summary
from experiments.paired_differences import Difference
from hf_prunable.reporting.pictures import DOTS_PER_INCH, GRID_COLOR, INK, NORMAL, SMALL


TEACHER_COLOR = "#555555"
# Dark red for one-shot pruning, warm colors for gates, cold colors for the others.
COLORS = {
    "one_shot": "#d45087",
    "one_shot_trained": "#8a1c1c",
    "one_shot_lengths": "#000000",
    "gates_one_shot": "#e8743b",
    "gates_paper": "#f0a13a",
    "magnitude_refit": "#6baed6",
    "magnitude_trained": "#1f77b4",
    "random_trained": "#17a2a2",
    "first_layers": "#4b7f52",
    "from_scratch": "#7f7fbf",
    "stock": "#9e9ac8",
    "stock_trained": "#54278f",
    "gates_projected": "#b08d57",
    "gates": "#a3336f",
    "gates_rotated": "#8c564b",
    "gates_scores": "#3d0c02",
    "gates_refit": "#c49c94",
    "gates_without_ste": "#bcbd22",
}
# Colors of a picture, with those of smoothed edges: a third of the size of a picture of all colors.
NUM_COLORS = 128
MARKERS = dict(zip(STUDENTS, "os8<>D*^vXPdhpH123", strict=True))
COMPARED = ("loss", "cosine", "words", "drop_in_words", "speakers", "units")
CURVES = ("loss", "cosine", "words", "drop_in_words")


def draw_comparison(
    summaries: Sequence[Summary], differences: Mapping[tuple, dict[str, Difference]], path: str | os.PathLike
) -> None:
    """Draws one panel per column and one line per student: small dots for seeds, a large dot for their mean.

    Args:
        summaries: Students of one size, and the teacher, which is drawn as a dashed line.
        differences: Differences by row, target and row of the reference; those from the teacher give the intervals.
        path: Output file, in the PNG format.
    """
    rows = [summary for summary in summaries if summary.row != TEACHER]
    teacher = next((summary for summary in summaries if summary.row == TEACHER), None)
    figure = Figure(figsize=(13, 2.4 + 0.5 * len(rows)), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(2, len(COMPARED) // 2, sharey=True).flat, COMPARED, strict=True):
        column = COLUMNS[name]
        for place, summary in enumerate(rows):
            color, values, mean = COLORS[summary.row], summary.values[name], summary.mean(name)
            axes.plot(values, [place + 0.25] * len(values), ".", color=color, markersize=4, alpha=0.7)
            found = differences.get((summary.row, summary.target_sparsity, TEACHER), {}).get(name)
            if found is not None and teacher is not None:
                ends = [teacher.mean(name) + end for end in (found.lower, found.upper)]
                axes.plot(ends, [place] * 2, "|-", color=color, markersize=7)
            axes.plot(mean, place, "o", color=color, markersize=6)
        if teacher is not None and not column.lower_is_better:
            axes.axvline(teacher.mean(name), color=TEACHER_COLOR, linestyle="--", linewidth=1.2)
        axes.set_title(f"{column.label} ({column.direction})", fontsize=NORMAL)
        axes.set_yticks(range(len(rows)), [summary.label for summary in rows], fontsize=NORMAL)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        if column.lower_is_better:
            _use_log_scale(axes, "x")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        _tidy(axes)
    size = sum(summary.num_parameters for summary in rows) / len(rows)
    text = f"{size / 1e6:.2f} M parameters ({100 * (rows[0].target_sparsity or 0):g} % removed). "
    text += "Large markers: mean over seeds; small markers: single seeds."
    if teacher is not None:
        text += "\nDashed line: teacher; bars: 95 % interval of the difference from it."
    figure.suptitle(text, fontsize=NORMAL)
    _save(figure, path)


def draw_layers(summaries: Sequence[Summary], path: str | os.PathLike) -> None:
    """Draws how far each hidden state of each student is from the teacher's.

    Args:
        summaries: Students of one size. Only rows of `DEFAULT_ROWS` are drawn if there are any; the teacher is not.
        path: Output file, in the PNG format.
    """
    rows = [summary for summary in summaries if summary.row != TEACHER]
    rows = [summary for summary in rows if summary.row in DEFAULT_ROWS] or rows
    figure = Figure(figsize=(10, 5), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    depth = max(len(summary.layer_cosines) for summary in rows) - 1
    for summary in rows:
        own_depth = len(summary.layer_cosines) - 1
        layers = [layer * depth / own_depth for layer in range(own_depth + 1)]
        # Without a floor, equal hidden states have no place on a logarithmic axis.
        distances = [max(1 - cosine, 1e-6) for cosine in summary.layer_cosines]
        axes.plot(
            layers,
            distances,
            color=COLORS[summary.row],
            marker=MARKERS[summary.row],
            markersize=5,
            label=summary.label,
        )
    _use_log_scale(axes, "y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Hidden state (0: input of the first layer)", fontsize=NORMAL)
    axes.set_ylabel("1 − cosine similarity to the teacher", fontsize=NORMAL)
    axes.set_title(
        f"{100 * (rows[0].target_sparsity or 0):g} % of the parameters removed (lower is better)", fontsize=NORMAL
    )
    _tidy(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=NORMAL)
    _save(figure, path)


def draw_curves(summaries: Sequence[Summary], path: str | os.PathLike) -> None:
    """Draws one panel per column and one curve over the size per student, with the standard deviation over seeds.

    Args:
        summaries: Students of at least two sizes, and the teacher, which is drawn as a dashed line.
        path: Output file, in the PNG format.
    """
    figure = Figure(figsize=(11, 7), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(2, 2).flat, CURVES, strict=True):
        column = COLUMNS[name]
        for row, color in COLORS.items():
            curve = [summary for summary in summaries if summary.row == row]
            if curve:
                curve.sort(key=lambda summary: summary.num_parameters)
                spreads = [summary.spread(name) for summary in curve]
                axes.errorbar(
                    [summary.num_parameters / 1e6 for summary in curve],
                    [summary.mean(name) for summary in curve],
                    yerr=None if not any(spreads) else [spread or 0.0 for spread in spreads],
                    color=color,
                    marker=MARKERS[row],
                    markersize=5,
                    capsize=3,
                    label=curve[0].label,
                )
        if column.lower_is_better:
            _use_log_scale(axes, "y")
        else:
            _draw_teacher(axes.axhline, summaries, column)
        axes.set_title(f"{column.label} ({column.direction})", fontsize=NORMAL)
        axes.set_xlabel("Parameters (millions)", fontsize=NORMAL)
        _tidy(axes)
    handles, labels = figure.axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=NORMAL)
    _save(figure, path)


def _draw_teacher(draw_line: Callable[..., Any], summaries: Sequence[Summary], column: EvaluationColumn) -> None:
    for summary in summaries:
        if summary.row == TEACHER:
            draw_line(summary.mean(column.name), color=TEACHER_COLOR, linestyle="--", linewidth=1.2, label=TEACHER)


def _use_log_scale(axes: Axes, side: str) -> None:
    """Makes one axis logarithmic, with plain numbers."""
    axis = axes.xaxis if side == "x" else axes.yaxis
    (axes.set_xscale if side == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def _tidy(axes: Axes) -> None:
    axes.tick_params(which="both", labelsize=SMALL + 1, length=0, labelcolor=INK)
    axes.grid(color=GRID_COLOR, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: str | os.PathLike) -> None:
    figure.savefig(path)
    with Image.open(path) as picture:
        few_colors = picture.convert("RGB").quantize(NUM_COLORS)
    few_colors.save(path, optimize=True)
