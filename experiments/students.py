"""The students that are compared: how each comes about from the teacher, and what it is trained with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_prunable import AttentionShape, LayerShape, PrunedShape, compact, load_prunable
from hf_prunable.modeling.size import UnitCounts, count_parameters
from hf_prunable.modeling.units import DEFAULT_UNITS, PAPER_UNITS
from hf_prunable.pruning.gate_initialization import order_gates_by_weights_
from hf_prunable.pruning.student import NOISE_OFF
from hf_prunable.pruning.training_arguments import PruningTrainingArguments


# From 2.4 up a gate's deterministic value is 1, so that a unit keeps its full weight; from -2.4 down it is 0.
OPEN, CLOSED = 4.0, -4.0
WHOLE_HEADS = ("mha", "head", "ffn", "int")


@dataclass(frozen=True)
class Student:
    """One row of the comparison.

    Attributes:
        make: Builds the student from the teacher's checkpoint and the target sparsity.
        learns_gates: Whether it comes with gates, and is compacted to the target after they have learned.
        trains_on: Whether part of its steps come after compaction.
        is_ladder: Whether one training of the gates serves all targets of the comparison.
    """

    make: Callable[[str, float], PreTrainedModel]
    learns_gates: bool
    trains_on: bool = True
    is_ladder: bool = False

    def training(self, training: PruningTrainingArguments, ungated_learning_rate: float | None) -> Any:
        """The arguments of this row, with `max_steps` + `final_steps` optimizer steps in all.

        Without gates, all steps have the rate and the warm-up of the first stage; with gates and nothing after
        compaction, all steps are those of the first stage.

        Args:
            training: The arguments of a row that learns gates and trains on.
            ungated_learning_rate: The peak rate without gates, where it is not the first stage's.
        """
        training, steps = copy.copy(training), training.max_steps + training.final_steps
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
    """A copy of the teacher with gates; its size is learned, so the target plays no part here."""
    student = load_prunable(teacher, dtype=torch.float32, **NOISE_OFF)
    student.attach_gates(units, ste=ste)
    order_gates_by_weights_(student, norm_spread)
    return student


def random_shape(teacher: str, target_sparsity: float) -> PreTrainedModel:
    """A student whose units are drawn at random to the target's size; all blocks stay."""
    student = gated(teacher, target_sparsity, DEFAULT_UNITS)
    for _, gate in student.named_gates():
        gate.log_alpha.data = torch.rand(gate.num_gates) + OPEN
    return compact(student, target_sparsity)


def first_layers(teacher: str, target_sparsity: float) -> PreTrainedModel:
    """A student of the teacher's first layers: as many whole ones as fit, and the next at random units to the size."""
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


def uniform_shape(config: Any, target_sparsity: float) -> PrunedShape:
    """The largest shape within the target's size whose heads and whose feed-forward blocks are all of one width.

    Attention and feed-forward lose the same part, as near as a whole width of the heads allows. What is then left of
    the size goes to one more intermediate unit in each of the first layers.

    Args:
        config: Of a dense model.
        target_sparsity: The part of its parameters to remove.

    Raises:
        ValueError: If not even one unit of each kind fits.
    """
    dense, depth = PrunedShape.dense(config), config.num_hidden_layers
    num_heads, head_dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    size = (1 - target_sparsity) * config.dense_num_parameters

    def shape_of(width: int, intermediates: list[int]) -> PrunedShape:
        attention = AttentionShape(tuple(range(num_heads)), (width,) * num_heads, (width,) * num_heads)
        return PrunedShape(dense.conv_channels, tuple(LayerShape(attention, units) for units in intermediates))

    def num_parameters(width: int, intermediates: list[int]) -> int:
        return count_parameters(config, UnitCounts.of(shape_of(width, intermediates)))

    unit_size = num_parameters(1, [2] + [1] * (depth - 1)) - num_parameters(1, [1] * depth)
    candidates = []
    for width in range(1, head_dim + 1):
        num_units = depth + int((size - num_parameters(width, [1] * depth)) // unit_size)
        if num_units >= depth:
            num_units = min(num_units, depth * config.intermediate_size)
            candidates.append((abs(width / head_dim - num_units / depth / config.intermediate_size), width, num_units))
    if not candidates:
        raise ValueError(
            f"`target_sparsity` is {target_sparsity}, and a model with one dimension a head and one intermediate unit a "
            f"layer still has {num_parameters(1, [1] * depth):,} of {config.dense_num_parameters:,} parameters. Ask "
            "for less."
        )
    _, width, num_units = min(candidates)
    intermediate, rest = divmod(num_units, depth)
    return shape_of(width, [intermediate + (number < rest) for number in range(depth)])


def uniform_width(teacher: str, target_sparsity: float) -> PreTrainedModel:
    """A student of `uniform_shape`; of every head and feed-forward block, the units with the largest weights stay."""
    student = gated(teacher, target_sparsity, DEFAULT_UNITS)
    shape = uniform_shape(student.config, target_sparsity)
    for layer, wanted in zip(student.encoder.layers, shape.layers, strict=True):
        attention, dense = layer.attention, layer.feed_forward.output_dense
        for module, unit, widths, kept in (
            (attention.q_proj, "qk", attention.shape.query_key, wanted.attention.query_key),
            (attention.out_proj, "vo", attention.shape.value_output, wanted.attention.value_output),
            (dense, "int", (layer.feed_forward.intermediate,), (wanted.intermediate,)),
        ):
            gate = module.gates[unit]
            norms = module.unit_norms(gate).split(widths)
            is_kept = torch.cat([_largest(group, count) for group, count in zip(norms, kept, strict=True)])
            gate.log_alpha.data = torch.where(is_kept, OPEN, CLOSED)
    return compact(student)


def _largest(values: torch.Tensor, count: int) -> torch.Tensor:
    is_largest = torch.zeros(len(values), dtype=torch.bool)
    is_largest[values.topk(count).indices] = True
    return is_largest


def from_scratch(teacher: str, target_sparsity: float) -> PreTrainedModel:
    """A student of `uniform_shape` with weights as a new model has them; the teacher is in nothing but the loss."""
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
# At a single size, a ladder is the row that it is made like.
DEFAULT_ROWS = tuple(row for row in ROWS if row == TEACHER or not STUDENTS[row].is_ladder)


def check_rows(rows: list[str]) -> None:
    """Checks the names of rows.

    Raises:
        ValueError: If there is no such row.
    """
    if unknown := [row for row in rows if row not in ROWS]:
        raise ValueError(f"There is no row {', '.join(map(repr, unknown))}; choose from {', '.join(ROWS)}.")
