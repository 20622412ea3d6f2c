"""The record of a pruning run and its table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import Measure, UnitCounts
from ..one_shot.fidelity_search import FoundSize
from ..one_shot.round_files import PruningRound
from ..pruning.arguments import GATES
from ..pruning.fidelity import Fidelity
from ..pruning.gate_sparsity import GateSparsity
from ..pruning.targets import FidelityTarget, Target
from ..runtime.tables import markdown_table
from .measurement import Latency, ModelSize, measure_size
from .pruning_inputs import PruningInputs
from .ragged_shape import RaggedShape
from .run_report import RunReport


# Names of the two models that a run compares.
DENSE, PRUNED = "dense", "pruned"


@dataclass
class PruningSizes:
    """Sizes of the dense and of the pruned encoder.

    Attributes:
        measure: Unit of sparsity: "parameters", or the multiply-accumulates of a clip of some length.
        target_sparsity: Fraction of the dense encoder's size that was to be removed; `None` for a target by fidelity.
        met_sparsity: Fraction that was removed.
        round_to: Multiple that widths were rounded to, which shifts the size away from the target; `None` if none.
        dense: Size before pruning.
        pruned: Size after pruning.
        shape: Shape of the pruned encoder, in the form of `PrunedShape.to_dict`.
    """

    measure: str
    target_sparsity: float | None
    met_sparsity: float
    round_to: int | None
    dense: ModelSize
    pruned: ModelSize
    shape: dict[str, Any]


@dataclass
class HeldOutLoss:
    """Loss of the objective on held-out audio, without the sparsity constraint.

    A distillation loss is computed behind the projections, if there are any, unlike that of `Fidelity`.

    Attributes:
        dense: Loss before pruning; 0 for a model that is distilled from itself.
        after_compaction: Loss of the compacted model.
        after_final_steps: Loss after the final training stage; `None` without that stage.
    """

    dense: float
    after_compaction: float
    after_final_steps: float | None = None

    @property
    def final(self) -> float:
        """Loss of the model that is saved."""
        return self.after_compaction if self.after_final_steps is None else self.after_final_steps

    @property
    def warning(self) -> str | None:
        """Says that the final stage made the model worse; `None` if it did not."""
        if self.after_final_steps is None or not self.after_final_steps > self.after_compaction:
            return None
        return (
            f"The final steps made the model worse: its loss on held-out audio was {self.after_compaction:.4f} before them "
            f"and is {self.after_final_steps:.4f} after. Lower `final_learning_rate` or raise `final_steps`; with "
            "`--final_steps 0`, the model stays as it was pruned."
        )


@dataclass
class PruningResults:
    """Measurements of a pruning run.

    Attributes:
        held_out_loss: Losses before and after pruning; `None` until they are measured, and for a run without training.
        fidelity: Agreement of the pruned model's hidden states with those of the teacher, or without one of the dense
            model, on held-out audio; `None` if it is not measured or cannot be.
        latency: Latencies of the models `DENSE` and `PRUNED`; empty until they are measured.
        history: One entry per logging step: `step`, `stage` (1 with gates, 2 after compaction), `loss`,
            `distillation_loss` and `task_loss` as far as they are part of the objective, and in stage 1
            `target_sparsity`, `expected_sparsity` and `deterministic_sparsity`. Evaluations during training have entries of
            their own, with `eval_loss` and the similarity to the teacher on the held-out clips.
        gate_sparsity: Sparsity of the learned gates beside the target, with a warning if they are far from it; `None`
            without gates.
        rounds: Rounds of one-shot pruning; empty for other methods.
        ragged: Model of the same size whose widths vary, beside a stock-shaped one; `None` if it is not measured.
        found_size: Size that was found for a target by fidelity; `None` for targets by size.
    """

    held_out_loss: HeldOutLoss | None = None
    fidelity: Fidelity | None = None
    latency: dict[str, Latency] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    gate_sparsity: GateSparsity | None = None
    rounds: list[PruningRound] = field(default_factory=list)
    ragged: RaggedShape | None = None
    found_size: FoundSize | None = None


@dataclass
class PruningReport(RunReport):
    """Record of a pruning run for one target.

        report = PruningReport(inputs, provenance, measure_pruning(dense, pruned, measure=measure, target=0.72))
        report.results.held_out_loss = HeldOutLoss(dense_loss, loss)
        report.results.latency = measure_latency({DENSE: dense, PRUNED: pruned})
        report.save(folder)

    Attributes:
        inputs: Inputs of the run.
        provenance: Software and hardware of the run.
        sizes: Sizes of the dense and of the pruned encoder.
        results: Measurements, added as the stages of the run end.
    """

    FILE_NAME = "pruning_report.json"

    inputs: PruningInputs
    sizes: PruningSizes
    results: PruningResults = field(default_factory=PruningResults)


def measure_pruning(
    dense: PrunableModelMixin,
    pruned: PrunableModelMixin,
    *,
    measure: Measure,
    target: Target,
    round_to: int | None = None,
) -> PruningSizes:
    """Counts the encoder before and after pruning.

    Args:
        dense: Model before pruning.
        pruned: Compacted model.
        measure: Unit of sparsity.
        target: Target of the run, by size or by fidelity.
        round_to: Multiple that widths were rounded to; `None` if none.

    Raises:
        ValueError: If a model has gates.
        RuntimeError: If a shape and the model's tensors disagree.
    """
    return PruningSizes(
        measure=str(measure),
        target_sparsity=None if isinstance(target, FidelityTarget) else target,
        met_sparsity=measure.sparsity(pruned.config, UnitCounts.of(pruned.config.shape)),
        round_to=round_to,
        dense=measure_size(dense),
        pruned=measure_size(pruned),
        shape=pruned.config.shape.to_dict(),
    )


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
