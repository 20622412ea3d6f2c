"""Pictures of a pruning run: what is left in every layer, and how the sparsity came to its target."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..modeling.shape import AttentionShape, PrunedShape
from ..modeling.size import UnitCounts, count_parameters


DOTS_PER_INCH = 150
# Inches. A cell holds a width of up to three digits.
CELL = 0.3
MIN_GRID_SIDE = 2.6
BARS_HEIGHT = 1.9
MARGINS = (2.2, 2.3)
SMALL, NORMAL, LARGE = 6.5, 9, 11

WIDTHS = LinearSegmentedColormap.from_list("widths", ["#e3eef7", "#8fbfdd", "#3a85bd", "#0b3c6f"])
BAR_COLOR, INK, FRAME = "#3a85bd", "#333333", "#9a9a9a"
GONE_COLOR, BIAS_COLOR, ABSENT_COLOR = "#d9d9d9", "#f6c667", "#f5f5f5"
GONE_HATCH = "////"
# Dots, because a line of one point cannot be seen.
LINE = {"linewidth": 1.6, "marker": ".", "markersize": 3}
CURVES_SIZE = (8, 5.5)
TARGET_COLOR, EXPECTED_COLOR, DETERMINISTIC_COLOR, LOSS_COLOR = "#555555", "#3a85bd", "#d1603d", "#4b7f52"
GRID_COLOR = "#e6e6e6"


def draw_shape(shape: PrunedShape, config: Any, path: str | os.PathLike) -> None:
    """Draws the widths of all heads, feed-forward blocks and convolutions beside those of the original model.

    Layers and heads are counted from 0, as in the shape and in the names of the weights.

    Args:
        shape: What is left.
        config: A prunable configuration, which names the original widths.
        path: Of the picture; its ending chooses the format.
    """
    num_layers, num_heads = len(shape.layers), config.num_attention_heads
    grid_width, grid_height = (max(MIN_GRID_SIDE, CELL * count) for count in (num_layers, num_heads))
    figure = Figure(
        figsize=(2 * grid_width + MARGINS[0], grid_height + BARS_HEIGHT + MARGINS[1]),
        dpi=DOTS_PER_INCH,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, height_ratios=(grid_height, BARS_HEIGHT))
    head_dim = config.hidden_size // num_heads
    blocks = [layer.attention for layer in shape.layers]
    value_output = [block.value_output if block else () for block in blocks]
    query_key = [block.query_key if block else () for block in blocks]
    _draw_heads(axes[0, 0], blocks, value_output, num_heads, head_dim)
    axes[0, 0].set_title("Values and outputs of each head (dimensions)", fontsize=NORMAL)
    _draw_heads(axes[0, 1], blocks, query_key, num_heads, head_dim)
    axes[0, 1].set_title("Queries and keys of each head (dimensions)", fontsize=NORMAL)
    _draw_bars(axes[1, 0], [layer.intermediate for layer in shape.layers], [config.intermediate_size] * num_layers)
    _label(axes[1, 0], "layer, from 0", "hidden units")
    axes[1, 0].set_title("Feed-forward", fontsize=NORMAL)
    _draw_bars(axes[1, 1], shape.conv_channels, config.conv_dim)
    _label(axes[1, 1], "convolution, from 0", "channels")
    axes[1, 1].set_title("Feature encoder", fontsize=NORMAL)

    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), WIDTHS), ax=axes[0, :], pad=0.01, aspect=30)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    bar.ax.tick_params(labelsize=SMALL + 1, length=0)
    bar.set_label(f"width, 100 % = {head_dim} dimensions", fontsize=NORMAL)
    bar.outline.set_visible(False)
    patches = [
        Patch(facecolor=ABSENT_COLOR, edgecolor=FRAME, linewidth=0.5, label="head or units removed"),
        Patch(facecolor=BIAS_COLOR, label="only the block's output bias left"),
        Patch(facecolor=GONE_COLOR, edgecolor=FRAME, hatch=GONE_HATCH, linewidth=0, label="whole block removed"),
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=NORMAL)
    left, dense = count_parameters(config, UnitCounts.of(shape)), config.dense_num_parameters
    figure.suptitle(f"{left:,} of {dense:,} encoder parameters are left ({100 * left / dense:.1f} %)", fontsize=LARGE)
    figure.savefig(path)


def _draw_heads(
    axes: Axes,
    blocks: Sequence[AttentionShape | None],
    widths: Sequence[Sequence[int]],
    num_heads: int,
    head_dim: int,
) -> None:
    """A column for each layer, a cell for each head of the original model, with its width."""
    cells, colors = [], []
    for layer, (block, widths_of_heads) in enumerate(zip(blocks, widths, strict=True)):
        if block is None or not block.heads:
            _mark_block(axes, layer, (-0.5, num_heads), block is None)
            continue
        width_of = dict(zip(block.heads, widths_of_heads, strict=True))
        for head in range(num_heads):
            width = width_of.get(head)
            part = (width or 0) / head_dim
            cells.append(Rectangle((layer - 0.46, head - 0.46), 0.92, 0.92))
            colors.append(ABSENT_COLOR if width is None else WIDTHS(part))
            if width is not None:
                ink = "white" if part > 0.5 else INK
                text = axes.text(layer, head, str(width), ha="center", va="center", fontsize=SMALL, color=ink)
                # It lies within the axes, and measuring hundreds of texts for the layout is slow.
                text.set_in_layout(False)
    axes.add_collection(PatchCollection(cells, facecolors=colors, linewidths=0))
    axes.set(xlim=(-0.6, len(blocks) - 0.4), ylim=(num_heads - 0.4, -0.6))
    _label(axes, "layer, from 0", "head, from 0")
    axes.set_xticks(range(len(blocks)))
    axes.set_yticks(range(num_heads))
    _tidy(axes)


def _draw_bars(axes: Axes, kept: Sequence[int | None], full: Sequence[int]) -> None:
    """A bar for each place, in a frame of the original height."""
    height = max(full)
    for place, (units, all_units) in enumerate(zip(kept, full, strict=True)):
        if not units:
            _mark_block(axes, place, (0, all_units), units is None)
            continue
        axes.bar(place, all_units, width=0.8, color=ABSENT_COLOR, edgecolor=FRAME, linewidth=0.5)
        axes.bar(place, units, width=0.8, color=BAR_COLOR)
        axes.text(place, all_units + 0.02 * height, str(units), ha="center", va="bottom", fontsize=SMALL, color=INK)
    axes.set(xlim=(-0.6, len(full) - 0.4), ylim=(0, 1.13 * height))
    axes.set_xticks(range(len(full)))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10), integer=True))
    _tidy(axes)


def _mark_block(axes: Axes, place: int, span: tuple[float, float], is_gone: bool) -> None:
    """A block that is gone or only a bias, from `span[0]` over a height of `span[1]`."""
    style = (
        {"facecolor": GONE_COLOR, "edgecolor": FRAME, "hatch": GONE_HATCH} if is_gone else {"facecolor": BIAS_COLOR}
    )
    axes.add_patch(Rectangle((place - 0.4, span[0]), 0.8, span[1], linewidth=0, **style))


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=NORMAL)
    axes.set_ylabel(y, fontsize=NORMAL)


def _tidy(axes: Axes) -> None:
    axes.tick_params(labelsize=SMALL + 1, length=0)
    axes.spines[:].set_visible(False)


def draw_sparsity_curve(history: Sequence[dict[str, Any]], path: str | os.PathLike) -> None:
    """Draws target, expected and deterministic sparsity over the steps, and the distillation loss below.

    Args:
        history: As in `PruningReport`; missing numbers are left out. Stages that count their steps from the start
            follow each other.
        path: Of the picture; its ending chooses the format.
    """
    steps, boundaries = _continuous_steps(history)
    figure = Figure(figsize=CURVES_SIZE, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for name, label, color, style in (
        ("target_sparsity", "target", TARGET_COLOR, "--"),
        ("expected_sparsity", "expected, over the gates' noise", EXPECTED_COLOR, "-"),
        ("deterministic_sparsity", "deterministic, if cut now", DETERMINISTIC_COLOR, "-"),
    ):
        top.plot(steps, _column(history, name), style, color=color, label=label, **LINE)
    top.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    top.set_ylim(bottom=0)
    _label(top, "", "sparsity, of all encoder parameters")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=NORMAL)
    bottom.plot(steps, _column(history, "distillation_loss"), color=LOSS_COLOR, **LINE)
    _label(bottom, "optimizer step", "distillation loss")
    for axes in (top, bottom):
        axes.tick_params(labelsize=SMALL + 1)
        axes.grid(color=GRID_COLOR, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        for boundary in boundaries:
            axes.axvline(boundary, color=INK, linestyle=":", linewidth=1)
    for number, boundary in enumerate(boundaries, start=1):
        top.annotate(
            f"stage {number} | stage {number + 1}",
            (boundary, 1.01),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=NORMAL,
        )
    figure.savefig(path)


def _continuous_steps(history: Sequence[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """Steps that go on from stage to stage, and the last step of every stage but the last."""
    steps, boundaries, offset = [entry["step"] for entry in history[:1]], [], 0
    for before, entry in pairwise(history):
        if entry.get("stage") != before.get("stage"):
            if entry["step"] <= before["step"]:
                offset = steps[-1]
            boundaries.append(steps[-1])
        steps.append(entry["step"] + offset)
    return steps, boundaries


def _column(history: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """One number of every entry, NaN where there is none."""
    return np.array([entry.get(name) for entry in history], dtype=float)
