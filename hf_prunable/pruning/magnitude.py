"""Pruning by weight magnitude: equal widths in all layers, and in each the units with the largest weights.

With a stock shape, only intermediate units are removed. It needs neither audio nor training, and is the baseline that
other methods are compared with.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import torch

from ..modeling.configuration import PrunableConfigMixin
from ..modeling.gated import GatedWeightMixin
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.shape import AttentionShape, LayerShape, PrunedShape
from ..modeling.size import PARAMETERS, Measure, UnitCounts
from ..modeling.units import DEFAULT_UNITS, walk_gates
from ..runtime.training_plan import Stage
from .arguments import PruningTrainingArguments
from .compaction import compact
from .decisions import check_target_value
from .method import PruningMethod
from .stages import TrainingStages
from .stock_shape import STOCK_UNITS, width_at_target, with_width
from .student import Student
from .targets import Target


# Values of log_alpha: from 2.4 up a gate's deterministic value is 1, from -2.4 down it is 0.
OPEN, CLOSED = 4.0, -4.0


class MagnitudePruning(PruningMethod):
    """Pruning to uniform widths by largest weights."""

    def prepare_(self, model: PrunableModelMixin) -> None:
        """Checks the kinds of units and the targets.

        Args:
            model: Model without gates, with all units of its layers; it is not changed.

        Raises:
            ValueError: If the model has gates or was pruned before, or a target cannot be reached.
        """
        if not self.options.stock_shape and set(self.options.prune_units) != set(DEFAULT_UNITS):
            raise ValueError(
                f"`prune_units` is {' '.join(self.options.prune_units)}, but the method 'magnitude' prunes "
                f"{', '.join(DEFAULT_UNITS)} together, or with `stock_shape` the intermediate units alone. Leave "
                "`prune_units` out."
            )
        if model.config.gates is not None:
            raise ValueError("The model has gates, and 'magnitude' chooses units by weights. Compact the model first.")
        for target in self.sparsities:
            _shape_at_target(model.config, target, self.measure, self.options.stock_shape)

    def first_stage(self, args: PruningTrainingArguments) -> Stage:
        """Returns the stage that cuts the model, which trains nothing."""
        units = "intermediate units" if self.options.stock_shape else "units"
        return Stage(f"keep the {units} with the largest weights, with equal widths in all layers")

    def students(self, stages: TrainingStages) -> Iterator[tuple[Target, Student]]:
        """Yields each target with the student that was cut to it.

        Args:
            stages: Stages of the run, whose initial student is a prepared model.
        """
        student = stages.initial_student
        for target in self.sparsities:
            model = keep_largest_weights(student.model, target, self.measure, stock_shape=self.options.stock_shape)
            yield target, replace(student, model=model)


def keep_largest_weights(
    model: PrunableModelMixin, target: float, measure: Measure = PARAMETERS, *, stock_shape: bool = False
) -> PrunableModelMixin:
    """Builds a small model of uniform widths that keeps the units with the largest weight norms.

    Args:
        model: Base or head model without gates, with all units of its layers; it is not changed.
        target: Fraction of the original dense encoder to remove, between 0 and 1.
        measure: Measure of the target.
        stock_shape: Whether only intermediate units are removed, equally many in each layer, so that a stock class can
            express the result.

    Raises:
        ValueError: See `uniform_shape`, and `width_at_target` for a stock shape.
    """
    model = copy.deepcopy(model)
    shape = _shape_at_target(model.config, target, measure, stock_shape)
    model.attach_gates(STOCK_UNITS if stock_shape else DEFAULT_UNITS)
    num_seen: Counter[str] = Counter()
    for unit_gates in walk_gates(model):
        unit, owner = unit_gates.unit, unit_gates.owner
        assert isinstance(owner, GatedWeightMixin)
        # Gates come layer by layer.
        kept = _widths(shape.layers[num_seen[unit]], unit)
        num_seen[unit] += 1
        groups = owner.unit_norms(unit_gates.gate).chunk(len(kept))
        is_kept = torch.cat([_largest(group, count) for group, count in zip(groups, kept, strict=True)])
        unit_gates.gate.log_alpha.data = torch.where(is_kept, OPEN, CLOSED)
    return compact(model)


def uniform_shape(config: PrunableConfigMixin, target: float, measure: Measure = PARAMETERS) -> PrunedShape:
    """Computes the largest shape within the target's size with one head width, and feed-forward widths within one unit.

    Attention and feed-forward lose the same fraction of units, up to rounding of the head width. The remaining size goes to
    one more intermediate unit in each of the first layers.

    Args:
        config: Configuration of a model with all units of its layers.
        target: Fraction of the original dense encoder to remove, between 0 and 1.
        measure: Measure of the target.

    Raises:
        ValueError: If the model was pruned before, the target is out of range or is removed already, or a model with one
            unit of each kind is larger than the target's size.
    """
    dense, depth = PrunedShape.dense(config), config.num_hidden_layers
    if config.shape != dense:
        raise ValueError(
            "Uniform widths are cut out of a model with all units of its layers, and this one was pruned before. Start from "
            "the original model, or choose another method."
        )
    check_target_value(config, target, measure, 1.0, DEFAULT_UNITS)
    num_heads, head_dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    dense_size = measure.dense(config)
    max_size = (1 - target) * dense_size

    def shape_of(width: int, intermediates: list[int]) -> PrunedShape:
        attention = AttentionShape(tuple(range(num_heads)), (width,) * num_heads, (width,) * num_heads)
        return PrunedShape(dense.conv_channels, tuple(LayerShape(attention, units) for units in intermediates))

    def size_of(width: int, intermediates: list[int]) -> int:
        return measure.count(config, UnitCounts.of(shape_of(width, intermediates)))

    unit_size = size_of(1, [2] + [1] * (depth - 1)) - size_of(1, [1] * depth)
    candidates = []
    for width in range(1, head_dim + 1):
        num_units = depth + int((max_size - size_of(width, [1] * depth)) // unit_size)
        if num_units >= depth:
            num_units = min(num_units, depth * config.intermediate_size)
            candidates.append((abs(width / head_dim - num_units / depth / config.intermediate_size), width, num_units))
    if not candidates:
        raise ValueError(
            f"`{measure.option}` is {target}, but a model with one dimension per head and one intermediate unit per layer "
            f"has {size_of(1, [1] * depth):,} of {dense_size:,}, counted in {measure}. Ask for less."
        )
    _, width, num_units = min(candidates)
    intermediate, rest = divmod(num_units, depth)
    return shape_of(width, [intermediate + (layer_idx < rest) for layer_idx in range(depth)])


def _shape_at_target(config: PrunableConfigMixin, target: float, measure: Measure, stock_shape: bool) -> PrunedShape:
    """Returns the shape that a target gives, of one width in all layers if a stock class is to express it."""
    if stock_shape:
        return with_width(config.shape, width_at_target(config, target, measure))
    return uniform_shape(config, target, measure)


def _widths(shape: LayerShape, unit: str) -> tuple[int, ...]:
    """Returns the widths that the units of one kind have in a layer: one for each head, or that of the feed-forward block."""
    if unit == "int":
        return (shape.intermediate or 0,)
    if shape.attention is None:
        return ()
    return shape.attention.query_key if unit == "qk" else shape.attention.value_output


def _largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Returns whether each value is among the largest.

    Args:
        values: Values of shape (values,).
        count: Number of the largest values.
    """
    is_largest = torch.zeros(len(values), dtype=torch.bool)
    is_largest[values.topk(count).indices] = True
    return is_largest
