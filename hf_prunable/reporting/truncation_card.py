"""The model card of a fine-tuned classifier, truncated or not: it only states what the report holds."""

from __future__ import annotations

from huggingface_hub import EvalResult, ModelCard

from ..runtime.auto_classes import AUDIO_CLASSIFICATION
from ..runtime.project import project_url
from .finetuning_report import TRUNCATED, FinetuningInputs, FinetuningReport, Variant, format_table
from .model_card_overview import THIS_MODEL, SavedModel, facts_table, overview_table
from .model_card_parts import (
    CONFUSION_PICTURE,
    CONVEXITY_PAPER,
    PIPELINE_TAGS,
    PROFILE_PICTURE,
    PRUNED_TAGS,
    bullets,
    data_line,
    dataset_name_and_type,
    front_matter,
    inherited_limits,
    link,
    render_card,
    software_lines,
)
from .model_card_snippets import usage
from .model_card_uses import misuses_of_classifier, task_texts, uses_of_classifier
from .public_text import code_span, escape_markdown


def truncation_card(report: FinetuningReport, name: str, model: SavedModel, *, source: str | None = None) -> ModelCard:
    """Makes the card of a fine-tuned classifier.

    Args:
        report: Complete record of the run; the saved model is its last variant.
        name: Name of the model.
        model: Saved model; one that was pruned before needs hf_prunable.
        source: Hub id or folder that the snippets load from; `None` uses `name`.
    """
    inputs = report.inputs
    is_truncated = TRUNCATED in report.results.variants
    num_layers = report.results.saved_variant.num_layers
    classes, _ = task_texts(inputs)
    depth = "with all its transformer layers"
    if is_truncated:
        depth = f"with its {_first_layers(num_layers)}"
    card_data = front_matter(
        name,
        inputs,
        AUDIO_CLASSIFICATION,
        [*(PRUNED_TAGS if is_truncated or not model.is_stock else []), inputs.family],
        _evaluation_results(report),
        metrics=["accuracy", "f1"],
    )
    return render_card(
        card_data=card_data,
        title=escape_markdown(name),
        summary=(
            f"{link(inputs.model_name)} {depth}, fine-tuned with hf_prunable to classify {len(inputs.class_names)} "
            f"{classes}."
        ),
        facts=facts_table(inputs, report.provenance, model, _method(report, num_layers), card_data),
        overview=_overview(report),
        uses=uses_of_classifier(inputs),
        misuses=misuses_of_classifier(inputs, model),
        **usage(source or name, model),
        removed=_removed_layers(report, num_layers) if is_truncated else f"Nothing: all {num_layers} layers are kept.",
        removed_picture={"file": PROFILE_PICTURE, "caption": "Graph convexity of the layers"},
        measured=_measured_variants(report),
        pictures=[{"file": CONFUSION_PICTURE, "caption": "Confusion matrix of the test clips"}],
        command=inputs.command,
        reproduction=_reproduction(report),
        limits=_limits(inputs),
        citation=CONVEXITY_PAPER,
    )


def _limits(inputs: FinetuningInputs) -> list[str]:
    """Returns sentences on what the figures do not say."""
    limits = ["Latency was measured on the machine named above; ratios differ on other machines."]
    if inputs.group_column is not None:
        limits.append(f"No group of the column {code_span(inputs.group_column)} is in two of the splits.")
    elif inputs.has_own_labels:
        limits.append(
            "The run did not check whether speakers or recordings of the training clips are in the test clips as well. On "
            "others, the accuracy may be lower."
        )
    return [*limits, inherited_limits(inputs.model_name)]


def _first_layers(num_layers: int) -> str:
    return f"first {num_layers} transformer layers" if num_layers > 1 else "first transformer layer"


def _method(report: FinetuningReport, num_layers: int) -> str:
    """Returns the method as Markdown, with a link to its description."""
    tuned = "fine-tuning"
    if TRUNCATED not in report.results.variants:
        return tuned
    pages = f"{project_url('Documentation')}/tutorials/truncate_for_a_task.md"
    return f"[truncation]({pages}) to layer {num_layers} of {report.inputs.num_layers}, then {tuned}"


def _overview(report: FinetuningReport) -> str:
    """Returns the table of the variants, and a sentence on its columns."""
    variants = report.results.variants
    saved = report.results.saved_variant
    table = overview_table(
        {THIS_MODEL if variant is saved else name: _overview_cells(variant) for name, variant in variants.items()}
    )
    num_seeds = len(saved.results)
    of_seeds = f", means of {num_seeds} seeds" if num_seeds > 1 else ""
    return (
        f"{table}\n\nParameters are those of the encoder. Accuracy and F1: {len(report.results.references):,} test clips{of_seeds}. "
        f"Latency and peak memory: {saved.latency.audio_text}, on {report.provenance.machine}."
    )


def _overview_cells(variant: Variant) -> dict[str, str]:
    cells = {
        "Layers": f"{variant.num_layers}",
        "Parameters": f"{variant.num_parameters:,}",
        "Latency": f"{1000 * variant.latency.median_seconds:.1f} ms",
        "Accuracy": f"{variant.mean('accuracy'):.4f}",
        "Macro F1": f"{variant.mean('macro_f1'):.4f}",
    }
    if variant.footprint is not None:
        cells |= {"File": variant.footprint.file_text, "Memory": variant.footprint.peak_text}
    return cells


def _evaluation_results(report: FinetuningReport) -> list[EvalResult]:
    inputs = report.inputs
    if inputs.dataset_name is None:
        return []
    dataset_name, dataset_type = dataset_name_and_type(inputs.dataset_name)
    metrics = report.results.saved_variant.results[0].metrics
    return [
        EvalResult(
            task_type=PIPELINE_TAGS[AUDIO_CLASSIFICATION],
            task_name=task_texts(inputs)[1],
            dataset_name=dataset_name,
            dataset_type=dataset_type,
            dataset_config=inputs.dataset_config_name,
            # Speakers are tested on clips of the training list.
            dataset_split="test" if inputs.task == "word" and not inputs.has_own_labels else None,
            metric_type=metric_type,
            metric_name=metric_name,
            metric_value=round(metrics[metric], 6),
        )
        for metric, metric_type, metric_name in (("accuracy", "accuracy", "Accuracy"), ("macro_f1", "f1", "Macro F1"))
    ]


def _removed_layers(report: FinetuningReport, num_layers: int) -> str:
    text = f"All transformer layers after layer {num_layers} of {report.inputs.num_layers}."
    choice = report.layers.choice
    if choice is None or choice.criterion == "explicit":
        return text
    if choice.best_layer is None:
        return f"{text} The number of layers was chosen by {choice.criterion}."
    return (
        f"{text} The number of layers was chosen by {choice.criterion} for the labels {choice.labels!r}: layer "
        f"{num_layers} ({choice.score:.4f}) is the first layer within one standard error "
        f"({choice.standard_error:.4f}) of the best one, layer {choice.best_layer} ({choice.best_score:.4f})."
    )


def _measured_variants(report: FinetuningReport) -> str:
    results = report.results.saved_variant.results
    text = format_table(report).strip()
    if len(results) > 1:
        text += (
            f"\n\nMeans over the seeds {', '.join(str(result.seed) for result in results)}. The saved model is that of seed "
            f"{results[0].seed}, with a test accuracy of {results[0].metrics['accuracy']:.4f}."
        )
    return f"{text}\n\nMeasured on: {report.provenance.machine}."


def _reproduction(report: FinetuningReport) -> str:
    results = report.results.saved_variant.results
    clips = ", ".join(f"{count:,} {split}" for split, count in report.inputs.num_clips.items())
    seeds = ("seed " if len(results) == 1 else "seeds ") + ", ".join(str(result.seed) for result in results)
    return bullets(
        f"Clips: {clips}; {results[0].epochs:g} {'epoch' if results[0].epochs == 1 else 'epochs'}; {seeds}.",
        data_line(report.inputs),
        *software_lines(report.provenance),
        f"All measurements: [{report.FILE_NAME}]({report.FILE_NAME}).",
    )
