"""Start of gates from statistics: rotated heads, and gates in the order in which one-shot pruning would remove their units."""

from __future__ import annotations

import copy

import torch

from ..modeling.gates import HardConcreteGate
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import PARAMETERS, Measure
from ..modeling.units import walk_gates
from ..pruning.gate_initialization import check_spread
from .allocation import CheapestFirst, cheapest_first
from .config import OneShotConfig
from .head_rotation import rotate_heads_
from .one_shot_pruning import ONE_SHOT_UNITS, OneShotPruning


def rotate_gated_heads_(model: PrunableModelMixin, clips: torch.Tensor, batch_size: int = 8) -> None:
    """Rotates the heads of a model with gates that have not been trained, in place; see `rotate_heads_`.

    Args:
        model: Base or head model with gates that are all equal within a head, in float32 or float64.
        clips: Audio of shape (clips, samples), normalised as the model wants it; the same in all processes.
        batch_size: Number of clips that are computed at once, 1 or more.

    Raises:
        ValueError: As `rotate_heads_`.
    """
    rotated = _without_gates(model)
    rotate_heads_(rotated, clips, batch_size)
    _take_weights_(model, rotated)


@torch.no_grad()
def order_gates_by_one_shot_(  # noqa: PLR0913 - keywords, as those of `one_shot_prune`
    model: PrunableModelMixin,
    teacher: PrunableModelMixin | None,
    clips: torch.Tensor,
    *,
    target: float,
    measure: Measure = PARAMETERS,
    spread: float = 1.0,
    config: OneShotConfig | None = None,
) -> None:
    """Rotates the heads and shifts the gates in the order in which one-shot pruning would remove their units, in place.

    Gates that were cut to the target as they start would leave the shape that one round of one-shot pruning chooses;
    training learns where that order is wrong. Each log_alpha is shifted by `spread` times the standard normal quantile of
    its unit's place in the order over the whole model. Gates on heads and whole blocks, which statistics do not order, keep
    their values. All options but the models and the audio are keywords, hence their number.

    Args:
        model: Base or head model with gates that have not been trained, in float32.
        teacher: Base or head model whose hidden states are to be kept; `None` for those of the model without its gates.
        clips: Audio of shape (clips, samples), normalised as the model wants it; the same in all processes.
        target: Fraction of the original dense encoder to remove that the order is best for, between 0 and 1.
        measure: Measure of the target.
        spread: Shift of log_alpha for one standard deviation, 0 or more.
        config: Settings of the statistics.

    Raises:
        ValueError: If statistics order none of the gates, the models do not fit, the audio cannot serve, or the spread is
            out of range.
    """
    check_spread(spread)
    gates = orderable_gates(model)
    kinds = tuple(dict.fromkeys(unit for _, unit in gates))
    student = _without_gates(model)
    measurement = OneShotPruning(student, clips, units=kinds, teacher=teacher, config=config).curve_measurement()
    max_size = (1 - target) * measure.dense(student.config)
    order = cheapest_first(student.config, student.config.shape, measurement.estimate(), measure, max_size)
    # The order is that of the rotated heads.
    student.base_model.load_state_dict(measurement.student.state_dict())
    _take_weights_(model, student)
    quantiles = _quantiles(order)
    most_useful = max(quantile for units in quantiles.values() for quantile in units.values())
    for place, gate in gates.items():
        # Units that the order never removes, such as the last channel of a convolution, are the most useful ones.
        shift = torch.full((gate.num_gates,), most_useful)
        for unit_idx, quantile in quantiles.get(place, {}).items():
            shift[unit_idx] = quantile
        gate.log_alpha.add_(spread * shift.to(gate.log_alpha))
        gate.clamp_()


def _quantiles(order: CheapestFirst) -> dict[tuple[int, str], dict[int, float]]:
    """Returns the standard normal quantile of each unit's place in an order of removals.

    Args:
        order: Order over the whole model.

    Returns:
        Quantile by index of the unit, by index of the layer, or of the convolution, and kind of unit.
    """
    curves = order.estimate.curves
    places = (torch.arange(order.num_removals, dtype=torch.float64) + 0.5) / order.num_removals
    waiting = [iter(curve.order) for curve in curves]
    found: dict[tuple[int, str], dict[int, float]] = {(curve.layer_idx, curve.unit): {} for curve in curves}
    for quantile, curve_idx in zip(torch.special.ndtri(places).tolist(), order.curve_of_removal.tolist(), strict=True):
        curve = curves[curve_idx]
        found[curve.layer_idx, curve.unit][next(waiting[curve_idx])] = quantile
    return found


def orderable_gates(model: PrunableModelMixin) -> dict[tuple[int, str], HardConcreteGate]:
    """Returns the gates that statistics can order, by index of the layer, or of the convolution, and kind of unit.

    Args:
        model: Base or head model with gates.

    Raises:
        ValueError: If there are none.
    """
    base = model.base_model
    gates: dict[tuple[int, str], HardConcreteGate] = {}
    for conv_idx, reader in enumerate(base.feature_extractor.conv_layers, start=-1):
        gates |= {(conv_idx, found.unit): found.gate for found in walk_gates(reader)}
    for layer_idx, layer in enumerate(base.encoder.layers):
        gates |= {(layer_idx, found.unit): found.gate for found in walk_gates(layer)}
    ordered = {place: gate for place, gate in gates.items() if place[1] in ONE_SHOT_UNITS}
    if not ordered:
        found = ", ".join((model.config.gates or {}).get("units", ())) or "nothing"
        raise ValueError(
            f"The model has gates on {found}, but statistics order only {', '.join(ONE_SHOT_UNITS)}. Prune units of these "
            "kinds, or start the gates in the order of weights."
        )
    return ordered


def _without_gates(model: PrunableModelMixin) -> PrunableModelMixin:
    """Returns a copy of a model without its gates, which are not folded in."""
    copied = copy.deepcopy(model)
    copied.detach_gates()
    return copied


def _take_weights_(model: PrunableModelMixin, source: PrunableModelMixin) -> None:
    """Copies all weights of a model without gates into the same model with gates."""
    model.load_state_dict(model.state_dict() | source.state_dict())
