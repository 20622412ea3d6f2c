"""One value for every prunable unit of a model, gated or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from .gated import GatedMixin
from .gates import HardConcreteGate


# Attention blocks, their heads, query/key and value/output dimensions; feed-forward blocks and intermediate units;
# channels of the convolutions.
UNITS = ("mha", "head", "qk", "vo", "ffn", "int", "conv")
# The units of arXiv 2306.01385.
PAPER_UNITS = ("mha", "qk", "vo", "ffn", "int")
# Without its gates on whole blocks, which Adam moves as fast as one on a single unit: blocks shut early, and the loss is
# higher at the same size (benchmarks/results). A block whose units all close goes as well.
DEFAULT_UNITS = ("qk", "vo", "int")
# On whole blocks.
BLOCK_UNITS = ("mha", "ffn")


@dataclass
class LayerUnits:
    """Values of one layer's units.

    Attributes:
        mha: Of the attention block, of shape ().
        head: Of the heads that are there, of shape (heads,).
        qk: Of their query/key dimensions, one tensor a head.
        vo: Of their value/output dimensions, one tensor a head.
        ffn: Of the feed-forward block, of shape ().
        int: Of the intermediate units, of shape (intermediate,).
    """

    mha: torch.Tensor
    head: torch.Tensor
    qk: tuple[torch.Tensor, ...]
    vo: tuple[torch.Tensor, ...]
    ffn: torch.Tensor
    int: torch.Tensor


@dataclass
class UnitValues:
    """Values of a model's units.

    Attributes:
        conv: For each convolution, of its output channels.
        layers: Of the transformer layers.
    """

    conv: list[torch.Tensor]
    layers: list[LayerUnits]


def unit_values(model: PreTrainedModel, of_gate: Callable[[HardConcreteGate], torch.Tensor]) -> UnitValues:
    """Collects a value for every unit of a prunable model.

    Args:
        model: Base model or head model.
        of_gate: Gives the values of a gate, of shape (gates,). A unit without a gate counts as 1, a block that is
            gone as 0.
    """
    base = model.base_model
    device = base.device
    one, zero = torch.ones((), device=device), torch.zeros((), device=device)

    def values(module: GatedMixin | None, unit: str, count: int) -> torch.Tensor:
        if module is None or module.gates is None or unit not in module.gates:
            return torch.ones(count, device=device)
        return of_gate(module.gates[unit])

    layers = []
    for layer in base.encoder.layers:
        attention, feed_forward = layer.attention, layer.feed_forward
        shape, intermediate = attention.shape, feed_forward.intermediate or 0
        query_key, value_output = (shape.query_key, shape.value_output) if shape is not None else ((), ())
        has_feed_forward = feed_forward.intermediate is not None
        output_dense = feed_forward.output_dense if has_feed_forward else None
        layers.append(
            LayerUnits(
                mha=one * values(attention.out_proj, "mha", 1)[0] if shape is not None else zero,
                head=values(attention.out_proj, "head", len(query_key)),
                qk=values(attention.q_proj, "qk", sum(query_key)).split(query_key),
                vo=values(attention.out_proj, "vo", sum(value_output)).split(value_output),
                ffn=one * values(output_dense, "ffn", 1)[0] if has_feed_forward else zero,
                int=values(output_dense, "int", intermediate),
            )
        )
    convolutions = [layer.conv for layer in base.feature_extractor.conv_layers]
    # A channel's gate is on the convolution that reads it; nothing gates the last one.
    readers = [*convolutions[1:], None]
    conv = [values(reader, "conv", writer.out_channels) for writer, reader in zip(convolutions, readers, strict=True)]
    return UnitValues(conv, layers)
