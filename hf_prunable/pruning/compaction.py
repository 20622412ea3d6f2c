"""Compaction: from a model with gates to a small model with the weights of the units that stay."""

from __future__ import annotations

import copy

import torch
from transformers.utils import logging

from ..modeling.loading import build_like
from ..modeling.other_libraries import check_own_layers
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import MAC_SECONDS, Measure, choose_target
from ..runtime.evaluation_mode import restored_modes
from .decisions import Cut, GateDecisions, decide_at_target
from .gate_sparsity import GateSparsity
from .rounding import round_widths
from .stock_shape import decide_one_width


logger = logging.get_logger(__name__)


@torch.no_grad()
def compact(
    model: PrunableModelMixin,
    target_sparsity: float | None = None,
    *,
    target_macs: float | None = None,
    mac_seconds: float = MAC_SECONDS,
    round_to: int | None = None,
    stock_shape: bool = False,
) -> PrunableModelMixin:
    """Cuts a model with gates to the small model that computes the same.

    Without a target, a unit stays where its gate's deterministic value is above 0, and the outputs are those of `model`
    in evaluation mode. With a target, the outputs are the same as long as no such unit has to be removed. A warning with
    both figures tells when the gates have not learned or are far from the target, see `GateSparsity`.

    Args:
        model: Base or head model with gates; it is not changed.
        target_sparsity: Fraction of the original dense encoder's parameters to remove, between 0 and 1.
        target_macs: Fraction of its multiply-accumulates to remove, between 0 and 1; instead of `target_sparsity`.
        mac_seconds: Length in seconds of the clip that multiply-accumulates are counted for.
        round_to: Number that gated widths are rounded to multiples of, 1 or more. Rounding follows the target, so that
            the size ends above or below it; see `round_widths` for its effect on the outputs.
        stock_shape: Whether each layer keeps the same number of intermediate units, so that a stock class can express the
            result; see `decide_one_width`. It needs gates on intermediate units alone.

    Returns:
        A model of the same class without gates.

    Raises:
        ValueError: If the model has no gates, or has adapters or offloaded weights, both targets are given, the target
            cannot be reached, a gate is not finite, or a stock class cannot express what the gates leave.
    """
    check_own_layers(model)
    if getattr(model.config, "gates", None) is None:
        raise ValueError("The model has no gates to decide what stays. Call `attach_gates()` and train them first.")
    target, measure = choose_target(target_sparsity, target_macs, mac_seconds)
    if stock_shape:
        decisions = decide_one_width(model, target, measure)
    else:
        decisions = GateDecisions(model) if target is None else decide_at_target(model, target, measure)
    if target is not None and (warning := GateSparsity.of(model, target, measure).warning) is not None:
        logger.warning(
            f"{warning} Train the gates up to the target: for more steps (`max_steps`), or at a higher `gate_learning_rate`."
        )
    if round_to is not None:
        decisions = _round_and_log(decisions, round_to, target, measure)
    return cut_out(model, decisions.cut())


@torch.no_grad()
def cut_out(model: PrunableModelMixin, cut: Cut) -> PrunableModelMixin:
    """Builds the small model of the units that stay, with deterministic gates folded in.

    Args:
        model: Base or head model, with or without gates; it is not changed.
        cut: What stays of it.

    Returns:
        A model of the same class without gates.
    """
    config = copy.deepcopy(model.config)
    config.gates = None
    config.pruned_shape = None if cut.shape.is_dense(config) else cut.shape.to_dict()
    with restored_modes([model]):
        state = _cut_state_dict(model.eval(), cut)
    return build_like(model, config, state)


def _round_and_log(decisions: GateDecisions, round_to: int, target: float | None, measure: Measure) -> GateDecisions:
    """Rounds the widths and logs the sparsity that was asked for and the one that is reached."""
    rounded = round_widths(decisions, round_to)
    asked = "" if target is None else f" {target:.4f} was asked for."
    logger.warning(
        f"Widths are rounded to multiples of {round_to}, which takes the sparsity in {measure} from "
        f"{decisions.sparsity(measure):.4f} to {rounded.sparsity(measure):.4f}.{asked}"
    )
    return rounded


def _cut_state_dict(model: PrunableModelMixin, cut: Cut) -> dict[str, torch.Tensor]:
    """Returns the state dict of the small model; its tensors share no memory with the model's."""
    base = model.base_model
    parts = {"feature_extractor": base.feature_extractor.cut(cut.conv)}
    bias_columns = base.config.shape.position_bias_columns(cut.shape.position_bias_heads)
    for layer_idx, (layer, kept) in enumerate(zip(base.encoder.layers, cut.layers, strict=True)):
        parts[f"encoder.layers.{layer_idx}"] = layer.cut(kept, bias_columns)
    prefix = "" if base is model else f"{model.base_model_prefix}."
    replaced = tuple(f"{prefix}{name}." for name in parts)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(replaced)}
    for name, parameters in parts.items():
        state |= {f"{prefix}{name}.{key}": tensor for key, tensor in parameters.items()}
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
