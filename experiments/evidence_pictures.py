"""Pictures of the comparison: all students at one size, and the evaluation over the size."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.compared_students import STUDENTS, TEACHER
from experiments.evidence_summary import EvaluationColumn, Summary
from hf_prunable.reporting.pictures import DOTS_PER_INCH, GRID_COLOR, INK, NORMAL, SMALL


TEACHER_COLOR = "#555555"
# Warm colors for rows that learn their shape, cold colors for the others.
COLORS = {
    "learned": "#c8372d",
    "learned_without_ste": "#e8743b",
    "learned_fine_units": "#8a2a12",
    "learned_from_norms": "#3d0c02",
    "learned_ladder": "#b08d57",
    "learned_whole_heads": "#f0a13a",
    "learned_with_conv": "#a3336f",
    "one_stage": "#8c564b",
    "random_shape": "#1f77b4",
    "uniform_width": "#17a2a2",
    "first_layers": "#4b7f52",
    "from_scratch": "#7f7fbf",
}
MARKERS = dict(zip(STUDENTS, "os<>D*^vXPdh", strict=True))


def draw_comparison(
    summaries: Sequence[Summary], columns: Sequence[EvaluationColumn], path: str | os.PathLike
) -> None:
    """Draws one panel per column and one line per student: small dots for seeds, a large dot for their mean.

    Args:
        summaries: Students of one size, and the teacher, which is drawn as a dashed line.
        columns: Columns in the order of the panels.
        path: Output file; its extension selects the image format.
    """
    rows = [summary for summary in summaries if summary.row != TEACHER]
    figure = Figure(figsize=(12.5, 1.4 + 0.34 * len(rows)), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, column in zip(figure.subplots(1, len(columns), sharey=True), columns, strict=True):
        for place, summary in enumerate(rows):
            values = summary.values[column.name]
            color = COLORS[summary.row]
            axes.plot(values, [place + 0.22] * len(values), ".", color=color, markersize=4, alpha=0.7)
            axes.errorbar(
                summary.mean(column.name) if values else float("nan"),
                place,
                xerr=summary.spread(column.name),
                fmt="o",
                color=color,
                markersize=7,
                capsize=3,
            )
        _draw_teacher(axes.axvline, summaries, column)
        axes.set_title(f"{column.label}\n({column.direction})", fontsize=NORMAL)
        axes.set_yticks(range(len(rows)), [summary.label for summary in rows], fontsize=NORMAL)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        _tidy(axes)
    size = sum(summary.num_parameters for summary in rows) / len(rows)
    figure.suptitle(
        f"{size / 1e6:.2f} M parameters ({100 * rows[0].target_sparsity:g} % removed). Large markers: mean and standard "
        "deviation over seeds; small markers: single seeds; dashed line: teacher",
        fontsize=NORMAL,
    )
    figure.savefig(path)


def draw_curves(summaries: Sequence[Summary], columns: Sequence[EvaluationColumn], path: str | os.PathLike) -> None:
    """Draws one panel per column and one curve over the size per student, with the standard deviation over seeds.

    Args:
        summaries: Students of at least two sizes, and the teacher, which is drawn as a dashed line.
        columns: Columns in the order of the panels.
        path: Output file; its extension selects the image format.
    """
    figure = Figure(figsize=(10, 7), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, column in zip(figure.subplots(2, 2).flat, columns, strict=True):
        for row, color in COLORS.items():
            curve = [summary for summary in summaries if summary.row == row and summary.values[column.name]]
            if curve:
                curve.sort(key=lambda summary: summary.num_parameters)
                axes.errorbar(
                    [summary.num_parameters / 1e6 for summary in curve],
                    [summary.mean(column.name) for summary in curve],
                    yerr=[summary.spread(column.name) or 0.0 for summary in curve],
                    color=color,
                    marker=MARKERS[row],
                    markersize=5,
                    capsize=3,
                    label=curve[0].label,
                )
        _draw_teacher(axes.axhline, summaries, column)
        axes.set_title(f"{column.label} ({column.direction})", fontsize=NORMAL)
        axes.set_xlabel("Parameters (millions)", fontsize=NORMAL)
        _tidy(axes)
    handles, labels = figure.axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=NORMAL)
    figure.savefig(path)


def _draw_teacher(draw_line: Callable[..., Any], summaries: Sequence[Summary], column: EvaluationColumn) -> None:
    for summary in summaries:
        if summary.row == TEACHER and summary.values[column.name]:
            draw_line(summary.mean(column.name), color=TEACHER_COLOR, linestyle="--", linewidth=1.2, label=TEACHER)


def _tidy(axes: Axes) -> None:
    axes.tick_params(labelsize=SMALL + 1, length=0, labelcolor=INK)
    axes.grid(color=GRID_COLOR, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
