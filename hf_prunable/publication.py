"""The end of a pruning run: measure the result, check that it loads, and write report and pictures beside it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from .files import write_text_atomically
from .measurement import describe_machine, measure_latency, measure_size
from .pictures import draw_shape, draw_sparsity_curve
from .report import PruningReport, format_table, verify_reload
from .size import SAMPLING_RATE, UnitCounts
from .target import PARAMETERS, Measure


SHAPE_PICTURE = "shape.png"
CURVE_PICTURE = "sparsity_curve.png"
REPORT_TEXT = "pruning_report.md"
REPORTED_LIBRARIES = ("hf_prunable", "torch", "transformers", "accelerate")


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
        versions={library: version(library) for library in REPORTED_LIBRARIES},
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


def publish_report(
    report: PruningReport, model: PreTrainedModel, folder: Path, title: str, auto_class: str = "AutoModel"
) -> None:
    """Writes the report, its table and the pictures into the folder of a saved model, and checks that it reloads.

    Args:
        report: Of the run.
        model: What was saved, in memory.
        folder: Where it was saved.
        title: Of the report's text.
        auto_class: Of the kind of head that was saved.

    Raises:
        RuntimeError: If a fresh process does not load the model, or computes something else with it.
    """
    report.save(folder)
    draw_shape(model.config.shape, model.config, folder / SHAPE_PICTURE)
    draw_sparsity_curve(report.history, folder / CURVE_PICTURE)
    text = (
        f"# {title}\n\n{format_table(report)}\n"
        f"![What is left of every layer]({SHAPE_PICTURE})\n\n![Sparsity and loss by step]({CURVE_PICTURE})\n"
    )
    write_text_atomically(folder / REPORT_TEXT, text)
    generator = torch.Generator().manual_seed(report.seed)
    input_values = torch.randn(2, SAMPLING_RATE, generator=generator)
    model = model.cpu().eval()
    with torch.inference_mode():
        hidden_states = model(input_values.to(model.dtype), output_hidden_states=True).hidden_states
    verify_reload(folder, input_values, hidden_states, auto_class)
