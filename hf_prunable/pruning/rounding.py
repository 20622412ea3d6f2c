"""Widths that are multiples of a number, which matrix kernels are fast at."""

from __future__ import annotations

import copy

from ..modeling.gates import HardConcreteGate
from .decisions import GateDecisions


def round_widths(decisions: GateDecisions, multiple: int) -> GateDecisions:
    """Rounds every gated width that is not 0 to the nearest multiple, halves up.

    These are each surviving head's query/key width and value width, each feed-forward block's intermediate width and
    each convolution's channels, where their own units ("qk", "vo", "int", "conv") have gates. No width goes below one
    multiple or above what there is. Units come and go by rank: log_alpha, ties by the norm of their weights.

    Rounding up leaves the outputs as they are, because a unit that was closed keeps its gate's 0. Rounding down takes
    units out: the outputs stay as they are only where the gates of those are 0, and change elsewhere.

    Args:
        decisions: Left as they are.
        multiple: At least 1.

    Returns:
        New decisions.

    Raises:
        ValueError: If `multiple` is not a positive whole number.
    """
    if not isinstance(multiple, int) or multiple < 1:
        raise ValueError(
            f"`round_to` must be a whole number of at least 1, but is {multiple!r}. Give the multiple that widths are "
            "to be of, like 8, or None to leave them as they are."
        )
    rounded = copy.copy(decisions)
    rounded.open = {gate: is_open.clone() for gate, is_open in decisions.open.items()}
    owners, numbers = decisions.rank_fine_units()
    best_first = {gate: numbers[owners == place] for place, gate in enumerate(decisions.fine)}
    for gate, start, end in _widths(decisions):
        units = best_first[gate]
        units = units[(units >= start) & (units < end)]
        is_open = decisions.open[gate][units]
        width = int(is_open.sum())
        goal = min(max((2 * width + multiple) // (2 * multiple), 1) * multiple, len(units))
        # The best closed units join, or the worst open ones leave.
        change = units[~is_open][: goal - width] if goal > width else units[is_open][goal:]
        rounded.open[gate][change] = goal > width
    return rounded


def _widths(decisions: GateDecisions) -> list[tuple[HardConcreteGate, int, int]]:
    """The gated widths that are not 0: a gate, and its numbers from one to another that make up the width."""
    cut = decisions.cut()
    # A convolution is never empty.
    widths = [(gate, 0, gate.num_gates) for gate in decisions.of_kind(("conv",))]
    layers = decisions.model.base_model.encoder.layers
    for layer, heads, intermediate in zip(layers, cut.attention, cut.intermediate, strict=True):
        attention, feed_forward = layer.attention, layer.feed_forward
        if heads is not None and heads.shape.heads:
            for unit, projection, present, kept in (
                ("qk", attention.q_proj, attention.shape.query_key, heads.shape.query_key),
                ("vo", attention.out_proj, attention.shape.value_output, heads.shape.value_output),
            ):
                if projection is None or unit not in (projection.gates or {}):
                    continue
                for position, width in zip(heads.positions.tolist(), kept, strict=True):
                    start = sum(present[:position])
                    if width:
                        widths.append((projection.gates[unit], start, start + present[position]))
        if intermediate is not None and len(intermediate) and "int" in (feed_forward.output_dense.gates or {}):
            widths.append((feed_forward.output_dense.gates["int"], 0, feed_forward.intermediate))
    return widths
