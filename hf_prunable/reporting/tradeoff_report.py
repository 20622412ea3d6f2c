"""Loss against size: the record of a run that measures a model at several sizes, its table and its picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import Measure, UnitCounts
from ..pruning.fidelity import Fidelity
from ..runtime.tables import markdown_table
from .layer_pictures import CHOSEN_MARKER, COLORS, DASHES
from .measurement import ModelSize, measure_size
from .pictures import GRID_COLOR, INK, LARGE, LINE, NORMAL, SMALL, new_figure
from .pruning_inputs import PruningInputs
from .run_report import RunReport


TABLE_FILE, PICTURE_FILE = "tradeoff.md", "tradeoff.png"
# Width and height of the picture in inches.
SIZE = (10, 4.6)


@dataclass
class TradeoffPoint:
    """A model of one size.

    Attributes:
        target: Fraction of the original dense encoder that was to be removed; `None` for the model before pruning.
        removed: Fraction that is removed.
        size: Parameters and multiply-accumulates of the encoder.
        checkpoint_bytes: Size of the weights of the whole model as a checkpoint in float32, in bytes.
        fidelity: Agreement of its hidden states with the reference's on held-out audio.
    """

    target: float | None
    removed: float
    size: ModelSize
    checkpoint_bytes: int
    fidelity: Fidelity


def measure_point(
    model: PrunableModelMixin, target: float | None, measure: Measure, fidelity: Fidelity
) -> TradeoffPoint:
    """Counts a model for a point of the curve.

    Args:
        model: Model in float32, without gates.
        target: Fraction that was to be removed; `None` for the model before pruning.
        measure: Measure of the fractions.
        fidelity: Measured fidelity of the model.
    """
    return TradeoffPoint(
        target,
        measure.sparsity(model.config, UnitCounts.of(model.config.shape)),
        measure_size(model, measure.mac_seconds),
        sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()),
        fidelity,
    )


@dataclass
class TradeoffReport(RunReport):
    """Record of a run that measures a model at several sizes.

    Attributes:
        inputs: Inputs of the run.
        provenance: Software and hardware of the run.
        measure: Unit of the fractions that are removed.
        dense: Size of the original dense encoder.
        points: The model before pruning, and at each size.
    """

    FILE_NAME = "tradeoff.json"

    inputs: PruningInputs
    measure: str
    dense: ModelSize
    points: list[TradeoffPoint] = field(default_factory=list)


def format_tradeoff(report: TradeoffReport) -> str:
    """Formats the points as a Markdown table, with a note that explains its columns.

    Args:
        report: Complete record of the run.
    """
    dense, reference = report.dense, report.inputs.reference
    rows = [
        (
            "before pruning" if point.target is None else f"{100 * point.removed:.1f} %",
            _count_and_part(f"{point.size.num_parameters:,}", point.size.num_parameters, dense.num_parameters),
            _count_and_part(f"{point.size.macs / 1e9:.3g} G", point.size.macs, dense.macs),
            f"{point.fidelity.distillation_loss:.4f}",
            f"{point.fidelity.mean_cosine:.4f}",
            f"{point.checkpoint_bytes / 1e6:,.1f} MB",
        )
        for point in report.points
    ]
    header = ("Removed", "Parameters", f"MACs, {dense.mac_seconds:g} s clip", "Loss", "Mean cosine", "Checkpoint")
    calibration = report.inputs.calibration
    audio = (
        ""
        if calibration is None
        else f", with statistics of {calibration.num_crops:,} clips of {calibration.seconds:g} s"
    )
    note = (
        f"One-shot pruning of {', '.join(report.inputs.units)}{audio}, in one series of rounds. Removed is the fraction of the "
        f"original dense encoder's {report.measure}. MACs are multiply-accumulates. Loss is the distillation loss against "
        f"the {reference} on {report.points[0].fidelity.num_frames:,} frames of held-out audio, without a projection; mean "
        f"cosine is the cosine similarity to the {reference}'s hidden states, mean of all of them. Checkpoint is the size of "
        f"the weights in float32. Measured on: {report.provenance.machine}."
    )
    return f"{markdown_table(header, rows)}\n\n{note}\n"


def _count_and_part(count: str, part: float, whole: float) -> str:
    return f"{count} ({100 * part / whole:.1f} %)"


def draw_tradeoff(report: TradeoffReport, path: str | os.PathLike) -> None:
    """Draws the loss against the parameters and against the multiply-accumulates that are left.

    Args:
        report: Complete record of the run.
        path: Output file; its extension selects the image format.
    """
    figure = new_figure(*SIZE)
    left, right = figure.subplots(1, 2, sharey=True)
    losses = [point.fidelity.distillation_loss for point in report.points]
    dense = report.dense
    parameters = [point.size.num_parameters / dense.num_parameters for point in report.points]
    macs = [point.size.macs / dense.macs for point in report.points]
    _draw_panel(left, parameters, losses, COLORS[0])
    _draw_panel(right, macs, losses, COLORS[1])
    left.set_xlabel(f"Parameters left (100 % = {dense.num_parameters:,})", fontsize=NORMAL)
    right.set_xlabel(
        f"Multiply-accumulates left (100 % = {dense.macs / 1e9:.3g} G, {dense.mac_seconds:g} s clip)", fontsize=NORMAL
    )
    left.set_ylabel("Distillation loss, held-out audio, no projection", fontsize=NORMAL)
    figure.suptitle("Loss and size after one-shot pruning, without training", fontsize=LARGE)
    figure.savefig(path)


def _draw_panel(axes: Axes, parts: Sequence[float], losses: Sequence[float], color: str) -> None:
    """Draws losses over the part of the dense encoder's size that is left; the first point is before pruning."""
    axes.plot(parts, losses, DASHES[0], color=color, **(LINE | {"markersize": 9}))
    axes.plot(parts[0], losses[0], color=color, clip_on=False, **(CHOSEN_MARKER | {"markerfacecolor": "white"}))
    axes.annotate(
        "dense" if parts[0] == 1 else "before pruning",
        (parts[0], losses[0]),
        xytext=(0, 9),
        textcoords="offset points",
        ha="right",
        fontsize=NORMAL,
        color=INK,
    )
    axes.set_xlim(0, 1.04)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.tick_params(labelsize=SMALL + 1)
    axes.grid(color=GRID_COLOR, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
