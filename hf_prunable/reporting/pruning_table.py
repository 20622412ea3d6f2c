"""Tables of a pruning run: dense and pruned model side by side, and the agreement of each hidden state."""

from __future__ import annotations

import math

from ..one_shot.fidelity_search import FoundSize
from ..pruning.arguments import GATES
from ..pruning.fidelity import Fidelity
from ..runtime.tables import markdown_table
from .footprint import footprint_rows, memory_note
from .measurement import Latency
from .pruning_inputs import PruningInputs
from .pruning_report import DENSE, PRUNED, HeldOutLoss, PruningReport


def format_table(report: PruningReport) -> str:
    """Formats dense and pruned model side by side as a Markdown table, with a note that explains its rows.

    Rows of results that were not measured are left out.
    """
    sizes, results = report.sizes, report.results
    rounded = "" if sizes.round_to is None else f", with widths rounded to multiples of {sizes.round_to}"
    rows = [
        (
            "Encoder parameters",
            f"{sizes.dense.num_parameters:,}",
            f"{sizes.pruned.num_parameters:,}",
            _percent(sizes.pruned.num_parameters / sizes.dense.num_parameters),
        ),
        (
            f"Multiply-accumulates, {sizes.dense.mac_seconds:g} s clip",
            f"{sizes.dense.macs / 1e9:.3g} G",
            f"{sizes.pruned.macs / 1e9:.3g} G",
            _percent(sizes.pruned.macs / sizes.dense.macs),
        ),
        *_latency_rows(results.latency),
        *((*row, "") for row in footprint_rows(list(results.footprint.values()))),
        *_fidelity_rows(report.inputs.reference, results.fidelity),
        *_loss_rows(report.inputs, results.held_out_loss),
        *_target_rows(sizes.target_sparsity, results.found_size),
        (f"Achieved sparsity{rounded}", "", _percent(sizes.met_sparsity, 2), ""),
    ]
    note = f"Sparsity is the fraction of the dense encoder's {sizes.measure} that was removed. "
    if results.latency:
        note += (
            "Latency is the median over forward passes of the two models in alternation, with the fastest and the slowest "
            "pass in parentheses; the real-time factor is latency divided by the length of the audio. "
        )
    note += memory_note(list(results.footprint.values()))
    if results.fidelity is not None:
        note += (
            f"Hidden states are compared frame by frame with those of the {report.inputs.reference} on held-out audio, without "
            "a projection; the relative error is the norm of the difference divided by the norm of the "
            f"{report.inputs.reference}'s. "
        )
    table = markdown_table(("", DENSE, PRUNED, f"{PRUNED} / {DENSE}"), rows)
    return f"{table}\n\n{note}Measured on: {report.provenance.machine}.\n"


def format_fidelity_table(fidelity: Fidelity) -> str:
    """Formats the agreement of each hidden state as a Markdown table."""
    last = len(fidelity.cosine) - 1
    names = {0: "0 (input of the first layer)", last: f"{last} (last)"}
    return markdown_table(
        ("Hidden state", "Cosine", "Relative error"),
        [
            (names.get(index, str(index)), _four_decimals(cosine), _four_decimals(error))
            for index, (cosine, error) in enumerate(zip(fidelity.cosine, fidelity.relative_error, strict=True))
        ],
    )


def _latency_rows(latency: dict[str, Latency]) -> list[tuple[str, str, str, str]]:
    if not latency:
        return []
    dense, pruned = latency[DENSE], latency[PRUNED]
    audio = f"{pruned.clip_seconds:g} s clip"
    if pruned.batch_size > 1:
        audio = f"batch of {pruned.batch_size} {audio}s"
    return [
        (f"Latency, {audio}", _milliseconds(dense), _milliseconds(pruned), f"{pruned.speedup:.2f}x as fast"),
        (
            "Real-time factor",
            f"{dense.real_time_factor:.3g}",
            f"{pruned.real_time_factor:.3g}",
            _percent(pruned.real_time_factor / dense.real_time_factor),
        ),
    ]


def _fidelity_rows(reference: str, fidelity: Fidelity | None) -> list[tuple[str, str, str, str]]:
    if fidelity is None:
        return []
    values = {
        f"Cosine to the {reference}, mean of all hidden states": fidelity.mean_cosine,
        f"Cosine to the {reference}, last hidden state": fidelity.cosine[-1],
        "Relative error, last hidden state": fidelity.relative_error[-1],
        "Distillation loss without a projection, held-out audio": fidelity.distillation_loss,
    }
    return [(name, "", _four_decimals(value), "") for name, value in values.items()]


def _target_rows(target_sparsity: float | None, found: FoundSize | None) -> list[tuple[str, str, str, str]]:
    """Returns the target by size, or the target by fidelity with what was measured when it was met."""
    rows = [] if target_sparsity is None else [("Target sparsity", "", _percent(target_sparsity, 2), "")]
    if found is not None:
        name = f"{found.target.quantity[0].upper()}{found.target.quantity[1:]}, held-out audio"
        one_more = "nothing left to remove" if found.one_more is None else found.target.value_text(found.one_more)
        rows += [
            (f"{name}: target", "", found.target.limit, ""),
            (f"{name}: met by pruning", "", found.target.value_text(found.met), ""),
            (f"{name}: with one removal more", "", one_more, ""),
        ]
    return rows


def _loss_rows(inputs: PruningInputs, loss: HeldOutLoss | None) -> list[tuple[str, str, str, str]]:
    if loss is None:
        return []
    name = f"{inputs.loss_name}, held-out audio"
    cut = "compaction" if inputs.method == GATES else "pruning"
    if loss.after_final_steps is None:
        return [(name, _four_decimals(loss.dense), _four_decimals(loss.after_compaction), "")]
    return [
        (f"{name}, after {cut}", _four_decimals(loss.dense), _four_decimals(loss.after_compaction), ""),
        (f"{name}, after the final steps", _four_decimals(loss.dense), _four_decimals(loss.after_final_steps), ""),
    ]


def _percent(fraction: float, decimals: int = 1) -> str:
    return f"{100 * fraction:.{decimals}f} %"


def _milliseconds(latency: Latency) -> str:
    median, fastest, slowest = (
        f"{1000 * seconds:.0f}" if seconds >= 0.1 else f"{1000 * seconds:.1f}"
        for seconds in (latency.median_seconds, latency.min_seconds, latency.max_seconds)
    )
    return f"{median} ms ({fastest} to {slowest})"


def _four_decimals(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "not finite"
