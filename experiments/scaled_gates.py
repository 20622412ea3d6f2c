"""Transfer of learned gates from a small model to a larger one."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel


LAYER = re.compile(r"(?<=encoder\.layers\.)\d+")
# Kinds of units whose gates are ordered head by head.
HEAD_UNITS = ("qk", "vo")


@torch.no_grad()
def scale_gates_(model: PreTrainedModel, learned: dict[str, torch.Tensor], learned_on: Any) -> None:
    """Sets the gates of a dense model from the learned gates of a smaller model.

    A layer takes the values of the layer at the same relative depth, a head those of the head at the same relative
    position. Within a head, a feed-forward block or a convolution, values are sorted and interpolated to the larger number
    of units, so that the fraction of values above a threshold stays the same.

    Args:
        model: Dense model with gates attached; its gates are set in place.
        learned: Learned values of log_alpha by gate name, for the same kinds of units.
        learned_on: Configuration of the smaller model.

    Raises:
        ValueError: If a gate has no counterpart.
    """
    config = model.config
    for name, gate in model.named_gates():
        source = LAYER.sub(lambda layer: str(_counterpart(int(layer[0]), config, learned_on)), name)
        if source not in learned:
            raise ValueError(
                f"The gate {name} has no counterpart {source} among the learned gates. Attach gates on the same units to "
                "both models, and use equal numbers of convolutions."
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
    """Sorts values in descending order and interpolates them to `count` values."""
    values = np.sort(values)[::-1]
    return np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(values)), values)
