"""Pruning by learned gates: from a dense model to the compacted student at each target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import PARAMETERS, Measure
from ..runtime.training_plan import Stage
from .arguments import DEFAULT_FINAL_STEPS, PruningTrainingArguments
from .compaction import compact
from .decisions import check_target
from .gate_initialization import order_gates_by_weights_
from .gate_sparsity import GateSparsity
from .method import PruningMethod
from .stages import TrainingStages
from .stock_shape import check_stock_gates, width_at_target
from .student import Student
from .targets import Target


class GatePruning(PruningMethod):
    """Pruning by hard-concrete gates that are trained with the weights (arXiv 2306.01385)."""

    default_final_steps: int = DEFAULT_FINAL_STEPS

    def prepare_(self, model: PrunableModelMixin) -> None:
        """Attaches the gates to a model and checks the targets.

        Args:
            model: Dense or pruned model without gates.

        Raises:
            ValueError: If a kind of unit cannot be pruned, or the gates cannot reach a target.
        """
        model.attach_gates(tuple(self.options.prune_units), self.options.ste, self.options.initial_drop_rate)
        if self.options.stock_shape:
            check_stock_gates(model)
        for target in self.sparsities:
            if self.options.stock_shape:
                width_at_target(model.config, target, self.measure)
            else:
                check_target(model, target, self.measure)

    def first_stage(self, args: PruningTrainingArguments) -> Stage:
        """Returns the stage that trains the gates."""
        return Stage("train gates and weights", args.max_steps)

    def students(self, stages: TrainingStages) -> Iterator[tuple[Target, Student]]:
        """Trains the gates once and yields each target with the student that is compacted to it.

        Args:
            stages: Stages of the run, whose initial student is a prepared model.
        """
        student = stages.initial_student
        start_ = partial(self.start_, stages=stages)
        for learned in stages.learn_gates(student, self.sparsities, self.measure, start_):
            small = compact_student(
                learned.load(student),
                learned.target,
                self.measure,
                self.options.round_to,
                stock_shape=self.options.stock_shape,
            )
            yield learned.target, small

    def start_(self, model: PrunableModelMixin, stages: TrainingStages) -> None:
        """Gives the gates their initial values.

        Args:
            model: Prepared model; changed in place.
            stages: Stages of the run.
        """
        order_gates_by_weights_(model, self.options.initial_norm_spread)


def compact_student(
    student: Student,
    target: float,
    measure: Measure = PARAMETERS,
    round_to: int | None = None,
    *,
    stock_shape: bool = False,
) -> Student:
    """Compacts a student with learned gates.

    Args:
        student: Student with gates; it is not changed.
        target: Fraction of the dense encoder's size to remove, between 0 and 1.
        measure: Measure of the target.
        round_to: Number that widths are rounded to multiples of; `None` to leave them.
        stock_shape: Whether each layer keeps the same number of intermediate units, as a stock class needs.
    """
    size = {measure.option: target}
    model = compact(student.model, **size, mac_seconds=measure.mac_seconds, round_to=round_to, stock_shape=stock_shape)
    return replace(student, model=model, gate_sparsity=GateSparsity.of(student.model, target, measure))
