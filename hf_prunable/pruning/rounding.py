"""Rounding of widths to multiples of a number, for which matrix kernels are fast."""

from __future__ import annotations

import copy

from .decisions import GateDecisions


def round_widths(decisions: GateDecisions, multiple: int) -> GateDecisions:
    """Rounds every gated width that is not 0 to the nearest multiple, halves up.

    These widths are each surviving head's query/key and value/output width, each feed-forward block's intermediate width
    and each convolution's channels, where their own units ("qk", "vo", "int", "conv") have gates. No width becomes less
    than one multiple or more than the model has. Units are added and removed by rank (`GateDecisions.rank_fine_units`).

    Rounding up leaves the outputs as they are, because an added unit keeps its gate's value 0. Rounding down removes
    units and changes the outputs unless their gates are 0.

    Args:
        decisions: Decisions to start from; they are not changed.
        multiple: Number that widths become multiples of, 1 or more.

    Returns:
        New decisions.

    Raises:
        ValueError: If `multiple` is not a positive integer.
    """
    if not isinstance(multiple, int) or multiple < 1:
        raise ValueError(
            f"`round_to` must be a whole number of at least 1, but is {multiple!r}. Give the multiple that widths are "
            "to be of, like 8, or None to leave them as they are."
        )
    rounded = copy.copy(decisions)
    rounded.is_open = {gate: is_open.clone() for gate, is_open in decisions.is_open.items()}
    gate_indices, unit_indices = decisions.rank_fine_units()
    best_first = {gate: unit_indices[gate_indices == index] for index, gate in enumerate(decisions.fine_gates)}
    for width in decisions.gated_widths():
        units = best_first[width.gate]
        units = units[(units >= width.start) & (units < width.stop)]
        is_open = decisions.is_open[width.gate][units]
        num_open = int(is_open.sum())
        goal = min(max((2 * num_open + multiple) // (2 * multiple), 1) * multiple, len(units))
        # The best closed units are opened, or the worst open ones closed.
        change = units[~is_open][: goal - num_open] if goal > num_open else units[is_open][goal:]
        rounded.is_open[width.gate][change] = goal > num_open
    return rounded
