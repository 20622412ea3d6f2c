"""Students of the comparison: how each is built from the teacher, and its training arguments."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from experiments.one_shot_students import FULL, TEACHER, Students, in_rounds, magnitude, one_round
from hf_prunable import compact, load_prunable, refit_
from hf_prunable.modeling.pretrained import PrunableModelMixin
from hf_prunable.modeling.size import UnitCounts, count_parameters
from hf_prunable.modeling.units import DEFAULT_UNITS, PAPER_UNITS
from hf_prunable.one_shot.gate_start import order_gates_by_one_shot_, rotate_gated_heads_
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.pruning.gate_initialization import order_gates_by_weights_
from hf_prunable.pruning.magnitude import OPEN, uniform_shape
from hf_prunable.pruning.projections import NO_PROJECTIONS, SHARED
from hf_prunable.pruning.student import NOISE_OFF


@dataclass(frozen=True)
class Source:
    """What a student is made from.

    Attributes:
        teacher: Folder or Hub id of the dense checkpoint.
        target_sparsity: Fraction of parameters to remove, between 0 and 1.
        clips: Calibration audio of shape (clips, samples).
    """

    teacher: str
    target_sparsity: float
    clips: torch.Tensor


@dataclass(frozen=True)
class Student:
    """One row of the comparison.

    Attributes:
        label: Row name in table and pictures.
        start: Function that builds the model before training.
        compaction: Function that cuts the model to the target after its gates are trained; `None` for a model without
            gates.
        is_trained: Whether the model is trained.
        uses_calibration: Whether the student depends on the calibration audio.
        is_refitted: Whether the weights are fitted to the teacher's outputs before the last training.
        projections: Projections of the distillation.
        has_random_lengths: Whether the training crops have random lengths.
    """

    label: str
    start: Callable[[Source], PrunableModelMixin]
    compaction: Callable[[PrunableModelMixin, Source], PrunableModelMixin] | None = None
    is_trained: bool = True
    uses_calibration: bool = False
    is_refitted: bool = False
    projections: str = NO_PROJECTIONS
    has_random_lengths: bool = False

    def training(
        self,
        training: PruningTrainingArguments,
        ungated_learning_rate: float | None = None,
        refitted_learning_rate: float | None = None,
    ) -> PruningTrainingArguments:
        """Derives the training arguments of this row, with `max_steps` + `final_steps` optimizer steps in total.

        Without gates, all steps belong to the final stage, with the warm-up of the gate stage.

        Args:
            training: Training arguments of a row with both stages.
            ungated_learning_rate: Peak learning rate of rows without gates; `None` for that of the gate stage.
            refitted_learning_rate: Peak learning rate of the final stage after a refit; `None` for that of other rows.
        """
        training, steps = copy.copy(training), training.max_steps + training.num_final_steps
        if self.compaction is None:
            training.final_steps = steps
            training.final_learning_rate = ungated_learning_rate or training.learning_rate
            training.final_warmup_steps = training.warmup_steps
        if self.is_refitted:
            training.final_learning_rate = refitted_learning_rate or training.final_learning_rate
        return training


def gated(teacher: str, units: tuple[str, ...], ste: bool = True) -> PrunableModelMixin:
    """Builds a copy of the teacher with equal gates.

    Args:
        teacher: Folder or Hub id of the dense checkpoint.
        units: Kinds of units with gates.
        ste: Whether gates use the straight-through estimator.
    """
    student = load_prunable(teacher, dtype=torch.float32, **NOISE_OFF)
    student.attach_gates(units, ste=ste)
    return student


def gated_by_weights(teacher: str, units: tuple[str, ...] = DEFAULT_UNITS) -> PrunableModelMixin:
    """Builds a copy of the teacher with gates in the order of weight norms.

    Args:
        teacher: Folder or Hub id of the dense checkpoint.
        units: Kinds of units with gates.
    """
    student = gated(teacher, units)
    order_gates_by_weights_(student, 1.0)
    return student


def paper_gates(source: Source, ste: bool = True) -> PrunableModelMixin:
    """Builds a copy of the teacher with equal gates on the units of the paper.

    Args:
        source: Teacher.
        ste: Whether gates use the straight-through estimator.
    """
    return gated(source.teacher, PAPER_UNITS, ste)


def gates_by_weights(source: Source) -> PrunableModelMixin:
    """Builds a copy of the teacher with gates in the order of weight norms.

    Args:
        source: Teacher.
    """
    return gated_by_weights(source.teacher)


def gates_on_rotated_heads(source: Source) -> PrunableModelMixin:
    """Builds a copy of the teacher with rotated heads and gates in the order of weight norms.

    Args:
        source: Teacher and calibration audio.
    """
    student = gated(source.teacher, DEFAULT_UNITS)
    rotate_gated_heads_(student, source.clips)
    order_gates_by_weights_(student, 1.0)
    return student


def gates_by_one_shot(source: Source) -> PrunableModelMixin:
    """Builds a copy of the teacher with rotated heads and gates in the order of one-shot pruning.

    Args:
        source: Teacher, target and calibration audio.
    """
    student = gated(source.teacher, DEFAULT_UNITS)
    teacher = load_prunable(source.teacher, dtype=torch.float32)
    order_gates_by_one_shot_(student, teacher, source.clips, target=source.target_sparsity, config=FULL)
    return student


def cut(student: PrunableModelMixin, source: Source) -> PrunableModelMixin:
    """Cuts a student with gates to the target.

    Args:
        student: Model with gates.
        source: Target.
    """
    return compact(student, source.target_sparsity)


def cut_and_refit(student: PrunableModelMixin, source: Source) -> PrunableModelMixin:
    """Cuts a student with gates to the target, and fits its weights to the teacher's outputs.

    Args:
        student: Model with gates.
        source: Teacher, target and calibration audio.
    """
    small = compact(student, source.target_sparsity)
    refit_(small, load_prunable(source.teacher, dtype=torch.float32), source.clips, config=FULL)
    return small


def first(students: Callable[..., Students], source: Source) -> PrunableModelMixin:
    """Makes one student of the experiment `one_shot`.

    Args:
        students: Function of the experiment's row.
        source: Teacher, target and calibration audio.
    """
    ((_, student),) = students(source.teacher, [source.target_sparsity], source.clips)
    return student


def random_shape(source: Source) -> PrunableModelMixin:
    """Builds a student with randomly chosen units; all blocks are kept.

    Args:
        source: Teacher and target.
    """
    student = gated(source.teacher, DEFAULT_UNITS)
    for _, gate in student.named_gates():
        gate.log_alpha.data = torch.rand(gate.num_gates) + OPEN
    return compact(student, source.target_sparsity)


def first_layers(source: Source) -> PrunableModelMixin:
    """Builds a student from the teacher's first layers: as many whole layers as fit, and random units of the next one.

    Args:
        source: Teacher and target.
    """
    config = load_prunable(source.teacher).config
    depth, size = config.num_hidden_layers, (1 - source.target_sparsity) * config.dense_num_parameters
    shapes = [config.shape.first_layers(num_layers) for num_layers in range(1, depth + 1)]
    whole = sum(count_parameters(config, UnitCounts.of(shape)) <= size for shape in shapes)
    num_layers = min(whole + 1, depth)
    student = load_prunable(
        source.teacher, dtype=torch.float32, num_hidden_layers=num_layers, dense_num_hidden_layers=depth, **NOISE_OFF
    )
    student.attach_gates(DEFAULT_UNITS)
    for name, gate in student.named_gates():
        is_last = f"layers.{num_layers - 1}." in name
        gate.log_alpha.data = torch.rand(gate.num_gates) + (OPEN if is_last else OPEN + 1)
    return compact(student, source.target_sparsity)


def from_scratch(source: Source) -> PrunableModelMixin:
    """Builds a student of `uniform_shape` with newly initialized weights.

    Args:
        source: Teacher and target.
    """
    teacher = load_prunable(source.teacher, **NOISE_OFF)
    config = copy.deepcopy(teacher.config)
    config.dtype = torch.float32
    config.pruned_shape = uniform_shape(config, source.target_sparsity).to_dict()
    return type(teacher)(config)


one_shot = partial(first, partial(in_rounds, config=FULL))
stock_shape = partial(first, partial(one_round, config=FULL, stock_shape=True))
STUDENTS = {
    "one_shot": Student("one-shot, not trained", one_shot, is_trained=False, uses_calibration=True),
    "one_shot_trained": Student("one-shot, trained", one_shot, uses_calibration=True, is_refitted=True),
    "one_shot_lengths": Student(
        "one-shot, trained on random lengths",
        one_shot,
        uses_calibration=True,
        is_refitted=True,
        has_random_lengths=True,
    ),
    "gates_one_shot": Student(
        "gates from the one-shot start", gates_by_one_shot, cut_and_refit, uses_calibration=True, is_refitted=True
    ),
    "gates_paper": Student("gates as in the paper", paper_gates, cut, projections=SHARED),
    "magnitude_refit": Student(
        "largest weights, refitted, not trained",
        partial(first, partial(magnitude, config=FULL)),
        is_trained=False,
        uses_calibration=True,
    ),
    "magnitude_trained": Student("largest weights, trained", partial(first, magnitude)),
    "random_trained": Student("random units, trained", random_shape),
    "first_layers": Student("first layers, trained", first_layers),
    "from_scratch": Student("from scratch", from_scratch),
    # Not among the default rows: shapes that a stock class can express, and one change of the gates at a time.
    "stock": Student("stock shape, not trained", stock_shape, is_trained=False, uses_calibration=True),
    "stock_trained": Student("stock shape, trained", stock_shape, uses_calibration=True, is_refitted=True),
    "gates_projected": Student("gates by weights, with projections", gates_by_weights, cut, projections=SHARED),
    "gates": Student("gates by weights", gates_by_weights, cut),
    "gates_rotated": Student("gates by weights, rotated heads", gates_on_rotated_heads, cut, uses_calibration=True),
    "gates_scores": Student("gates in one-shot order, no refit", gates_by_one_shot, cut, uses_calibration=True),
    "gates_refit": Student(
        "gates by weights, refitted", gates_by_weights, cut_and_refit, uses_calibration=True, is_refitted=True
    ),
    "gates_without_ste": Student(
        "gates as in the paper, without STE", partial(paper_gates, ste=False), cut, projections=SHARED
    ),
}
ROWS = (*STUDENTS, TEACHER)
DEFAULT_ROWS = (*list(STUDENTS)[: list(STUDENTS).index("stock")], TEACHER)


def row_label(row: str) -> str:
    """Returns the name of a row in table and pictures.

    Args:
        row: Row name, one of `ROWS`.
    """
    return TEACHER if row == TEACHER else STUDENTS[row].label
