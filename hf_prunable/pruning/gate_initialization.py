"""Where gates start, beyond one drop rate for all."""

from __future__ import annotations

import math

import torch
from transformers import PreTrainedModel

from ..modeling.gated import GatedMixin
from ..modeling.units import BLOCK_UNITS


@torch.no_grad()
def order_gates_by_weights_(model: PreTrainedModel, spread: float) -> None:
    """Moves the gates of fine units apart, those of large weights up and those of small weights down.

    Gates then start in the order of magnitude pruning, and learn where that order is wrong. In runs of 1,200 steps they
    ended where gates that start alike ended (benchmarks/results).

    Each log_alpha is moved by `spread` times the logarithm of its unit's weight norm, less its mean and divided by its
    standard deviation over the gates of its kind in its layer. Gates on whole blocks stay where they are.

    Args:
        model: With gates that have not learned yet.
        spread: What one standard deviation is in log_alpha; 0 leaves all gates alike.

    Raises:
        ValueError: If the spread is negative or not finite.
    """
    if not (spread >= 0 and math.isfinite(spread)):
        raise ValueError(f"`spread` is {spread}; it must be 0 or more.")
    for module in model.modules():
        if not isinstance(module, GatedMixin):
            continue
        for unit, gate in (module.gates or {}).items():
            if unit in BLOCK_UNITS:
                continue
            logs = module.unit_norms(gate).clamp_min(torch.finfo(torch.float32).tiny).log()
            deviation = logs.std(correction=0)
            if deviation > 0:
                gate.log_alpha += spread * (logs - logs.mean()) / deviation
            gate.clamp_()
