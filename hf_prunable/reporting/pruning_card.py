"""The model card of a pruning run: metadata for the Hub, and a text that only states what the report holds."""

from __future__ import annotations

import math
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from ..modeling.shape import PrunedShape
from ..pruning.arguments import GATES
from .method_texts import (
    STOCK_SHAPE_LIMIT,
    describe_method,
    describe_training,
    has_curve,
    has_prices,
    limit_of_method,
    method_with_link,
    promise_of_hidden_states,
    settings_of_method,
)
from .model_card_overview import THIS_MODEL, SavedModel, facts_table, overview_table
from .model_card_parts import (
    CURVE_PICTURE,
    FIDELITY_PICTURE,
    GATES_PAPER,
    PIPELINE_TAGS,
    PRICES_PICTURE,
    PRUNED_TAGS,
    SHAPE_PICTURE,
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
from .model_card_uses import misuses_of_pruned, uses_of_pruned
from .pruning_report import DENSE, PRUNED, PruningReport
from .pruning_table import format_fidelity_table, format_table
from .public_text import escape_markdown
from .ragged_shape import format_ragged_table


def pruning_card(report: PruningReport, name: str, model: SavedModel, *, source: str | None = None) -> ModelCard:
    """Makes the card of a pruned model.

    Args:
        report: Complete record of the run.
        name: Name of the model.
        model: Saved model.
        source: Hub id or folder that the snippets load from; `None` uses `name`.
    """
    inputs, sizes = report.inputs, report.sizes
    removed = 1 - sizes.pruned.num_parameters / sizes.dense.num_parameters
    results = _evaluation_results(report, model.auto_class)
    card_data = front_matter(name, inputs, model.auto_class, [*PRUNED_TAGS, inputs.family], results)
    return render_card(
        card_data=card_data,
        title=escape_markdown(name),
        summary=(
            f"{link(inputs.model_name)} with {100 * removed:.1f} % of its encoder parameters removed by "
            f"{describe_method(inputs)}. {_speed_and_fidelity(report)}{describe_training(inputs)} {promise_of_hidden_states(report)}"
        ).strip(),
        facts=facts_table(inputs, report.provenance, model, method_with_link(inputs), card_data),
        overview=_overview(report),
        uses=uses_of_pruned(inputs, model),
        misuses=misuses_of_pruned(inputs, model),
        **usage(source or name, model),
        removed=_removed_units(report, model.is_stock),
        removed_picture={"file": SHAPE_PICTURE, "caption": "Widths of every layer after pruning"},
        measured=_measured_models(report),
        **_details(report),
        command=inputs.command,
        reproduction=_reproduction(report),
        limits=_limits(report),
        citation=GATES_PAPER if inputs.method == GATES else None,
    )


def _overview(report: PruningReport) -> str:
    """Returns the table of the dense and the pruned model, and a sentence on its columns."""
    inputs, results, notes = report.inputs, report.results, ["Parameters are those of the encoder."]
    dense = {"Parameters": f"{report.sizes.dense.num_parameters:,}"}
    pruned = {"Parameters": f"{report.sizes.pruned.num_parameters:,}"}
    for name, cells in ((DENSE, dense), (PRUNED, pruned)):
        if name in results.footprint:
            footprint = results.footprint[name]
            cells |= {"File": footprint.file_text, "Memory": footprint.peak_text}
        if name in results.latency:
            latency = results.latency[name]
            cells |= {"Latency": f"{1000 * latency.median_seconds:.1f} ms", "Speed": f"{latency.speedup:.2f}x"}
    if results.latency:
        notes.append(f"Latency and peak memory: {results.latency[PRUNED].audio_text}, on {report.provenance.machine}.")
    if results.fidelity is not None and math.isfinite(results.fidelity.mean_cosine):
        pruned["Cosine similarity"] = f"{results.fidelity.mean_cosine:.4f}"
        lowest = min(results.fidelity.cosine)
        notes.append(
            f"Cosine similarity: mean over all hidden states, to those of the {inputs.reference}, held-out audio; the lowest is "
            f"{lowest:.4f}, of hidden state {results.fidelity.cosine.index(lowest)}, and [each one](#results) is below."
        )
    loss = results.held_out_loss
    if loss is not None and inputs.objective != "distillation" and math.isfinite(loss.dense + loss.final):
        dense[inputs.loss_name], pruned[inputs.loss_name] = f"{loss.dense:.4f}", f"{loss.final:.4f}"
    return f"{overview_table({link(inputs.model_name): dense, THIS_MODEL: pruned})}\n\n{' '.join(notes)}"


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


def _details(report: PruningReport) -> dict[str, Any]:
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


def _evaluation_results(report: PruningReport, auto_class: str) -> list[EvalResult]:
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
    table, fidelity, ragged = format_table(report).strip(), report.results.fidelity, report.results.ragged
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


def _reproduction(report: PruningReport) -> str:
    inputs = report.inputs
    return bullets(
        *settings_of_method(report),
        inputs.teacher_name and f"Teacher: {link(inputs.teacher_name)}.",
        data_line(inputs),
        *software_lines(report.provenance),
        f"{'Training log and all' if inputs.steps else 'All'} measurements: [{report.FILE_NAME}]({report.FILE_NAME}).",
    )


def _limits(report: PruningReport) -> list[str]:
    limits = ["All figures are from one run with one seed."]
    if report.results.latency:
        latency = next(iter(report.results.latency.values()))
        limits[0] += (
            f" Latency was measured on the machine named above with {latency.audio_text}; ratios differ on "
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
