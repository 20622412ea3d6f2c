"""Initial values of gates that follow the norms of their units' weights."""

from __future__ import annotations

import math

import torch

from ..modeling.gated import GatedWeightMixin
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.units import BLOCK_UNITS, walk_gates


@torch.no_grad()
def order_gates_by_weights_(model: PrunableModelMixin, spread: float) -> None:
    """Shifts the gates of fine units by the norms of their units' weights: larger weights, more open gates.

    Gates then start in the order of magnitude pruning and learn where that order is wrong.

    Each log_alpha is shifted by `spread` times the standardised logarithm of its unit's weight norm: the logarithm less
    its mean, divided by its standard deviation, over the gates of its kind in its layer. Gates on whole blocks keep
    their values.

    Args:
        model: Base or head model with gates that have not been trained; changed in place.
        spread: Shift of log_alpha for one standard deviation, 0 or more; 0 leaves all gates equal.

    Raises:
        ValueError: If the spread is negative or not finite.
    """
    check_spread(spread)
    for unit_gates in walk_gates(model):
        gate, owner = unit_gates.gate, unit_gates.owner
        if unit_gates.unit in BLOCK_UNITS or not isinstance(owner, GatedWeightMixin):
            continue
        logs = owner.unit_norms(gate).clamp_min(torch.finfo(torch.float32).tiny).log()
        deviation = logs.std(correction=0)
        if deviation > 0:
            gate.log_alpha.add_(spread * (logs - logs.mean()) / deviation)
        gate.clamp_()


def check_spread(spread: float) -> None:
    """Checks the spread of the initial gates.

    Args:
        spread: Shift of log_alpha for one standard deviation.

    Raises:
        ValueError: If it is negative or not finite.
    """
    if not (spread >= 0 and math.isfinite(spread)):
        raise ValueError(f"`spread` is {spread}; it must be 0 or more.")
