"""Students of the comparison: how each is built from the teacher, and its training arguments."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from hf_prunable import compact, load_prunable
from hf_prunable.modeling.size import UnitCounts, count_parameters
from hf_prunable.modeling.units import DEFAULT_UNITS, PAPER_UNITS
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.pruning.gate_initialization import order_gates_by_weights_
from hf_prunable.pruning.magnitude import OPEN, keep_largest_weights, uniform_shape
from hf_prunable.pruning.student import NOISE_OFF


WHOLE_HEADS = ("mha", "head", "ffn", "int")


@dataclass(frozen=True)
class Student:
    """One row of the comparison.

    Attributes:
        make: Function that builds the student from the teacher's checkpoint and the target sparsity.
        learns_gates: Whether the student has gates and is compacted to the target after they are trained.
        trains_on: Whether the compacted student is trained further.
        is_ladder: Whether one training of the gates serves all targets of the comparison.
    """

    make: Callable[[str, float], PreTrainedModel]
    learns_gates: bool
    trains_on: bool = True
    is_ladder: bool = False

    def training(
        self, training: PruningTrainingArguments, ungated_learning_rate: float | None
    ) -> PruningTrainingArguments:
        """Derives the training arguments of this row, with `max_steps` + `final_steps` optimizer steps in total.

        Without gates, all steps belong to the final stage, with learning rate and warm-up of the gate stage. With gates
        but no training after compaction, all steps belong to the gate stage.

        Args:
            training: Training arguments of a row with both stages.
            ungated_learning_rate: Peak learning rate of rows without gates; `None` for that of the gate stage.
        """
        training, steps = copy.copy(training), training.max_steps + training.num_final_steps
        if not self.learns_gates:
            training.final_steps = steps
            training.final_learning_rate = ungated_learning_rate or training.learning_rate
            training.final_warmup_steps = training.warmup_steps
        elif not self.trains_on:
            training.max_steps, training.final_steps = steps, 0
        return training


def gated(
    teacher: str,
    target_sparsity: float,
    units: tuple[str, ...] = PAPER_UNITS,
    ste: bool = True,
    norm_spread: float = 0.0,
) -> PreTrainedModel:
    """Builds a copy of the teacher with gates.

    Args:
        teacher: Folder or Hub id of the dense checkpoint.
        target_sparsity: Ignored, because training enforces the target.
        units: Kinds of units with gates.
        ste: Whether gates use the straight-through estimator.
        norm_spread: Spread of the initial gates in the order of weight norms, see `order_gates_by_weights_`.
    """
    student = load_prunable(teacher, dtype=torch.float32, **NOISE_OFF)
    student.attach_gates(units, ste=ste)
    order_gates_by_weights_(student, norm_spread)
    return student


def random_shape(teacher: str, target_sparsity: float) -> PreTrainedModel:
    """Builds a student with randomly chosen units; all blocks are kept.

    Args:
        teacher: Folder or Hub id of the dense checkpoint.
        target_sparsity: Fraction of parameters to remove, between 0 and 1.
    """
    student = gated(teacher, target_sparsity, DEFAULT_UNITS)
    for _, gate in student.named_gates():
        gate.log_alpha.data = torch.rand(gate.num_gates) + OPEN
    return compact(student, target_sparsity)


def first_layers(teacher: str, target_sparsity: float) -> PreTrainedModel:
    """Builds a student from the teacher's first layers: as many whole layers as fit, and random units of the next one.

    Args:
        teacher: Folder or Hub id of the dense checkpoint.
        target_sparsity: Fraction of parameters to remove, between 0 and 1.
    """
    config = load_prunable(teacher).config
    depth, size = config.num_hidden_layers, (1 - target_sparsity) * config.dense_num_parameters
    shapes = [config.shape.first_layers(num_layers) for num_layers in range(1, depth + 1)]
    whole = sum(count_parameters(config, UnitCounts.of(shape)) <= size for shape in shapes)
    num_layers = min(whole + 1, depth)
    student = load_prunable(
        teacher, dtype=torch.float32, num_hidden_layers=num_layers, dense_num_hidden_layers=depth, **NOISE_OFF
    )
    student.attach_gates(DEFAULT_UNITS)
    for name, gate in student.named_gates():
        is_last = f"layers.{num_layers - 1}." in name
        gate.log_alpha.data = torch.rand(gate.num_gates) + (OPEN if is_last else OPEN + 1)
    return compact(student, target_sparsity)


def uniform_width(teacher: str, target_sparsity: float) -> PreTrainedModel:
    """Builds a student of `uniform_shape` that keeps the units with the largest weight norms.

    Args:
        teacher: Folder or Hub id of the dense checkpoint.
        target_sparsity: Fraction of parameters to remove, between 0 and 1.
    """
    return keep_largest_weights(load_prunable(teacher, dtype=torch.float32, **NOISE_OFF), target_sparsity)


def from_scratch(teacher: str, target_sparsity: float) -> PreTrainedModel:
    """Builds a student of `uniform_shape` with newly initialized weights.

    Args:
        teacher: Folder or Hub id of the dense checkpoint.
        target_sparsity: Fraction of parameters to remove, between 0 and 1.
    """
    config = copy.deepcopy(load_prunable(teacher, **NOISE_OFF).config)
    config.dtype = torch.float32
    config.pruned_shape = uniform_shape(config, target_sparsity).to_dict()
    return type(load_prunable(teacher))(config)


TEACHER = "teacher"
from_norms = partial(gated, units=DEFAULT_UNITS, norm_spread=1.0)
STUDENTS = {
    "learned": Student(gated, learns_gates=True),
    "learned_without_ste": Student(partial(gated, ste=False), learns_gates=True),
    "learned_fine_units": Student(partial(gated, units=DEFAULT_UNITS), learns_gates=True),
    "learned_from_norms": Student(from_norms, learns_gates=True),
    "learned_ladder": Student(from_norms, learns_gates=True, is_ladder=True),
    "learned_whole_heads": Student(partial(gated, units=WHOLE_HEADS), learns_gates=True),
    "learned_with_conv": Student(partial(gated, units=(*PAPER_UNITS, "conv")), learns_gates=True),
    "one_stage": Student(gated, learns_gates=True, trains_on=False),
    "random_shape": Student(random_shape, learns_gates=False),
    "uniform_width": Student(uniform_width, learns_gates=False),
    "first_layers": Student(first_layers, learns_gates=False),
    "from_scratch": Student(from_scratch, learns_gates=False),
}
ROWS = (*STUDENTS, TEACHER)
# For a single target, a ladder equals learned_from_norms.
DEFAULT_ROWS = tuple(row for row in ROWS if row == TEACHER or not STUDENTS[row].is_ladder)


def check_rows(rows: list[str]) -> None:
    """Checks row names.

    Args:
        rows: Row names.

    Raises:
        ValueError: If a name is unknown.
    """
    if unknown := [row for row in rows if row not in ROWS]:
        raise ValueError(f"There is no row {', '.join(map(repr, unknown))}; choose from {', '.join(ROWS)}.")
