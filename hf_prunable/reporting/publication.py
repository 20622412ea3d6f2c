"""The end of a run: measure the result, check that it loads, and write report, pictures and card beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..modeling.size import PARAMETERS, SAMPLING_RATE, Measure, UnitCounts
from ..runtime.auto_classes import AUDIO_CLASSIFICATION
from .eval_results import save_eval_results
from .finetuning_report import FinetuningReport, draw_confusion
from .measurement import describe_machine, measure_latency, measure_size
from .model_card import (
    CONFUSION_PICTURE,
    CURVE_PICTURE,
    SHAPE_PICTURE,
    pruning_card,
    truncation_card,
)
from .model_card_parts import save_card
from .pictures import draw_shape, draw_sparsity_curve
from .provenance import library_versions, source_commit
from .pruning_report import PruningReport, verify_reload


def measure_run(
    dense: PreTrainedModel,
    pruned: PreTrainedModel,
    *,
    latency_seconds: float,
    measure: Measure = PARAMETERS,
    **values: Any,
) -> PruningReport:
    """Measures a finished run.

    Args:
        dense: The model before, as a prunable base model. Where a stock class can express it, that is what runs: it
            is what the user had.
        pruned: The model after; latency is measured on its device.
        latency_seconds: Length of the clip that latency is measured on.
        measure: What sparsity is counted in.
        **values: The fields of the report that are not measured here.
    """
    latencies = measure_latency(
        {"dense": (dense.to_stock() if dense.is_stock else dense).to(pruned.device), "pruned": pruned},
        seconds=latency_seconds,
    )
    pruned_size = measure_size(pruned)
    return PruningReport(
        versions=library_versions(),
        commit=source_commit(),
        machine=describe_machine(pruned.device),
        family=pruned.config.stock_config_class.model_type,
        measure=str(measure),
        met_sparsity=measure.sparsity(pruned.config, UnitCounts.of(pruned.config.shape)),
        dense_size=measure_size(dense),
        pruned_size=pruned_size,
        latency_seconds=latency_seconds,
        latency_batch_size=1,
        dense_latency=latencies["dense"],
        pruned_latency=latencies["pruned"],
        shape=pruned.config.shape.to_dict(),
        **values,
    )


def publish_pruning(
    report: PruningReport,
    model: PreTrainedModel,
    folder: Path,
    name: str,
    repo_id: str | None = None,
    auto_class: str = "AutoModel",
) -> None:
    """Writes report, pictures and card into the folder of a pruned model, and checks that it reloads.

    Args:
        report: Of the run.
        model: What was saved, in memory.
        folder: Where it was saved.
        name: Of the model.
        repo_id: Where it will be on the Hub, if that is known.
        auto_class: Of the kind of head that was saved.

    Raises:
        RuntimeError: If a fresh process does not load the model, or computes something else with it.
    """
    report.save(folder)
    draw_shape(model.config.shape, model.config, folder / SHAPE_PICTURE)
    draw_sparsity_curve(report.history, folder / CURVE_PICTURE)
    save_card(pruning_card(report, name, repo_id=repo_id, auto_class=auto_class), folder)
    _check_reload(model, folder, auto_class, report.seed)


def publish_finetuning(
    report: FinetuningReport, model: PreTrainedModel, folder: Path, name: str, repo_id: str | None = None
) -> None:
    """Writes report, picture and card into the folder of a fine-tuned classifier, and checks that it reloads.

    Args:
        report: Of the run; `model` is its last variant, of the first seed.
        model: What was saved, in memory.
        folder: Where it was saved, with the picture of its profile.
        name: Of the model.
        repo_id: Where it will be on the Hub, if that is known.

    Raises:
        RuntimeError: If a fresh process does not load the model, or computes something else with it.
    """
    report.save(folder)
    *_, variant = report.variants.values()
    draw_confusion(report.references, variant.results[0].predictions, report.class_names, folder / CONFUSION_PICTURE)
    save_eval_results(report, folder)
    save_card(truncation_card(report, name, repo_id=repo_id, is_stock=model.is_stock), folder)
    _check_reload(model, folder, AUDIO_CLASSIFICATION)


def _check_reload(model: PreTrainedModel, folder: Path, auto_class: str, seed: int = 0) -> None:
    input_values = torch.randn(2, SAMPLING_RATE, generator=torch.Generator().manual_seed(seed))
    model = model.cpu().eval()
    with torch.inference_mode():
        hidden_states = model(input_values.to(model.dtype), output_hidden_states=True).hidden_states
    verify_reload(folder, input_values, hidden_states, auto_class)
