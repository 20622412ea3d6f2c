"""What the gates of a small model learned, brought to the size of a larger one."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel


LAYER = re.compile(r"(?<=encoder\.layers\.)\d+")
# The kinds whose gates come head by head.
HEAD_UNITS = ("qk", "vo")


@torch.no_grad()
def scale_gates_(model: PreTrainedModel, learned: dict[str, torch.Tensor], learned_on: Any) -> None:
    """Sets the gates of a dense model to what those of a smaller one learned.

    Layers and heads take over from the one at the same part of the depth, and of the number of heads. Within a head, a
    feed-forward block or a convolution the values are sorted and interpolated to the larger number of units, so that
    the same part of them lies above any threshold.

    Args:
        model: With gates, which are set in place.
        learned: Values of log_alpha by the name of the gate, of dense gates of the same kinds.
        learned_on: Configuration of the model that they were learned on.

    Raises:
        ValueError: If a gate has no counterpart.
    """
    config = model.config
    for name, gate in model.named_gates():
        source = LAYER.sub(lambda layer: str(_counterpart(int(layer[0]), config, learned_on)), name)
        if source not in learned:
            raise ValueError(
                f"The gate {name} has no counterpart {source} among those that were learned. Give both models gates on "
                "the same units and equal numbers of convolutions."
            )
        values = learned[source].float().cpu().numpy()
        if name.endswith(HEAD_UNITS):
            num_heads = config.num_attention_heads
            heads = np.split(values, learned_on.num_attention_heads)
            scaled = np.concatenate(
                [
                    _stretch(heads[head * len(heads) // num_heads], gate.num_gates // num_heads)
                    for head in range(num_heads)
                ]
            )
        else:
            scaled = _stretch(values, gate.num_gates)
        gate.log_alpha.copy_(torch.from_numpy(scaled))


def _counterpart(layer: int, config: Any, learned_on: Any) -> int:
    return layer * learned_on.num_hidden_layers // config.num_hidden_layers


def _stretch(values: np.ndarray, count: int) -> np.ndarray:
    """The values in descending order, interpolated to so many."""
    values = np.sort(values)[::-1]
    return np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(values)), values)
