"""The expected size of a model with gates, and how far its gates are decided."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from ..modeling.gates import HardConcreteGate
from ..modeling.size import PARAMETERS, LayerCounts, Measure, UnitCounts
from ..modeling.units import LayerUnits, unit_values


def expected_counts(model: PreTrainedModel) -> UnitCounts:
    """Expected unit counts over independent gates, as differentiable scalars.

    A head is alive with its block, its own gate and at least one of its value dimensions; its query/key dimensions
    count only then. A convolution always keeps one channel.
    """
    units = unit_values(model, HardConcreteGate.open_probability)
    layers, no_layer_has = [], {}
    for layer, module in zip(units.layers, model.base_model.encoder.layers, strict=True):
        alive = _alive_heads(layer)
        layers.append(_expected_layer(layer, alive))
        for head, probability in zip(module.attention.heads, alive, strict=True):
            no_layer_has[head] = no_layer_has.get(head, 1.0) * (1 - layer.mha * probability)
    conv = [channels.sum() + (1 - channels).prod() for channels in units.conv]
    return UnitCounts(conv, layers, sum(1 - probability for probability in no_layer_has.values()))


def _alive_heads(layer: LayerUnits) -> torch.Tensor:
    """P(a head has a value dimension and is not gated off), given that its block is there, of shape (heads,)."""
    if not layer.vo:
        return layer.head
    return layer.head * torch.stack([1 - (1 - value).prod() for value in layer.vo])


def _expected_layer(layer: LayerUnits, alive: torch.Tensor) -> LayerCounts:
    query_key, value_output = (
        torch.stack([unit.sum() for unit in units]) if units else alive for units in (layer.qk, layer.vo)
    )
    return LayerCounts(
        query_key=layer.mha * (query_key * alive).sum(),
        value_output=layer.mha * (value_output * layer.head).sum(),
        heads=layer.mha * alive.sum(),
        any_head=layer.mha * (1 - (1 - alive).prod()),
        attention=layer.mha,
        intermediate=layer.ffn * layer.int.sum(),
        any_intermediate=layer.ffn * (1 - (1 - layer.int).prod()),
        feed_forward=layer.ffn,
    )


def expected_sparsity(model: PreTrainedModel, measure: Measure = PARAMETERS) -> torch.Tensor:
    """The part of the original dense encoder that the gates remove in expectation: a differentiable scalar.

    Args:
        model: With gates.
        measure: What size is counted in; all parameters of the dense encoder by default, not only the prunable ones.
    """
    return measure.sparsity(model.config, expected_counts(model))


@torch.no_grad()
def gate_statistics(model: PreTrainedModel) -> dict[str, float]:
    """How far the gates are decided.

    Returns:
        "block_gates", the mean deterministic value of the gates on whole blocks, where there are any, and
        "fractional_gates", the share of all gates whose deterministic value is neither 0 nor 1.
    """
    masks = {name: gate.deterministic_mask() for name, gate in model.named_gates()}
    blocks = [mask for name, mask in masks.items() if name.endswith((".mha", ".ffn"))]
    everything = torch.cat(list(masks.values()))
    statistics = {"fractional_gates": ((everything > 0) & (everything < 1)).float().mean().item()}
    if blocks:
        statistics["block_gates"] = torch.cat(blocks).mean().item()
    return statistics
