"""Pictures over the layers of a model: layer profiles, such as graph convexity, and fidelity."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ..one_shot.round_files import PruningRound
from ..pruning.fidelity import Fidelity
from ..truncation.layer_choice import LayerChoice
from ..truncation.layer_profile import LayerProfile
from .pictures import CURVES_SIZE, GRID_COLOR, INK, LARGE, LINE, NORMAL, SMALL, new_figure


# Width and height in inches.
SIZE = (8, 4.8)
LEGEND_COLUMNS = 3
# Distinguishable with color vision deficiency.
COLORS = ("#3a85bd", "#d1603d", "#4b7f52", "#8d6cab", "#b5942c", "#555555")
DASHES = ("-", "--", ":", "-.")
CHOSEN_MARKER: dict[str, Any] = {
    "marker": "o",
    "markersize": 10,
    "markerfacecolor": "none",
    "markeredgewidth": 1.8,
    "linestyle": "none",
}
ERROR_ALPHA, BAND_ALPHA, BAND_HATCH = 0.15, 0.25, "///"
UNIT_NAMES = {
    "qk": "query/key dimensions",
    "vo": "value/output dimensions",
    "int": "intermediate units",
    "conv": "channels of convolutions",
}
CHOSEN, ERROR, BAND = "last layer kept", "one standard error", "95 % band of permuted labels"


@dataclass(frozen=True)
class LayerCurve:
    """One curve over the hidden states 0 to n of a model with n layers.

    Attributes:
        name: Name in the legend.
        values: Score of each hidden state, n + 1 numbers.
        standard_errors: Standard errors of `values`; `None` draws none.
        band: Lower and upper limits of a band at each hidden state, such as that of permuted labels; `None` draws none.
        num_layers: Number of layers kept, marked on the curve; `None` marks none.
        color: Index into `COLORS`, which is used cyclically; `None` takes the curve's position.
        dashes: Index into `DASHES`, which is used cyclically; 0 is a solid line.
    """

    name: str
    values: Sequence[float]
    standard_errors: Sequence[float] | None = None
    band: tuple[Sequence[float], Sequence[float]] | None = None
    num_layers: int | None = None
    color: int | None = None
    dashes: int = 0


def convexity_curves(
    profile: LayerProfile,
    choices: Sequence[LayerChoice] = (),
    *,
    suffix: str = "",
    dashes: int = 0,
    with_band: bool = True,
) -> list[LayerCurve]:
    """Makes the convexity curves of a model, one for each kind of label.

    Args:
        profile: Layer profile of the model.
        choices: Choices by convexity, marked on the curves of their labels.
        suffix: Text after the name of the labels, to tell several models apart.
        dashes: Index of the line style, see `LayerCurve`.
        with_band: Whether to draw the band of permuted labels, if the profile has at least two permutations.
    """
    kept = {choice.labels: choice.num_layers for choice in choices}
    return [
        LayerCurve(
            name=f"{name}{suffix}",
            values=labels.convexity.values,
            standard_errors=labels.convexity.standard_errors,
            band=labels.permuted_band() if with_band and len(labels.permuted_convexity or ()) > 1 else None,
            num_layers=kept.get(name),
            color=color,
            dashes=dashes,
        )
        for color, (name, labels) in enumerate(profile.labels.items())
        if labels.convexity is not None
    ]


def draw_layer_profiles(
    curves: Sequence[LayerCurve], path: str | os.PathLike, *, title: str = "", value_name: str = "Graph convexity"
) -> None:
    """Draws curves over the layers of a model, with the chosen layers marked.

    Args:
        curves: One or more curves.
        path: Output file; its extension selects the image format.
        title: Title above the picture.
        value_name: Label of the vertical axis.

    Raises:
        ValueError: If there is no curve.
    """
    if not curves:
        raise ValueError("There is no curve to draw. Score the layers by convexity first.")
    figure = new_figure(*SIZE)
    axes = figure.subplots()
    for position, curve in enumerate(curves):
        color = COLORS[(position if curve.color is None else curve.color) % len(COLORS)]
        _draw_curve(axes, curve, color)
    axes.set_xlabel("Layer (0: input of the first layer)", fontsize=NORMAL)
    _style(axes, value_name)
    handles = axes.get_legend_handles_labels()[0] + _legend_marks(curves)
    figure.legend(handles=handles, loc="outside lower center", ncols=LEGEND_COLUMNS, frameon=False, fontsize=NORMAL)
    if title:
        figure.suptitle(title, fontsize=LARGE)
    figure.savefig(path)


def draw_fidelity(fidelity: Fidelity, path: str | os.PathLike, reference: str = "teacher") -> None:
    """Draws cosine similarity and relative error over the hidden states.

    Args:
        fidelity: Agreement of the hidden states of two models.
        path: Output file; its extension selects the image format.
        reference: What the pruned model is compared with, for the title.
    """
    figure = new_figure(*CURVES_SIZE)
    top, bottom = figure.subplots(2, sharex=True)
    for axes, values, name, color in (
        (top, fidelity.cosine, "Cosine similarity", COLORS[0]),
        (bottom, fidelity.relative_error, "Relative error", COLORS[1]),
    ):
        axes.plot(range(len(values)), values, color=color, **(LINE | {"markersize": 7}))
        _style(axes, name)
    top.set_ylim(top=1)
    bottom.set_ylim(bottom=0)
    bottom.set_xlabel("Hidden state (0: input of the first layer)", fontsize=NORMAL)
    figure.suptitle(f"Hidden states of the pruned model against the {reference}'s, held-out audio", fontsize=LARGE)
    figure.savefig(path)


def draw_prices(rounds: Sequence[PruningRound], path: str | os.PathLike) -> None:
    """Draws the growth of the loss over the layers, for each kind of unit, before the first and before the last round.

    Args:
        rounds: Rounds with prices, one or more.
        path: Output file; its extension selects the image format.
    """
    figure = new_figure(*SIZE)
    axes = figure.subplots()
    shown = {"first round": rounds[0], "last round": rounds[-1]} if len(rounds) > 1 else {"": rounds[0]}
    for dashes, (name, pruning_round) in enumerate(shown.items()):
        for color, (unit, unit_name) in enumerate(UNIT_NAMES.items()):
            prices = [price for price in pruning_round.prices if price.unit == unit]
            if not prices:
                continue
            axes.plot(
                [price.layer_idx for price in prices],
                [price.loss_growth for price in prices],
                DASHES[dashes],
                color=COLORS[color],
                label=f"{unit_name}, {name}" if name else unit_name,
                **(LINE | {"markersize": 7}),
            )
    axes.set_yscale("log")
    axes.set_xlabel("Layer or convolution index", fontsize=NORMAL)
    _style(axes, f"Growth of the loss without {100 * rounds[0].price_fraction:.0f} % of the units")
    figure.legend(loc="outside lower center", ncols=len(shown), frameon=False, fontsize=NORMAL)
    figure.suptitle("Price of pruning one kind of unit in one layer, estimated", fontsize=LARGE)
    figure.savefig(path)


def _style(axes: Axes, value_name: str) -> None:
    """Formats axes whose horizontal one counts layers."""
    axes.set_ylabel(value_name, fontsize=NORMAL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10), nbins=26))
    axes.tick_params(labelsize=SMALL + 1)
    axes.grid(color=GRID_COLOR, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_curve(axes: Axes, curve: LayerCurve, color: str) -> None:
    values = np.asarray(curve.values)
    layers = np.arange(len(values))
    if curve.band is not None:
        axes.fill_between(layers, *curve.band, color=color, alpha=BAND_ALPHA, linewidth=0, hatch=BAND_HATCH, zorder=1)
    if curve.standard_errors is not None:
        errors = np.asarray(curve.standard_errors)
        axes.fill_between(
            layers, values - errors, values + errors, color=color, alpha=ERROR_ALPHA, linewidth=0, zorder=1
        )
    axes.plot(layers, values, DASHES[curve.dashes % len(DASHES)], color=color, label=curve.name, **LINE)
    if curve.num_layers is not None:
        axes.plot(curve.num_layers, values[curve.num_layers], color=color, **CHOSEN_MARKER)


def _legend_marks(curves: Sequence[LayerCurve]) -> list[Line2D | Patch]:
    """Makes legend entries for the marks that the curves share."""
    marks: list[Line2D | Patch] = []
    if any(curve.num_layers is not None for curve in curves):
        marks.append(Line2D([], [], color=INK, label=CHOSEN, **CHOSEN_MARKER))
    if any(curve.standard_errors is not None for curve in curves):
        marks.append(Patch(facecolor=INK, alpha=ERROR_ALPHA, label=ERROR))
    if any(curve.band is not None for curve in curves):
        marks.append(Patch(facecolor=INK, alpha=BAND_ALPHA, hatch=BAND_HATCH, linewidth=0, label=BAND))
    return marks


def draw_profiles(
    stages: Mapping[str, Mapping[str, LayerProfile]], choice: LayerChoice | None, task: str, path: str | os.PathLike
) -> None:
    """Draws convexity over the layers, with a color for each kind of label and a line style for each stage.

    Args:
        stages: Layer profiles by stage, such as "pretrained", and by kind of label.
        choice: Choice of the number of layers, marked on the task's curve of the first stage; `None` marks none.
        task: Kind of label that the choice is for.
        path: Output file; its extension selects the image format.
    """
    curves = []
    for dashes, (stage, profiles) in enumerate(stages.items()):
        for color, (label, profile) in enumerate(profiles.items()):
            (curve,) = convexity_curves(profile, suffix=f", {stage}", dashes=dashes, with_band=dashes == 0)
            kept = choice.num_layers if choice is not None and dashes == 0 and label == task else None
            curves.append(replace(curve, color=color, num_layers=kept))
    draw_layer_profiles(curves, path)
