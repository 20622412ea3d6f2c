"""Pictures of one-shot pruning: loss against size, and loss against the amount of calibration audio."""

from __future__ import annotations

import os
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from experiments.one_shot_summary import LossCurve
from hf_prunable.reporting.pictures import DOTS_PER_INCH, GRID_COLOR, INK, NORMAL, SMALL


LOSS_LABEL = "Distillation loss, held-out audio"
# Grey and blue for plain widths, warm colors for one-shot pruning, darkest for its default.
COLORS = {
    "magnitude": "#9a9a9a",
    "magnitude_refit": "#6baed6",
    "magnitude_reconstructed": "#2171b5",
    "uniform_selected": "#17a2a2",
    "one_round_refit": "#f0a13a",
    "one_round": "#e8743b",
    "rounds_refit": "#d45087",
    "rounds": "#8a1c1c",
    "finer_rounds": "#3d0c02",
    "stock_shape": "#4b7f52",
}
TRAINED_COLORS = {
    "one_shot_trained": "#333333",
    "gates_one_shot": "#8d6cab",
    "gates_paper": "#777777",
    "magnitude_trained": "#0b3c6f",
}
TARGET_COLORS = ("#1f77b4", "#8a1c1c", "#4b7f52", "#a3336f", "#e8743b", "#333333")
AUDIO_MARKERS = "osD^vP"


def draw_sizes(curves: Sequence[LossCurve], trained: Sequence[LossCurve], path: str | os.PathLike) -> None:
    """Draws the loss of each row against the number of parameters.

    Args:
        curves: Rows on the same calibration audio.
        trained: Trained students, which are drawn dashed.
        path: Output file; its extension selects the image format.
    """
    figure = Figure(figsize=(10, 5.5), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for curve in curves:
        _draw_size_curve(axes, curve, color=COLORS[curve.row], marker="o")
    for curve in trained:
        _draw_size_curve(axes, curve, color=TRAINED_COLORS[curve.row], marker="x", linestyle="--")
    axes.set_xlabel("Parameters (millions)", fontsize=NORMAL)
    _tidy(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=NORMAL)
    figure.savefig(path)


def _draw_size_curve(axes: Axes, curve: LossCurve, **style: str) -> None:
    targets = sorted(curve.losses)
    axes.errorbar(
        [curve.size(target) / 1e6 for target in targets],
        [curve.mean(target) for target in targets],
        yerr=[curve.spread(target) or 0.0 for target in targets],
        markersize=5,
        capsize=3,
        label=curve.label,
        **style,
    )


def draw_audio(curves: Sequence[LossCurve], path: str | os.PathLike) -> None:
    """Draws the loss of one row against the seconds of calibration audio: one color per target, one marker per kind.

    Args:
        curves: The same row on several kinds and amounts of audio.
        path: Output file; its extension selects the image format.
    """
    figure = Figure(figsize=(10, 5.5), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    kinds = list(dict.fromkeys(curve.draw.audio for curve in curves))
    targets = sorted({target for curve in curves for target in curve.losses})
    for kind, marker in zip(kinds, AUDIO_MARKERS, strict=False):
        for target, color in zip(targets, TARGET_COLORS, strict=False):
            found = [curve for curve in curves if curve.draw.audio == kind and target in curve.losses]
            if found:
                axes.errorbar(
                    [curve.draw.seconds for curve in found],
                    [curve.mean(target) for curve in found],
                    yerr=[curve.spread(target) or 0.0 for curve in found],
                    color=color,
                    marker=marker,
                    markersize=6,
                    capsize=3,
                    label=f"{100 * target:g} % removed, {kind}",
                )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("Calibration audio (seconds)", fontsize=NORMAL)
    _tidy(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=NORMAL)
    figure.savefig(path)


def _tidy(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(LOSS_LABEL, fontsize=NORMAL)
    axes.tick_params(labelsize=SMALL + 1, length=0, labelcolor=INK)
    axes.grid(color=GRID_COLOR, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
