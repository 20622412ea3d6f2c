"""Model cards of finished runs: metadata for the Hub, and a text that only states what the report holds."""

from __future__ import annotations

import math
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from ..modeling.shape import PrunedShape
from ..pruning.arguments import GATES
from ..runtime.auto_classes import AUDIO_CLASSIFICATION, BASE_MODEL
from .finetuning_report import TRUNCATED, FinetuningInputs, FinetuningReport
from .finetuning_report import format_table as format_finetuning_table
from .method_texts import (
    STOCK_SHAPE_LIMIT,
    describe_method,
    describe_training,
    has_curve,
    has_prices,
    limit_of_method,
    promise_of_hidden_states,
    settings_of_method,
)
from .model_card_parts import (
    PIPELINE_TAGS,
    bullets,
    data_line,
    dataset_name_and_type,
    front_matter,
    inherited_limits,
    link,
    render_card,
    software_lines,
    usage,
)
from .pruning_report import PRUNED, PruningReport, format_fidelity_table
from .pruning_report import format_table as format_pruning_table
from .public_text import escape_markdown
from .ragged_shape import format_ragged_table


SHAPE_PICTURE, CURVE_PICTURE, FIDELITY_PICTURE = "shape.png", "sparsity_curve.png", "fidelity.png"
PRICES_PICTURE = "prices.png"
PROFILE_PICTURE, CONFUSION_PICTURE = "layer_profile.png", "confusion.png"
PRUNED_TAGS = ["pruned", "structured-pruning"]
# What the classes are and the name of the task.
TASKS = {
    "word": ("words", "Word classification"),
    "speaker": ("speakers", "Speaker identification"),
    "keyword": ("classes (ten keywords, other words, silence)", "Keyword spotting"),
}
OWN_TASK = ("classes", "Audio classification")


def pruning_card(
    report: PruningReport,
    name: str,
    *,
    repo_id: str | None = None,
    auto_class: str = BASE_MODEL,
    is_stock: bool = False,
) -> ModelCard:
    """Makes the card of a pruned model.

    Args:
        report: Complete record of the run.
        name: Name of the model.
        repo_id: Hub id that the usage snippet loads from; `None` uses `name`.
        auto_class: Name of the Auto class of the saved head.
        is_stock: Whether the model loads without hf_prunable.
    """
    inputs, sizes = report.inputs, report.sizes
    removed = 1 - sizes.pruned.num_parameters / sizes.dense.num_parameters
    return render_card(
        card_data=front_matter(
            name, inputs, auto_class, [*PRUNED_TAGS, inputs.family], _pruning_results(report, auto_class)
        ),
        title=escape_markdown(name),
        summary=(
            f"{link(inputs.model_name)} with {100 * removed:.1f} % of its encoder parameters removed by "
            f"{describe_method(inputs)}. {_speed_and_fidelity(report)}{describe_training(inputs)} {promise_of_hidden_states(report)}"
        ).strip(),
        **usage(auto_class, repo_id or name, is_stock),
        removed=_removed_units(report, is_stock),
        removed_picture={"file": SHAPE_PICTURE, "caption": "Widths of every layer after pruning"},
        measured=_measured_models(report),
        **_pruning_details(report),
        command=inputs.command,
        reproduction=_pruning_reproduction(report),
        limits=_pruning_limits(report),
        citation=inputs.method == GATES,
    )


def _speed_and_fidelity(report: PruningReport) -> str:
    """Returns a sentence for the summary on what was measured of the two, with a space at its end."""
    results, parts = report.results, []
    if PRUNED in results.latency:
        latency = results.latency[PRUNED]
        parts.append(f"it is {latency.speedup:.2f}x as fast on clips of {latency.clip_seconds:g} s")
    if results.fidelity is not None and math.isfinite(results.fidelity.mean_cosine):
        parts.append(
            f"the mean cosine similarity of its hidden states to those of the {report.inputs.reference}, without a "
            f"projection, is {results.fidelity.mean_cosine:.4f} on held-out audio"
        )
    sentence = ", and ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}. " if sentence else ""


def _pruning_details(report: PruningReport) -> dict[str, Any]:
    """Returns the template's variables for the pictures of the results, and for the section that is collapsed."""
    pictures = []
    if has_curve(report):
        pictures.append({"file": CURVE_PICTURE, "caption": "Sparsity and loss over the optimizer steps"})
    if has_prices(report):
        pictures.append({"file": PRICES_PICTURE, "caption": "Growth of the loss when units of one kind and layer go"})
    fidelity, reference = report.results.fidelity, report.inputs.reference
    if fidelity is None:
        return {"pictures": pictures}
    caption = f"Cosine similarity and relative error of each hidden state to the {reference}'s"
    table = format_fidelity_table(fidelity)
    return {
        "pictures": [{"file": FIDELITY_PICTURE, "caption": caption}, *pictures],
        "details": {"title": f"{caption}, {fidelity.num_frames:,} frames of held-out audio", "text": table},
    }


def _pruning_results(report: PruningReport, auto_class: str) -> list[EvalResult]:
    loss, fidelity = report.results.held_out_loss, report.results.fidelity
    if report.inputs.dataset_name is None:
        return []
    metrics = []
    if loss is not None:
        metrics.append(("loss", report.inputs.loss_name, loss.final))
    if fidelity is not None:
        name = f"Mean cosine similarity of hidden states to the {report.inputs.reference}'s"
        metrics.append(("cosine_similarity", name, fidelity.mean_cosine))
    dataset_name, dataset_type = dataset_name_and_type(report.inputs.dataset_name)
    return [
        EvalResult(
            task_type=PIPELINE_TAGS[auto_class],
            dataset_name=dataset_name,
            dataset_type=dataset_type,
            metric_type=metric_type,
            metric_name=f"{metric_name}, held-out clips",
            metric_value=round(value, 6),
        )
        for metric_type, metric_name, value in metrics
        if math.isfinite(value)
    ]


def _measured_models(report: PruningReport) -> str:
    """Returns the table of the dense and the pruned model, and one with the ragged shape if there is one."""
    table, fidelity, ragged = format_pruning_table(report).strip(), report.results.fidelity, report.results.ragged
    if ragged is None or ragged.fidelity is None or fidelity is None:
        return table
    return (
        f"{table}\n\nA model of the same size whose widths vary between heads and layers was pruned with the same audio. It was "
        f"measured on the same held-out audio, and not kept:\n\n{format_ragged_table(report.sizes.pruned, fidelity, ragged)}"
    )


def _removed_units(report: PruningReport, is_stock: bool) -> str:
    dense, pruned = report.sizes.dense.num_parameters, report.sizes.pruned.num_parameters
    shape = PrunedShape.from_dict(report.sizes.shape)
    heads = [len(layer.heads) for layer in shape.layers if layer.heads]
    units = [layer.intermediate for layer in shape.layers if layer.intermediate]
    return (
        f"{dense - pruned:,} of {dense:,} encoder parameters. Attention heads remain in {len(heads)} of {len(shape.layers)} "
        f"layers ({sum(heads)} in total), feed-forward units in {len(units)} ({sum(units):,} in total). The convolutions "
        f"have {', '.join(map(str, shape.conv_channels))} channels. "
        + (
            "The widths are `intermediate_size` and `conv_dim` in `config.json`."
            if is_stock
            else "All widths are listed under `pruned_shape` in `config.json`."
        )
    )


def _pruning_reproduction(report: PruningReport) -> str:
    inputs = report.inputs
    return bullets(
        *settings_of_method(report),
        inputs.teacher_name and f"Teacher: {link(inputs.teacher_name)}.",
        data_line(inputs),
        *software_lines(report.provenance),
        f"{'Training log and all' if inputs.steps else 'All'} measurements: [{report.FILE_NAME}]({report.FILE_NAME}).",
    )


def _pruning_limits(report: PruningReport) -> list[str]:
    limits = ["All figures are from one run with one seed."]
    if report.results.latency:
        latency = next(iter(report.results.latency.values()))
        clips = "one clip" if latency.batch_size == 1 else f"{latency.batch_size} clips"
        limits[0] += (
            f" Latency was measured on the machine named above with {clips} of {latency.clip_seconds:g} s; ratios differ on "
            "other machines and for other lengths."
        )
    limits.append(limit_of_method(report.inputs))
    if report.inputs.stock_shape and report.results.ragged is None:
        limits.append(STOCK_SHAPE_LIMIT)
    gates = report.results.gate_sparsity
    if gates is not None and gates.warning is not None:
        limits.append(gates.warning)
    loss = report.results.held_out_loss
    if loss is not None and loss.warning is not None:
        limits.append(loss.warning)
    return [*limits, inherited_limits(report.inputs.model_name)]


def truncation_card(
    report: FinetuningReport, name: str, *, repo_id: str | None = None, is_stock: bool = True
) -> ModelCard:
    """Makes the card of a fine-tuned classifier.

    Args:
        report: Complete record of the run; the saved model is its last variant.
        name: Name of the model.
        repo_id: Hub id that the usage snippet loads from; `None` uses `name`.
        is_stock: Whether the model loads without hf_prunable, unlike one that was pruned before.
    """
    inputs = report.inputs
    is_truncated = TRUNCATED in report.results.variants
    num_layers = report.results.saved_variant.num_layers
    classes, _ = _task_texts(inputs)
    depth = "with all its transformer layers"
    if is_truncated:
        depth = (
            f"with its first {num_layers} transformer layers" if num_layers > 1 else "with its first transformer layer"
        )
    return render_card(
        card_data=front_matter(
            name,
            inputs,
            AUDIO_CLASSIFICATION,
            [*(PRUNED_TAGS if is_truncated or not is_stock else []), inputs.family],
            _truncation_results(report),
            metrics=["accuracy", "f1"],
        ),
        title=escape_markdown(name),
        summary=(
            f"{link(inputs.model_name)} {depth}, fine-tuned with hf_prunable to classify {len(inputs.class_names)} "
            f"{classes}."
        ),
        **usage(AUDIO_CLASSIFICATION, repo_id or name, is_stock),
        removed=_removed_layers(report, num_layers) if is_truncated else f"Nothing: all {num_layers} layers are kept.",
        removed_picture={"file": PROFILE_PICTURE, "caption": "Graph convexity of the layers"},
        measured=_measured_variants(report),
        pictures=[{"file": CONFUSION_PICTURE, "caption": "Confusion matrix of the test clips"}],
        command=inputs.command,
        reproduction=_truncation_reproduction(report),
        limits=[
            f"The model assigns every clip to one of {len(inputs.class_names)} {classes}; there is no class for other audio.",
            f"It was trained and tested on clips of {inputs.clip_seconds:.3g} s, not on longer or much shorter ones.",
            "Latency was measured on the machine named above; ratios differ on other machines.",
            inherited_limits(inputs.model_name),
        ],
        citation=True,
    )


def _task_texts(inputs: FinetuningInputs) -> tuple[str, str]:
    return OWN_TASK if inputs.has_own_labels else TASKS[inputs.task]


def _truncation_results(report: FinetuningReport) -> list[EvalResult]:
    inputs = report.inputs
    if inputs.dataset_name is None:
        return []
    dataset_name, dataset_type = dataset_name_and_type(inputs.dataset_name)
    metrics = report.results.saved_variant.results[0].metrics
    return [
        EvalResult(
            task_type=PIPELINE_TAGS[AUDIO_CLASSIFICATION],
            task_name=_task_texts(inputs)[1],
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
    text = format_finetuning_table(report).strip()
    if len(results) > 1:
        text += (
            f"\n\nMeans over the seeds {', '.join(str(result.seed) for result in results)}. The saved model is that of seed "
            f"{results[0].seed}, with a test accuracy of {results[0].metrics['accuracy']:.4f}."
        )
    return f"{text}\n\nMeasured on: {report.provenance.machine}."


def _truncation_reproduction(report: FinetuningReport) -> str:
    results = report.results.saved_variant.results
    clips = ", ".join(f"{count:,} {split}" for split, count in report.inputs.num_clips.items())
    seeds = ("seed " if len(results) == 1 else "seeds ") + ", ".join(str(result.seed) for result in results)
    return bullets(
        f"Clips: {clips}; {results[0].epochs:g} epochs; {seeds}.",
        data_line(report.inputs),
        *software_lines(report.provenance),
        f"All measurements: [{report.FILE_NAME}]({report.FILE_NAME}).",
    )
