"""Picture of latency over parameters and over multiply-accumulates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from benchmarks.compared_models import PREPARED, STOCK
from benchmarks.inference_report import heading
from hf_prunable.reporting.pictures import DOTS_PER_INCH, GRID_COLOR, INK, NORMAL, SMALL, WIDTHS


# Inches.
WIDTH, ROW_HEIGHT, MARGIN = 10, 3.2, 1.2
MARKERS = "osD^vP*X"
REFERENCE_COLOR = "#9a9a9a"
GROUP = ("threads", "padded", "batch_size")


def draw_latency(result: dict[str, Any], path: str | os.PathLike) -> None:
    """Draws the median latency of every model and case over parameters and over multiply-accumulates (MACs).

    There is one row of panels for each batch size and number of threads, and one color for each clip length. Dashed
    lines show a latency proportional to MACs, from the stock model.

    Args:
        result: Result of `benchmarks.inference.measure`.
        path: Output file; its extension selects the image format.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for case in result["cases"]:
        groups.setdefault(tuple(case[name] for name in GROUP), []).append(case)
    lengths = sorted({case["seconds"] for case in result["cases"]})
    colors = {length: WIDTHS(0.35 + 0.65 * place / max(len(lengths) - 1, 1)) for place, length in enumerate(lengths)}
    names = [name for name in result["cases"][0]["models"] if not name.endswith(f" {PREPARED}")]
    markers = {name: MARKERS[place % len(MARKERS)] for place, name in enumerate(names)}
    figure = Figure(figsize=(WIDTH, MARGIN + ROW_HEIGHT * len(groups)), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(groups), 2, sharey="row", squeeze=False)
    for (by_parameters, by_macs), cases in zip(rows, groups.values(), strict=True):
        for case in cases:
            color = colors[case["seconds"]]
            stock_macs = case["models"][STOCK]["macs"]
            _draw_case(by_parameters, case["models"], "num_parameters", 1e6, color, markers)
            _draw_case(by_macs, case["models"], "macs", stock_macs, color, markers)
            _draw_lines(by_macs, case["models"], color)
        by_parameters.set_title(_title(cases[0]), fontsize=NORMAL, loc="left")
        by_parameters.set_ylabel("Latency (ms)", fontsize=NORMAL)
        by_parameters.set_yscale("log")
        by_parameters.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        by_parameters.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        by_parameters.yaxis.set_minor_formatter(NullFormatter())
        by_macs.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    rows[-1][0].set_xlabel("Parameters (millions)", fontsize=NORMAL)
    rows[-1][1].set_xlabel("Multiply-accumulates (% of the stock model)", fontsize=NORMAL)
    for axes in rows.flat:
        _style(axes)
    figure.legend(
        handles=_legend(markers, colors), loc="outside lower center", ncols=5, frameon=False, fontsize=NORMAL
    )
    figure.suptitle(heading(result), fontsize=NORMAL)
    figure.savefig(path)


def _title(case: dict[str, Any]) -> str:
    clips = f"batch of {case['batch_size']}" if case["batch_size"] > 1 else "one clip"
    threads = f"{case['threads']} thread{'' if case['threads'] == 1 else 's'}"
    return f"{clips}{', padded' if case['padded'] else ''}, {threads}"


def _draw_case(
    axes: Axes, models: dict[str, Any], size: str, unit: float, color: Any, markers: dict[str, str]
) -> None:
    for name, row in models.items():
        prepared = name.endswith(f" {PREPARED}")
        axes.plot(
            row[size] / unit,
            1e3 * row["median_seconds"],
            markers[name.removesuffix(f" {PREPARED}")],
            markersize=5,
            markeredgecolor=color,
            markerfacecolor="white" if prepared else color,
        )


def _draw_lines(axes: Axes, models: dict[str, Any], color: Any) -> None:
    """Joins the models as loaded by a line, and draws the dashed line proportional to MACs."""
    stock = models[STOCK]
    as_loaded = [row for name, row in models.items() if not name.endswith(f" {PREPARED}")]
    measured = sorted((row["macs"] / stock["macs"], 1e3 * row["median_seconds"]) for row in as_loaded)
    axes.plot(*zip(*measured, strict=True), color=color, linewidth=0.8)
    share = np.linspace(measured[0][0], 1)
    axes.plot(share, 1e3 * stock["median_seconds"] * share, "--", color=REFERENCE_COLOR, linewidth=0.8, zorder=1)


def _style(axes: Axes) -> None:
    axes.set_xlim(left=0)
    axes.tick_params(labelsize=SMALL + 1, length=0, which="both")
    axes.grid(color=GRID_COLOR, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(markers: dict[str, str], colors: dict[float, Any]) -> Sequence[Line2D]:
    """Legend entries: a marker for each model, a color for each clip length, hollow markers, and the dashed line."""
    handles = [Line2D([], [], color=INK, marker=marker, linestyle="", label=name) for name, marker in markers.items()]
    handles.append(Line2D([], [], color=INK, marker="o", linestyle="", markerfacecolor="white", label=PREPARED))
    handles += [Line2D([], [], color=color, label=f"{length:g} s clip") for length, color in colors.items()]
    return [*handles, Line2D([], [], color=REFERENCE_COLOR, linestyle="--", label="proportional to MACs")]
