"""The two pictures of the comparison: row beside row at one size, and measure against size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.students import STUDENTS, TEACHER


if TYPE_CHECKING:
    from experiments.evidence_report import Measure, Summary


DOTS_PER_INCH = 150
SMALL, NORMAL = 8, 9
INK, TEACHER_COLOR, GRID_COLOR = "#333333", "#555555", "#e6e6e6"
# Rows that learn their shape are warm, the others cold.
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


def _better(measure: Measure) -> str:
    return "lower is better" if measure.name.endswith("loss") else "higher is better"


def draw_comparison(summaries: Sequence[Summary], measures: Sequence[Measure], path: str | os.PathLike) -> None:
    """Draws a panel for each measure: a line for each row, a small dot for each seed, their mean and deviation.

    Args:
        summaries: Rows at one size, and the teacher, which becomes a dashed line.
        measures: In the order of the panels.
        path: Of the picture; its ending chooses the format.
    """
    rows = [summary for summary in summaries if summary.row != TEACHER]
    figure = Figure(figsize=(12.5, 1.4 + 0.34 * len(rows)), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, measure in zip(figure.subplots(1, len(measures), sharey=True), measures, strict=True):
        for place, summary in enumerate(rows):
            values = summary.values[measure.name]
            color = COLORS[summary.row]
            axes.plot(values, [place + 0.22] * len(values), ".", color=color, markersize=4, alpha=0.7)
            axes.errorbar(
                summary.mean(measure.name) if values else float("nan"),
                place,
                xerr=summary.spread(measure.name),
                fmt="o",
                color=color,
                markersize=7,
                capsize=3,
            )
        _draw_teacher(axes.axvline, summaries, measure)
        axes.set_title(f"{measure.label}\n({_better(measure)})", fontsize=NORMAL)
        axes.set_yticks(range(len(rows)), [summary.label for summary in rows], fontsize=NORMAL)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        _tidy(axes)
    size = sum(summary.num_parameters for summary in rows) / len(rows)
    figure.suptitle(
        f"{size / 1e6:.2f} M parameters ({100 * rows[0].target_sparsity:g} % removed); large: mean and standard "
        "deviation over the seeds, small: each seed, dashed: teacher",
        fontsize=NORMAL,
    )
    figure.savefig(path)


def draw_curves(summaries: Sequence[Summary], measures: Sequence[Measure], path: str | os.PathLike) -> None:
    """Draws a panel for each measure: a curve over the size for each row, with the deviation over the seeds.

    Args:
        summaries: Rows at two sizes or more, and the teacher, which becomes a dashed line.
        measures: In the order of the panels.
        path: Of the picture; its ending chooses the format.
    """
    figure = Figure(figsize=(10, 7), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, measure in zip(figure.subplots(2, 2).flat, measures, strict=True):
        for row, color in COLORS.items():
            curve = [summary for summary in summaries if summary.row == row and summary.values[measure.name]]
            if curve:
                curve.sort(key=lambda summary: summary.num_parameters)
                axes.errorbar(
                    [summary.num_parameters / 1e6 for summary in curve],
                    [summary.mean(measure.name) for summary in curve],
                    yerr=[summary.spread(measure.name) or 0.0 for summary in curve],
                    color=color,
                    marker=MARKERS[row],
                    markersize=5,
                    capsize=3,
                    label=curve[0].label,
                )
        _draw_teacher(axes.axhline, summaries, measure)
        axes.set_title(f"{measure.label} ({_better(measure)})", fontsize=NORMAL)
        axes.set_xlabel("million parameters", fontsize=NORMAL)
        _tidy(axes)
    handles, labels = figure.axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=NORMAL)
    figure.savefig(path)


def _draw_teacher(draw_line, summaries: Sequence[Summary], measure: Measure) -> None:
    for summary in summaries:
        if summary.row == TEACHER and summary.values[measure.name]:
            draw_line(summary.mean(measure.name), color=TEACHER_COLOR, linestyle="--", linewidth=1.2, label=TEACHER)


def _tidy(axes: Axes) -> None:
    axes.tick_params(labelsize=SMALL, length=0, labelcolor=INK)
    axes.grid(color=GRID_COLOR, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
