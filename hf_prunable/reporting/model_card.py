"""The model cards of finished runs: front matter for the Hub, and a text made of what was measured and nothing else."""

from __future__ import annotations

import math

from huggingface_hub import EvalResult, ModelCard

from ..data.speech_commands_tasks import CLIP_SECONDS
from ..modeling.shape import PrunedShape
from ..runtime.auto_classes import AUDIO_CLASSIFICATION
from .finetuning_report import REPORT_FILE as FINETUNING_REPORT
from .finetuning_report import TRUNCATED, FinetuningReport
from .finetuning_report import format_table as format_variants
from .model_card_parts import (
    PIPELINE_TAGS,
    bullets,
    data_line,
    dataset_fields,
    front_matter,
    inherited_limits,
    link,
    render_card,
    software_lines,
    usage,
)
from .pruning_report import LOSS_NAMES, PruningReport, format_table
from .pruning_report import REPORT_FILE as PRUNING_REPORT


SHAPE_PICTURE, CURVE_PICTURE = "shape.png", "sparsity_curve.png"
PROFILE_PICTURE, CONFUSION_PICTURE = "layer_profile.png", "confusion.png"
PRUNED_TAGS = ["pruned", "structured-pruning"]
TASKS = {"word": ("words", "Word classification"), "speaker": ("speakers", "Speaker identification")}
LEARNED = {
    "distillation": "by distillation, without labels",
    "task": "from labels",
    "both": "from labels and by distillation",
}


def pruning_card(
    report: PruningReport, name: str, *, repo_id: str | None = None, auto_class: str = "AutoModel"
) -> ModelCard:
    """The card of a model that `run_prune.py` made.

    Args:
        report: Of the run.
        name: Of the model.
        repo_id: Where it will be on the Hub, for the snippet; by default `name` stands there.
        auto_class: Of the kind of head that was saved.
    """
    dense, pruned = report.dense_size.num_parameters, report.pruned_size.num_parameters
    losses = report.held_out_loss
    loss = losses.after_compaction if losses.after_final_steps is None else losses.after_final_steps
    results = []
    if report.dataset_name is not None and loss is not None and math.isfinite(loss):
        results = [
            EvalResult(
                task_type=PIPELINE_TAGS[auto_class],
                metric_type="loss",
                metric_name=f"{LOSS_NAMES[report.objective]}, held-out clips",
                metric_value=round(loss, 6),
                **dataset_fields(report.dataset_name),
            )
        ]
    is_measured_on_task = report.objective != "distillation"
    clips = "one clip" if report.latency_batch_size == 1 else f"{report.latency_batch_size} clips"
    return render_card(
        card_data=front_matter(
            name, report.model_name, report.dataset_name, auto_class, [*PRUNED_TAGS, report.family], results
        ),
        title=name,
        summary=(
            f"{link(report.model_name)} with {100 * (1 - pruned / dense):.1f} % of its encoder's parameters removed by "
            f"structured pruning. Gates on its units were learned {LEARNED[report.objective]}; made with hf_prunable."
        ),
        **usage(auto_class, repo_id or name, is_stock=False),
        removed=_removed_units(report),
        removed_picture={"file": SHAPE_PICTURE, "caption": "What is left of every layer"},
        measured=format_table(report).strip(),
        pictures=[{"file": CURVE_PICTURE, "caption": "Sparsity and loss by step"}],
        command=report.command,
        reproduction=bullets(
            f"Gates on {', '.join(report.units)}; "
            + ", ".join(f"{number:,} steps {stage}" for stage, number in report.steps.items())
            + f"; seed {report.seed}.",
            report.teacher_name and f"Teacher: {link(report.teacher_name)}.",
            data_line(report.dataset_name, report.skipped_audio),
            *software_lines(report.versions, report.commit),
            f"The log of the run and all figures: [{PRUNING_REPORT}]({PRUNING_REPORT}).",
        ),
        limits=[
            "The figures are those of one run with one seed. Latency is that of the machine named, with "
            f"{clips} of {report.latency_seconds:g} s; other machines and lengths give other ratios.",
            "The held-out loss is that of clips from the data set that the model was trained on."
            if is_measured_on_task
            else "The model was trained to give the hidden states of its teacher. No accuracy on a task was measured in "
            "this run: measure it on yours.",
            inherited_limits(report.model_name),
        ],
    )


def truncation_card(
    report: FinetuningReport, name: str, *, repo_id: str | None = None, is_stock: bool = True
) -> ModelCard:
    """The card of a classifier that `run_finetune_speech_commands.py` made.

    Args:
        report: Of the run; its last variant is the model.
        name: Of the model.
        repo_id: Where it will be on the Hub, for the snippet; by default `name` stands there.
        is_stock: Whether plain transformers loads it, which it does not if it was pruned before.
    """
    kind, variant = list(report.variants.items())[-1]
    # The model that is saved is that of the first seed.
    result, seeds = variant.results[0], [result.seed for result in variant.results]
    classes, task_name = TASKS[report.task]
    results = []
    if report.dataset_name is not None:
        common = {
            "task_type": PIPELINE_TAGS[AUDIO_CLASSIFICATION],
            "task_name": task_name,
            "dataset_config": report.dataset_config_name,
            # Speakers are tested on clips of the training list.
            "dataset_split": "test" if report.task == "word" else None,
            **dataset_fields(report.dataset_name),
        }
        accuracy, macro_f1 = (round(result.metrics[metric], 6) for metric in ("accuracy", "macro_f1"))
        results = [
            EvalResult(metric_type="accuracy", metric_name="Accuracy", metric_value=accuracy, **common),
            EvalResult(metric_type="f1", metric_name="Macro F1", metric_value=macro_f1, **common),
        ]
    is_pruned = kind == TRUNCATED or not is_stock
    tags = [*(PRUNED_TAGS if is_pruned else []), *([report.family] if report.family else [])]
    depth = f"its first {variant.num_layers} layers alone" if kind == TRUNCATED else "all its layers"
    clips = ", ".join(f"{number:,} {split}" for split, number in report.num_clips.items())
    measured = format_variants(report).strip()
    if len(seeds) > 1:
        measured += (
            f"\n\nThe figures are means over the seeds {', '.join(map(str, seeds))}. The model here is that of seed "
            f"{result.seed}, with a test accuracy of {result.metrics['accuracy']:.4f}."
        )
    return render_card(
        card_data=front_matter(
            name,
            report.model_name,
            report.dataset_name,
            AUDIO_CLASSIFICATION,
            tags,
            results,
            metrics=["accuracy", "f1"],
        ),
        title=name,
        summary=(
            f"{link(report.model_name)} with {depth}, fine-tuned to tell {len(report.class_names)} {classes} apart; made "
            "with hf_prunable."
        ),
        **usage(AUDIO_CLASSIFICATION, repo_id or name, is_stock),
        removed=_removed_layers(report, variant.num_layers, kind == TRUNCATED),
        removed_picture={"file": PROFILE_PICTURE, "caption": "Convexity of the layers"},
        measured=f"{measured}\n\nMeasured on: {report.machine}.",
        pictures=[{"file": CONFUSION_PICTURE, "caption": "What clips are taken for"}],
        command=report.command,
        reproduction=bullets(
            f"Clips: {clips}; {result.epochs:g} epochs; seed{'s' if len(seeds) > 1 else ''} "
            f"{', '.join(map(str, seeds))}.",
            data_line(report.dataset_name, report.num_skipped),
            *software_lines(report.versions, report.commit),
            f"All figures: [{FINETUNING_REPORT}]({FINETUNING_REPORT}).",
        ),
        limits=[
            f"It takes every clip for one of {len(report.class_names)} {classes}; there is no class for anything else.",
            f"Clips were {CLIP_SECONDS:g} s long. Nothing was measured on longer or much shorter ones.",
            "Latency is that of the machine named; other machines give other ratios.",
            inherited_limits(report.model_name),
        ],
    )


def _removed_units(report: PruningReport) -> str:
    dense, pruned = report.dense_size.num_parameters, report.pruned_size.num_parameters
    shape = PrunedShape.from_dict(report.shape)
    heads = [len(layer.heads) for layer in shape.layers if layer.heads]
    units = [layer.intermediate for layer in shape.layers if layer.intermediate]
    return (
        f"{dense - pruned:,} of {dense:,} parameters of the encoder. Attention heads are left in {len(heads)} of its "
        f"{len(shape.layers)} layers ({sum(heads)} in all), feed-forward units in {len(units)} ({sum(units):,} in all); the "
        f"convolutions have {', '.join(map(str, shape.conv_channels))} channels. `pruned_shape` in `config.json` names "
        "all widths."
    )


def _removed_layers(report: FinetuningReport, num_layers: int, is_truncated: bool) -> str:
    if not is_truncated:
        return f"No layer: all {num_layers} are there."
    total = "" if report.num_layers is None else f" of {report.num_layers}"
    text = f"What follows layer {num_layers}{total}; layers 1 to {num_layers} are there."
    choice = report.choice
    if choice is None or choice["criterion"] == "explicit":
        return text
    if choice["best_layer"] is None:
        return f"{text} They were chosen by {choice['criterion']}."
    return (
        f"{text} They were chosen by {choice['criterion']} for the labels {choice['labels']!r}: layer {num_layers} "
        f"({choice['score']:.4f}) is the earliest within one standard error ({choice['standard_error']:.4f}) of the best, "
        f"layer {choice['best_layer']} ({choice['best_score']:.4f})."
    )
