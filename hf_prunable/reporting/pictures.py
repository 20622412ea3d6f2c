"""Pictures of runs: the pruned shape, sparsity and losses over the steps, and the confusion matrix."""

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
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from ..modeling.configuration import PrunableConfigMixin
from ..modeling.shape import AttentionShape, PrunedShape
from ..modeling.size import UnitCounts, count_parameters


DOTS_PER_INCH = 150
# Sizes in inches; a cell fits a number of three digits.
CELL = 0.3
MIN_GRID_SIDE = 2.6
BARS_HEIGHT = 1.9
MARGINS = (2.2, 2.3)
CURVES_SIZE = (8, 5.5)
# Font sizes in points.
SMALL, NORMAL, LARGE = 6.5, 9, 11

WIDTHS = LinearSegmentedColormap.from_list("widths", ["#e3eef7", "#8fbfdd", "#3a85bd", "#0b3c6f"])
BAR_COLOR, INK, FRAME = "#3a85bd", "#333333", "#9a9a9a"
REMOVED_COLOR, BIAS_COLOR, ABSENT_COLOR = "#d9d9d9", "#f6c667", "#f5f5f5"
REMOVED_HATCH = "////"
# Markers make a curve of a single point visible.
LINE: dict[str, Any] = {"linewidth": 1.6, "marker": ".", "markersize": 3}
GRID_COLOR = "#e6e6e6"
# Entries of a training history, with their label, color and line style.
SPARSITY_CURVES = (
    ("target_sparsity", "target", "#555555", "--"),
    ("expected_sparsity", "expected over the gate noise", "#3a85bd", "-"),
    ("deterministic_sparsity", "deterministic (if compacted now)", "#d1603d", "-"),
)
LOSS_CURVES = (("distillation_loss", "Distillation loss", "#4b7f52", "-"), ("task_loss", "Task loss", "#8d6cab", "-"))
# A confusion matrix of more classes has ids instead of names.
MAX_NAMED_CLASSES = 40
# Number of classes up to which the cells of a confusion matrix show their clips.
MAX_COUNTED_CLASSES = 20


def new_figure(width: float, height: float) -> Figure:
    """Creates a figure that needs no display.

    Args:
        width: Width in inches.
        height: Height in inches.
    """
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_shape(shape: PrunedShape, config: PrunableConfigMixin, path: str | os.PathLike) -> None:
    """Draws the widths of all heads, feed-forward blocks and convolutions relative to those of the dense model.

    Layers and heads are counted from 0, as in the shape and in the names of the weights.

    Args:
        shape: Shape of the pruned encoder.
        config: Prunable configuration with the dense widths.
        path: Output file; its extension selects the image format.
    """
    num_layers, num_heads = len(shape.layers), config.num_attention_heads
    head_dim = config.hidden_size // num_heads
    grid_width, grid_height = (max(MIN_GRID_SIDE, CELL * count) for count in (num_layers, num_heads))
    figure = new_figure(2 * grid_width + MARGINS[0], grid_height + BARS_HEIGHT + MARGINS[1])
    axes = figure.subplots(2, 2, height_ratios=(grid_height, BARS_HEIGHT))
    blocks = [layer.attention for layer in shape.layers]
    value_output = [block.value_output if block else () for block in blocks]
    query_key = [block.query_key if block else () for block in blocks]
    _draw_heads(axes[0, 0], blocks, value_output, num_heads, head_dim)
    axes[0, 0].set_title("Value/output dimensions per head", fontsize=NORMAL)
    _draw_heads(axes[0, 1], blocks, query_key, num_heads, head_dim)
    axes[0, 1].set_title("Query/key dimensions per head", fontsize=NORMAL)
    _draw_bars(axes[1, 0], [layer.intermediate for layer in shape.layers], [config.intermediate_size] * num_layers)
    _label(axes[1, 0], "Layer index", "Intermediate size")
    axes[1, 0].set_title("Feed-forward", fontsize=NORMAL)
    _draw_bars(axes[1, 1], shape.conv_channels, config.conv_dim)
    _label(axes[1, 1], "Convolution index", "Channels")
    axes[1, 1].set_title("Feature encoder", fontsize=NORMAL)
    _add_shape_legends(figure, axes[0, :], head_dim)
    left, dense = count_parameters(config, UnitCounts.of(shape)), config.dense_num_parameters
    figure.suptitle(f"{left:,} of {dense:,} encoder parameters kept ({100 * left / dense:.1f} %)", fontsize=LARGE)
    figure.savefig(path)


def _add_shape_legends(figure: Figure, grids: Sequence[Axes], head_dim: int) -> None:
    """Adds the color bar of the head widths and the legend of what was removed."""
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), WIDTHS), ax=grids, pad=0.01, aspect=30)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    bar.ax.tick_params(labelsize=SMALL + 1, length=0)
    bar.set_label(f"Width (100 % = {head_dim} dimensions)", fontsize=NORMAL)
    bar.outline.set_visible(False)
    patches = [
        Patch(facecolor=ABSENT_COLOR, edgecolor=FRAME, linewidth=0.5, label="head or units removed"),
        Patch(facecolor=BIAS_COLOR, label="only the block's output bias kept"),
        Patch(facecolor=REMOVED_COLOR, edgecolor=FRAME, hatch=REMOVED_HATCH, linewidth=0, label="whole block removed"),
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=NORMAL)


def _draw_heads(
    axes: Axes,
    blocks: Sequence[AttentionShape | None],
    widths: Sequence[Sequence[int]],
    num_heads: int,
    head_dim: int,
) -> None:
    """Draws a column per layer with a cell per head of the dense model, labelled with its width."""
    cells, colors = [], []
    for layer_idx, (block, block_widths) in enumerate(zip(blocks, widths, strict=True)):
        if block is None or not block.heads:
            _mark_block(axes, layer_idx, (-0.5, num_heads), block is None)
            continue
        head_widths = dict(zip(block.heads, block_widths, strict=True))
        for head in range(num_heads):
            width = head_widths.get(head)
            fraction = (width or 0) / head_dim
            cells.append(Rectangle((layer_idx - 0.46, head - 0.46), 0.92, 0.92))
            colors.append(ABSENT_COLOR if width is None else WIDTHS(fraction))
            if width is not None:
                ink = "white" if fraction > 0.5 else INK
                text = axes.text(layer_idx, head, str(width), ha="center", va="center", fontsize=SMALL, color=ink)
                # The text lies within the axes; measuring hundreds of texts makes the layout slow.
                text.set_in_layout(False)
    axes.add_collection(PatchCollection(cells, facecolors=colors, linewidths=0))
    axes.set(xlim=(-0.6, len(blocks) - 0.4), ylim=(num_heads - 0.4, -0.6))
    _label(axes, "Layer index", "Head index")
    axes.set_xticks(range(len(blocks)))
    axes.set_yticks(range(num_heads))
    _tidy(axes)


def _draw_bars(axes: Axes, kept: Sequence[int | None], dense: Sequence[int]) -> None:
    """Draws a bar per block inside a frame of the dense height."""
    height = max(dense)
    for block_idx, (units, all_units) in enumerate(zip(kept, dense, strict=True)):
        if not units:
            _mark_block(axes, block_idx, (0, all_units), units is None)
            continue
        axes.bar(block_idx, all_units, width=0.8, color=ABSENT_COLOR, edgecolor=FRAME, linewidth=0.5)
        axes.bar(block_idx, units, width=0.8, color=BAR_COLOR)
        axes.text(
            block_idx, all_units + 0.02 * height, str(units), ha="center", va="bottom", fontsize=SMALL, color=INK
        )
    axes.set(xlim=(-0.6, len(dense) - 0.4), ylim=(0, 1.13 * height))
    axes.set_xticks(range(len(dense)))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10), integer=True))
    _tidy(axes)


def _mark_block(axes: Axes, block_idx: int, span: tuple[float, float], is_removed: bool) -> None:
    """Draws a block that was removed or keeps only its output bias, from `span[0]` with height `span[1]`."""
    axes.add_patch(
        Rectangle(
            (block_idx - 0.4, span[0]),
            0.8,
            span[1],
            linewidth=0,
            facecolor=REMOVED_COLOR if is_removed else BIAS_COLOR,
            edgecolor=FRAME if is_removed else None,
            hatch=REMOVED_HATCH if is_removed else None,
        )
    )


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=NORMAL)
    axes.set_ylabel(y, fontsize=NORMAL)


def _tidy(axes: Axes) -> None:
    axes.tick_params(labelsize=SMALL + 1, length=0)
    axes.spines[:].set_visible(False)


def draw_sparsity_curve(
    history: Sequence[dict[str, Any]], path: str | os.PathLike, measure: str = "parameters"
) -> None:
    """Draws target, expected and deterministic sparsity over the optimizer steps, and the losses below.

    Args:
        history: Training log as in `PruningResults`. Missing values leave gaps; stages that count their steps from 1 are
            drawn one after the other. Entries of evaluations are not drawn.
        path: Output file; its extension selects the image format.
        measure: Unit of sparsity, as in `PruningSizes`.
    """
    history = [entry for entry in history if "eval_loss" not in entry]
    steps, boundaries = _continuous_steps(history)
    figure = new_figure(*CURVES_SIZE)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for name, label, color, style in SPARSITY_CURVES:
        top.plot(steps, _column(history, name), style, color=color, label=label, **LINE)
    top.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    top.set_ylim(bottom=0)
    _label(top, "", f"Sparsity of encoder\n{measure}")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=NORMAL)
    losses = [curve for curve in LOSS_CURVES if any(curve[0] in entry for entry in history)]
    for name, label, color, style in losses:
        bottom.plot(steps, _column(history, name), style, color=color, label=label, **LINE)
    if len(losses) > 1:
        bottom.legend(frameon=False, fontsize=NORMAL)
    _label(bottom, "Optimizer step", losses[0][1] if len(losses) == 1 else "Loss")
    for axes in (top, bottom):
        axes.tick_params(labelsize=SMALL + 1)
        axes.grid(color=GRID_COLOR, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        for boundary in boundaries:
            axes.axvline(boundary, color=INK, linestyle=":", linewidth=1)
    for stage, boundary in enumerate(boundaries, start=1):
        top.annotate(
            f"stage {stage} | stage {stage + 1}",
            (boundary, 1.01),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=NORMAL,
        )
    figure.savefig(path)


def _continuous_steps(history: Sequence[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """Returns steps counted over all stages, and the last step of every stage but the last."""
    steps, boundaries, offset = [entry["step"] for entry in history[:1]], [], 0
    for before, entry in pairwise(history):
        if entry.get("stage") != before.get("stage"):
            if entry["step"] <= before["step"]:
                offset = steps[-1]
            boundaries.append(steps[-1])
        steps.append(entry["step"] + offset)
    return steps, boundaries


def _column(history: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """Returns a value of every entry, NaN where it is missing."""
    return np.array([entry.get(name) for entry in history], dtype=float)


def draw_confusion(
    references: Sequence[int], predictions: Sequence[int], class_names: Sequence[str], path: str | os.PathLike
) -> None:
    """Draws the confusion matrix, normalized over the true labels, with the number of clips of each class.

    Args:
        references: True class id of each clip.
        predictions: Predicted class id of each clip.
        class_names: Names of the classes, in the order of their ids; above `MAX_NAMED_CLASSES` the axes show ids.
        path: Output file; its extension selects the image format.
    """
    is_named = len(class_names) <= MAX_NAMED_CLASSES
    side = min(4 + 0.22 * len(class_names), 12) if is_named else 8
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    # Dollar signs would enclose a formula.
    names = [name.replace("$", r"\$") for name in class_names]
    counts = confusion_matrix(references, predictions, labels=range(len(class_names)))
    num_clips = counts.sum(axis=1)
    display = ConfusionMatrixDisplay(
        counts / np.maximum(num_clips, 1)[:, None], display_labels=names if is_named else None
    )
    style = {"vmin": 0, "vmax": 1}
    display.plot(include_values=False, cmap="Blues", xticks_rotation="vertical", im_kw=style, ax=axes)
    display.im_.colorbar.set_label("Fraction of the clips with the true label")
    for class_id in np.flatnonzero(num_clips == 0):
        axes.axhspan(class_id - 0.5, class_id + 0.5, facecolor="none", edgecolor=GRID_COLOR, hatch="///", linewidth=0)
    if is_named:
        axes.set_yticklabels([f"{name} ({count or 'no clip'})" for name, count in zip(names, num_clips, strict=True)])
    else:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
    if len(class_names) <= MAX_COUNTED_CLASSES:
        for true, predicted in zip(*np.nonzero(counts), strict=True):
            is_dark = 2 * counts[true, predicted] > num_clips[true]
            color = "white" if is_dark else INK
            axes.text(predicted, true, counts[true, predicted], ha="center", va="center", color=color, fontsize=SMALL)
    figure.savefig(path)
