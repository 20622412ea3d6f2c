"""What fine-tuning ends with: the figures of the full and of the truncated model, side by side, and a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import ConfusionMatrixDisplay

from ..finetuning.classifier import FinetunedResult
from ..runtime.files import write_text_atomically
from .measurement import Latency


REPORT_FILE = "report.json"
# Names of the variants of a model.
FULL, TRUNCATED = "full", "truncated"
# Of the normal distribution: what a 95 % interval has to each side, in standard errors.
STANDARD_ERRORS = 1.96
DOTS_PER_INCH = 150
MAX_NAMED_CLASSES = 40


@dataclass
class Variant:
    """One depth of the model, fine-tuned with one or several seeds.

    Attributes:
        num_layers: Blocks kept: 1 to `num_layers`.
        num_parameters: Of the encoder, without the head.
        latency: Of one clip.
        results: One a seed.
    """

    num_layers: int
    num_parameters: int
    latency: Latency
    results: list[FinetunedResult]

    def mean(self, metric: str) -> float:
        """A figure of the test clips, the mean over seeds."""
        return float(np.mean([result.metrics[metric] for result in self.results]))

    @property
    def train_seconds_per_epoch(self) -> float:
        """The mean over seeds."""
        return float(np.mean([result.train_seconds_per_epoch for result in self.results]))


@dataclass
class PairedDifference:
    """How much more of the test clips one model gets right than another, in parts of 1.

    Attributes:
        mean: Over clips and seeds.
        lower: End of the 95 % interval over the test clips.
        upper: Its other end.
        by_seed: The difference for each seed.
    """

    mean: float
    lower: float
    upper: float
    by_seed: list[float]

    @property
    def is_loss(self) -> bool:
        """Whether the second model is worse beyond what the choice of test clips explains."""
        return self.lower > 0


def paired_difference(
    full: Sequence[FinetunedResult], truncated: Sequence[FinetunedResult], references: Sequence[int]
) -> PairedDifference:
    """Compares two models clip by clip, which takes out what makes some clips hard for both.

    The interval is that of the mean over clips of each clip's difference, itself a mean over seeds.

    Args:
        full: One result a seed.
        truncated: Likewise, in the same order.
        references: The class of each test clip.

    Raises:
        ValueError: If the seeds differ or there are fewer than two clips.
    """
    seeds = [[result.seed for result in results] for results in (full, truncated)]
    if seeds[0] != seeds[1] or not seeds[0]:
        raise ValueError(f"Only runs of the same seeds can be compared, but they are {seeds[0]} and {seeds[1]}.")
    if len(references) < 2:
        raise ValueError(f"{len(references)} test clips give no interval. Give 2 or more.")
    right = [
        np.array([result.predictions for result in results]) == np.asarray(references) for results in (full, truncated)
    ]
    differences = right[0].astype(float) - right[1]
    of_clips = differences.mean(axis=0)
    mean, error = of_clips.mean(), of_clips.std(ddof=1) / np.sqrt(len(of_clips))
    return PairedDifference(
        float(mean),
        float(mean - STANDARD_ERRORS * error),
        float(mean + STANDARD_ERRORS * error),
        differences.mean(axis=1).tolist(),
    )


@dataclass
class FinetuningReport:
    """All that was measured.

    Attributes:
        command: That made it.
        model_name: The checkpoint.
        task: "word" or "speaker".
        machine: What it was measured on.
        class_names: In the order of their numbers.
        num_clips: By split.
        num_skipped: Clips left out, by cause.
        choice: Of the layer, see `LayerChoice`; `None` where none was made.
        variants: `FULL`, `TRUNCATED` or both; the last one is the model that is saved.
        references: The class of each test clip.
        difference: Full minus truncated, where both are there.
        profiles: Over the layers, by label and stage, see `LayerProfile`.
        num_layers: Of the checkpoint.
        family: Its model type: "wavlm", "hubert" or "wav2vec2".
        dataset_name: As the user named it.
        dataset_config_name: Likewise.
        words: The words that were chosen; `None` for all.
        versions: Of the libraries, by name.
        commit: Of the source that made it: see `source_commit`.
    """

    command: str
    model_name: str
    task: str
    machine: str
    class_names: list[str]
    num_clips: dict[str, int]
    num_skipped: dict[str, int]
    choice: dict[str, Any] | None
    variants: dict[str, Variant]
    references: list[int]
    difference: PairedDifference | None
    profiles: dict[str, dict[str, Any]]
    num_layers: int | None = None
    family: str | None = None
    dataset_name: str | None = None
    dataset_config_name: str | None = None
    words: list[str] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `report.json`."""
        write_text_atomically(Path(folder) / REPORT_FILE, json.dumps(asdict(self), indent=1) + "\n")


def format_table(report: FinetuningReport) -> str:
    """The figures side by side, as Markdown; ratios are truncated over full."""
    names, variants = list(report.variants), list(report.variants.values())
    rows = [
        ("Layers kept", [f"{variant.num_layers}" for variant in variants], None),
        ("Parameters of the encoder", [f"{v.num_parameters:,}" for v in variants], lambda v: v.num_parameters),
        ("Test accuracy (95 % interval)", [_accuracy(variant) for variant in variants], None),
        ("Macro F1", [f"{variant.mean('macro_f1'):.4f}" for variant in variants], None),
        (
            "Training, one epoch",
            [f"{variant.train_seconds_per_epoch:.1f} s" for variant in variants],
            lambda v: v.train_seconds_per_epoch,
        ),
        (
            "Inference, one clip",
            [f"{1000 * variant.latency.median_seconds:.1f} ms" for variant in variants],
            lambda v: v.latency.median_seconds,
        ),
    ]
    both = len(variants) == 2
    titles = ["", *names, *(["ratio"] if both else [])]
    lines = [f"| {' | '.join(titles)} |", f"| --- |{' ---: |' * (len(titles) - 1)}"]
    for title, cells, value in rows:
        ratio = [f"{value(variants[1]) / value(variants[0]):.3f}" if value else ""] if both else []
        lines.append(f"| {' | '.join([title, *cells, *ratio])} |")
    text = "\n".join(lines) + "\n"
    if report.difference is not None:
        text += f"\n{_format_difference(report.difference)}\n"
    return text


def _accuracy(variant: Variant) -> str:
    low, high = (variant.mean(f"accuracy_{end}") for end in ("lower", "upper"))
    return f"{variant.mean('accuracy'):.4f} ({low:.4f} to {high:.4f})"


def _format_difference(difference: PairedDifference) -> str:
    if difference.is_loss:
        verdict = "truncation loses accuracy"
    elif difference.upper < 0:
        verdict = "truncation gains accuracy"
    else:
        verdict = "no difference that these test clips can show"
    seeds = "one seed" if len(difference.by_seed) == 1 else f"{len(difference.by_seed)} seeds"
    return (
        f"Full minus truncated, clip by clip over {seeds}: {100 * difference.mean:+.2f} points, "
        f"95 % interval {100 * difference.lower:+.2f} to {100 * difference.upper:+.2f}: {verdict}."
    )


def draw_confusion(
    references: Sequence[int], predictions: Sequence[int], class_names: Sequence[str], path: str | os.PathLike
) -> None:
    """Draws the share of each class's clips that is taken for each class.

    Args:
        references: The class of each clip.
        predictions: What it was taken for.
        class_names: In the order of their numbers; not written where there are too many to read.
        path: Of the picture; its ending chooses the format.
    """
    is_named = len(class_names) <= MAX_NAMED_CLASSES
    side = min(4 + 0.22 * len(class_names), 12) if is_named else 8
    figure = Figure(figsize=(side + 1, side), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(
        references,
        predictions,
        labels=range(len(class_names)),
        display_labels=class_names if is_named else None,
        normalize="true",
        include_values=False,
        cmap="Blues",
        xticks_rotation="vertical",
        im_kw={"vmin": 0, "vmax": 1},
        ax=axes,
    )
    if not is_named:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    figure.savefig(path)
