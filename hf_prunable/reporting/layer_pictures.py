"""A picture of profiles over the layers of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ..truncation.layer_choice import LayerChoice
from ..truncation.layer_profile import LayerProfile
from .pictures import DOTS_PER_INCH, GRID_COLOR, INK, LARGE, LINE, NORMAL, SMALL


SIZE = (8, 4.8)
LEGEND_COLUMNS = 3
# As in the pictures of a pruning run, and told apart by readers who do not see all colours.
COLORS = ("#3a85bd", "#d1603d", "#4b7f52", "#8d6cab", "#b5942c", "#555555")
DASHES = ("-", "--", ":", "-.")
CHOSEN_MARKER = {
    "marker": "o",
    "markersize": 10,
    "markerfacecolor": "none",
    "markeredgewidth": 1.8,
    "linestyle": "none",
}
CHOSEN, ERROR, BAND = "layers kept", "one standard error", "95 % of permuted labels"


@dataclass(frozen=True)
class LayerCurve:
    """One curve over the layers 0 to n.

    Attributes:
        name: In the legend.
        values: Of the layers.
        standard_errors: Of these values, if they are to be seen.
        band: Low and high values of a band at each layer, such as that of permuted labels.
        num_layers: Layers kept, to be marked.
        color: Which of the colours; curves about the same thing share one. By default one after the other.
        dashes: Which of the kinds of line: 0 is a full one.
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
    """The curves of a model's convexity, one for each set of labels, in the order of their colours.

    Args:
        profile: Of the model.
        choices: By convexity, to be marked on the curves of their labels.
        suffix: After the name of the labels, for pictures of several models.
        dashes: The kind of line.
        with_band: Whether the permuted labels are to be seen, where there are any.
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
    curves: Sequence[LayerCurve], path: str | os.PathLike, *, title: str = "", value_name: str = "graph convexity"
) -> None:
    """Draws curves over the layers of a model, with the layers that are kept marked.

    Args:
        curves: One or more.
        path: Of the picture; its ending chooses the format.
        title: Above the picture.
        value_name: At the vertical axis.

    Raises:
        ValueError: If there is no curve.
    """
    if not curves:
        raise ValueError("There is no curve to draw. Score the layers by convexity first.")
    figure = Figure(figsize=SIZE, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, curve in enumerate(curves):
        color = COLORS[(number if curve.color is None else curve.color) % len(COLORS)]
        values = np.asarray(curve.values)
        layers = np.arange(len(values))
        if curve.band is not None:
            axes.fill_between(layers, *curve.band, color=color, alpha=0.25, linewidth=0, hatch="///", zorder=1)
        if curve.standard_errors is not None:
            errors = np.asarray(curve.standard_errors)
            axes.fill_between(layers, values - errors, values + errors, color=color, alpha=0.15, linewidth=0, zorder=1)
        axes.plot(layers, values, DASHES[curve.dashes % len(DASHES)], color=color, label=curve.name, **LINE)
        if curve.num_layers is not None:
            axes.plot(curve.num_layers, values[curve.num_layers], color=color, **CHOSEN_MARKER)
    axes.set_xlabel("layer (0: the input of the first one)", fontsize=NORMAL)
    axes.set_ylabel(value_name, fontsize=NORMAL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10), nbins=26))
    axes.tick_params(labelsize=SMALL + 1)
    axes.grid(color=GRID_COLOR, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    handles, _ = axes.get_legend_handles_labels()
    if any(curve.num_layers is not None for curve in curves):
        handles.append(Line2D([], [], color=INK, label=CHOSEN, **CHOSEN_MARKER))
    if any(curve.standard_errors is not None for curve in curves):
        handles.append(Patch(facecolor=INK, alpha=0.15, label=ERROR))
    if any(curve.band is not None for curve in curves):
        handles.append(Patch(facecolor=INK, alpha=0.25, hatch="///", linewidth=0, label=BAND))
    figure.legend(handles=handles, loc="outside lower center", ncols=LEGEND_COLUMNS, frameon=False, fontsize=NORMAL)
    if title:
        figure.suptitle(title, fontsize=LARGE)
    figure.savefig(path)


def draw_profiles(
    stages: Mapping[str, Mapping[str, LayerProfile]], choice: LayerChoice | None, task: str, path: Path
) -> None:
    """Draws convexity over the layers, a colour for each label and a kind of line for each stage.

    Args:
        stages: Profiles by label, for "pretrained" and what else there is.
        choice: Marked on the task's curve of the first stage.
        task: Of the choice.
        path: Of the picture.
    """
    curves = []
    for dashes, (stage, profiles) in enumerate(stages.items()):
        for color, (label, profile) in enumerate(profiles.items()):
            (curve,) = convexity_curves(profile, suffix=f", {stage}", dashes=dashes, with_band=dashes == 0)
            is_chosen = dashes == 0 and label == task and choice is not None
            curves.append(replace(curve, color=color, num_layers=choice.num_layers if is_chosen else None))
    draw_layer_profiles(curves, path)
