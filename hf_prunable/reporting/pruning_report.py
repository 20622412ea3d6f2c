"""The record of a pruning run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import Measure, UnitCounts
from ..one_shot.fidelity_search import FoundSize
from ..one_shot.round_files import PruningRound
from ..pruning.fidelity import Fidelity
from ..pruning.gate_sparsity import GateSparsity
from ..pruning.targets import FidelityTarget, Target
from .footprint import Footprint
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
        footprint: Sizes of these models on disk and in memory; empty until they are measured.
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
    footprint: dict[str, Footprint] = field(default_factory=dict)
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
