"""The expected size of a model with gates, and statistics of how far its gates are decided."""

from __future__ import annotations

import torch

from ..modeling.gates import HardConcreteGate, check_gates
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import PARAMETERS, Count, LayerCounts, Measure, UnitCounts
from ..modeling.units import BLOCK_UNITS, AttentionUnits, FeedForwardUnits, walk_gates


def expected_counts(model: PrunableModelMixin) -> UnitCounts:
    """Returns the expected unit counts over independent gates, as differentiable scalars.

    A head is alive if its block, its own gate and at least one of its value/output dimensions are open. Its query/key
    dimensions count only then. A convolution keeps at least one channel.

    Args:
        model: Base or head model with gates.
    """
    base = model.base_model
    layers: list[LayerCounts] = []
    # P(no layer has the head), by head.
    no_layer_has: dict[int, Count] = {}
    for layer in base.encoder.layers:
        attention, feed_forward = layer.units(HardConcreteGate.open_probability)
        counts: dict[str, Count] = {}
        if attention is not None:
            alive = _alive_heads(attention)
            counts |= _attention_counts(attention, alive)
            for head, probability in zip(layer.attention.heads, alive, strict=True):
                no_layer_has[head] = no_layer_has.get(head, 1.0) * (1 - attention.block * probability)
        if feed_forward is not None:
            counts |= _feed_forward_counts(feed_forward)
        layers.append(LayerCounts(**counts))
    channels = base.feature_extractor.units(HardConcreteGate.open_probability)
    conv = [open_channels.sum() + (1 - open_channels).prod() for open_channels in channels]
    return UnitCounts(conv, layers, sum(1 - probability for probability in no_layer_has.values()))


def _alive_heads(units: AttentionUnits) -> torch.Tensor:
    """Returns P(the head is open and has a value/output dimension | its block is open), of shape (heads,)."""
    if not units.value_output:
        return units.head
    return units.head * torch.stack([1 - (1 - dims).prod() for dims in units.value_output])


def _attention_counts(units: AttentionUnits, alive: torch.Tensor) -> dict[str, Count]:
    query_key, value_output = (
        torch.stack([dims.sum() for dims in of_heads]) if of_heads else alive
        for of_heads in (units.query_key, units.value_output)
    )
    return {
        "query_key": units.block * (query_key * alive).sum(),
        "value_output": units.block * (value_output * units.head).sum(),
        "heads": units.block * alive.sum(),
        "any_head": units.block * (1 - (1 - alive).prod()),
        "attention": units.block,
    }


def _feed_forward_counts(units: FeedForwardUnits) -> dict[str, Count]:
    return {
        "intermediate": units.block * units.intermediate.sum(),
        "any_intermediate": units.block * (1 - (1 - units.intermediate).prod()),
        "feed_forward": units.block,
    }


def expected_sparsity(model: PrunableModelMixin, measure: Measure = PARAMETERS) -> torch.Tensor:
    """Returns the expected fraction of the original dense encoder that the gates remove, as a differentiable scalar.

    Args:
        model: Base or head model with gates.
        measure: Measure of the size; by default all parameters of the encoder, prunable or not.

    Raises:
        ValueError: If a gate is not finite.
    """
    check_gates(model.named_gates())
    return measure.sparsity(model.config, expected_counts(model))


@torch.no_grad()
def gate_statistics(model: PrunableModelMixin) -> dict[str, float]:
    """Returns how far the gates are decided.

    Args:
        model: Base or head model with gates.

    Returns:
        "fractional_gates", the fraction of all gates whose deterministic value is neither 0 nor 1; and, if there are
        gates on whole blocks, "block_gates", their mean deterministic value.

    Raises:
        ValueError: If a gate is not finite.
    """
    check_gates(model.named_gates())
    masks, block_masks = [], []
    for unit_gates in walk_gates(model):
        mask = unit_gates.gate.deterministic_mask()
        masks.append(mask)
        if unit_gates.unit in BLOCK_UNITS:
            block_masks.append(mask)
    values = torch.cat(masks)
    statistics = {"fractional_gates": ((values > 0) & (values < 1)).float().mean().item()}
    if block_masks:
        statistics["block_gates"] = torch.cat(block_masks).mean().item()
    return statistics
