"""The record of a fine-tuning run: full and truncated model, their statistical comparison, and the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..finetuning.classifier import FinetunedResult
from ..runtime.tables import markdown_table
from ..truncation.layer_choice import LayerChoice
from ..truncation.layer_profile import LayerProfile
from .footprint import Footprint, footprint_rows, memory_note
from .measurement import Latency
from .run_report import RunInputs, RunReport


# Names of the variants of a model.
FULL, TRUNCATED = "full", "truncated"
NOTHING_LEARNED = (
    "no model is better than the most frequent class alone, so this says nothing about truncation; train longer, at another "
    "rate, or on more clips"
)
# Half-width of a 95 % interval of the normal distribution, in standard errors.
STANDARD_ERRORS = 1.96


@dataclass(kw_only=True)
class FinetuningInputs(RunInputs):
    """Inputs of a fine-tuning run.

    Attributes:
        dataset_config_name: Configuration of a Hub data set; `None` for its default.
        task: Name of the labels that are classified: "word", "speaker" or "keyword", or a column of the data.
        has_own_labels: Whether the labels are those of the data, not a task of Speech Commands.
        group_column: Column of groups that are in one split each; `None` for none.
        clip_seconds: Length in seconds that clips are padded or cut to.
        words: Words that the clips were restricted to; `None` for all words.
        class_names: Names of the classes, in the order of their ids.
        num_clips: Number of clips of each split.
        num_layers: Number of transformer layers of the base checkpoint.
    """

    dataset_config_name: str | None = None
    task: str
    has_own_labels: bool = False
    group_column: str | None = None
    clip_seconds: float = 1.0
    words: list[str] | None = None
    class_names: list[str]
    num_clips: dict[str, int]
    num_layers: int


@dataclass
class LayerSelection:
    """How the number of layers was chosen.

    Attributes:
        choice: The choice; `None` if all layers were kept without one.
        profiles: Scores of the layers by stage ("pretrained", "fine-tuned") and kind of label.
    """

    choice: LayerChoice | None = None
    profiles: dict[str, dict[str, LayerProfile]] = field(default_factory=dict)


@dataclass
class Variant:
    """The model at one depth, fine-tuned with one or several seeds.

    Attributes:
        num_layers: Number of transformer layers.
        num_parameters: Number of parameters of the encoder, without the head.
        latency: Latency on one clip.
        results: Results of fine-tuning, one per seed.
        footprint: Size on disk and in memory of the saved model, or of the base checkpoint if only the full model has all its
            layers; `None` until it is measured.
    """

    num_layers: int
    num_parameters: int
    latency: Latency
    results: list[FinetunedResult]
    footprint: Footprint | None = None

    def mean(self, metric: str) -> float:
        """Returns the mean over seeds of a metric of the test clips."""
        return float(np.mean([result.metrics[metric] for result in self.results]))

    @property
    def train_seconds_per_epoch(self) -> float:
        """Training time of one epoch in seconds, the mean over seeds."""
        return float(np.mean([result.train_seconds_per_epoch for result in self.results]))


@dataclass
class PairedDifference:
    """Difference of two models' test accuracies, as a fraction of the test clips.

    Attributes:
        mean: Mean difference over clips and seeds.
        lower: Lower end of its 95 % confidence interval over the test clips.
        upper: Upper end of that interval.
        by_seed: Mean difference over clips for each seed.
    """

    mean: float
    lower: float
    upper: float
    by_seed: list[float]

    @property
    def is_loss(self) -> bool:
        """Whether the second model is significantly worse: the whole interval is above 0."""
        return self.lower > 0


def paired_difference(
    full: Sequence[FinetunedResult], truncated: Sequence[FinetunedResult], references: Sequence[int]
) -> PairedDifference:
    """Compares two models clip by clip, so that the difficulty of a clip does not add to the variance.

    The interval is normal, from the standard error over clips of each clip's difference averaged over seeds.

    Args:
        full: Results of the first model, one per seed.
        truncated: Results of the second model, with the same seeds in the same order.
        references: True class id of each test clip.

    Raises:
        ValueError: If the seeds differ or there are fewer than two clips.
    """
    seeds = [[result.seed for result in results] for results in (full, truncated)]
    if seeds[0] != seeds[1] or not seeds[0]:
        raise ValueError(f"Only runs of the same seeds can be compared, but they are {seeds[0]} and {seeds[1]}.")
    if len(references) < 2:
        raise ValueError(f"{len(references)} test clips give no interval. Give 2 or more.")
    is_correct = [
        np.array([result.predictions for result in results]) == np.asarray(references) for results in (full, truncated)
    ]
    # Shape (seeds, clips).
    differences = is_correct[0].astype(float) - is_correct[1]
    clip_differences = differences.mean(axis=0)
    mean, error = clip_differences.mean(), clip_differences.std(ddof=1) / np.sqrt(len(clip_differences))
    return PairedDifference(
        float(mean),
        float(mean - STANDARD_ERRORS * error),
        float(mean + STANDARD_ERRORS * error),
        differences.mean(axis=1).tolist(),
    )


@dataclass
class FinetuningResults:
    """Measurements of a fine-tuning run.

    Attributes:
        references: True class id of each test clip.
        variants: Variants `FULL`, `TRUNCATED` or both; the last one is the model that is saved.
        difference: Accuracy of the full minus the truncated model; `None` for a single variant.
    """

    references: list[int] = field(default_factory=list)
    variants: dict[str, Variant] = field(default_factory=dict)
    difference: PairedDifference | None = None

    @property
    def majority_share(self) -> float:
        """Accuracy of answering the most frequent class of the test clips alone."""
        return max(Counter(self.references).values()) / len(self.references)

    @property
    def nothing_learned(self) -> bool:
        """Whether no variant is better than that beyond its 95 % interval."""
        return all(variant.mean("accuracy_lower") <= self.majority_share for variant in self.variants.values())

    @property
    def saved_variant(self) -> Variant:
        """Variant that is saved; its first result is that of the saved model."""
        return list(self.variants.values())[-1]


@dataclass
class FinetuningReport(RunReport):
    """Record of a fine-tuning run.

    Attributes:
        inputs: Inputs of the run.
        provenance: Software and hardware of the run.
        layers: Choice of the number of layers.
        results: Measurements, added as the stages of the run end.
    """

    FILE_NAME = "report.json"

    inputs: FinetuningInputs
    layers: LayerSelection = field(default_factory=LayerSelection)
    results: FinetuningResults = field(default_factory=FinetuningResults)


def format_table(report: FinetuningReport) -> str:
    """Formats the variants side by side as a Markdown table, with their ratio if there are two, and the comparison."""
    variants = report.results.variants
    header, rows = ["", *variants], [[title, *map(cell, variants.values())] for title, cell, _ in TABLE_ROWS]
    if len(variants) == 2:
        full, truncated = variants.values()
        header.append(f"{TRUNCATED} / {FULL}")
        for row, (_, _, value) in zip(rows, TABLE_ROWS, strict=True):
            row.append("" if value is None else f"{value(truncated) / value(full):.3f}")
    footprints = [variant.footprint for variant in variants.values()]
    rows += [[*row, *([""] if len(variants) == 2 else [])] for row in footprint_rows(footprints)]
    results, num_classes = report.results, len(report.inputs.class_names)
    text = markdown_table(header, rows) + "\n"
    if note := memory_note(footprints).strip():
        text += f"\n{note}\n"
    text += (
        f"\nThe most frequent class alone has a test accuracy of {results.majority_share:.4f}, and chance is "
        f"{1 / num_classes:.4f} ({num_classes} classes).\n"
    )
    if results.difference is not None:
        text += f"\n{_format_difference(results.difference, results.nothing_learned)}\n"
    elif results.nothing_learned:
        text += f"\n{NOTHING_LEARNED.capitalize()}.\n"
    return text


def _format_accuracy(variant: Variant) -> str:
    low, high = (variant.mean(f"accuracy_{end}") for end in ("lower", "upper"))
    return f"{variant.mean('accuracy'):.4f} ({low:.4f} to {high:.4f})"


# Title, cell and, where a ratio of the variants is of interest, the value.
TABLE_ROWS: tuple[tuple[str, Callable[[Variant], str], Callable[[Variant], float] | None], ...] = (
    ("Transformer layers", lambda variant: f"{variant.num_layers}", None),
    ("Encoder parameters", lambda variant: f"{variant.num_parameters:,}", lambda variant: variant.num_parameters),
    ("Test accuracy (95 % interval)", _format_accuracy, None),
    ("Macro F1", lambda variant: f"{variant.mean('macro_f1'):.4f}", None),
    (
        "Training time per epoch",
        lambda variant: f"{variant.train_seconds_per_epoch:.1f} s",
        lambda variant: variant.train_seconds_per_epoch,
    ),
    (
        "Latency, one clip",
        lambda variant: f"{1000 * variant.latency.median_seconds:.1f} ms",
        lambda variant: variant.latency.median_seconds,
    ),
)


def _format_difference(difference: PairedDifference, nothing_learned: bool) -> str:
    if nothing_learned:
        verdict = NOTHING_LEARNED
    elif difference.is_loss:
        verdict = "truncation lowers accuracy"
    elif difference.upper < 0:
        verdict = "truncation raises accuracy"
    else:
        verdict = "no significant difference on these test clips"
    seeds = "one seed" if len(difference.by_seed) == 1 else f"{len(difference.by_seed)} seeds"
    return (
        f"Accuracy of the full minus the truncated model, paired by clip over {seeds}: {100 * difference.mean:+.2f} "
        f"points, 95 % interval {100 * difference.lower:+.2f} to {100 * difference.upper:+.2f}: {verdict}."
    )
