"""From gates to a small model: the weights that go with the units that stay."""

from __future__ import annotations

import copy

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from ..modeling.loading import build_like
from ..modeling.size import MAC_SECONDS, Measure, choose_target
from .decisions import Cut, GateDecisions, decide_at_target
from .rounding import round_widths


logger = logging.get_logger(__name__)


@torch.no_grad()
def compact(
    model: PreTrainedModel,
    target_sparsity: float | None = None,
    *,
    target_macs: float | None = None,
    mac_seconds: float = MAC_SECONDS,
    round_to: int | None = None,
) -> PreTrainedModel:
    """Cuts a model with gates to the small model that computes the same.

    Without a target, a unit stays where its gate's deterministic value is above 0, and the outputs are those of
    `model` in evaluation mode. With a target they still are, as long as no such unit has to go.

    Args:
        model: Base or head model with gates.
        target_sparsity: The part of the original dense encoder's parameters to remove.
        target_macs: The part of its multiply-accumulates to remove, for one clip; instead of `target_sparsity`.
        mac_seconds: The clip's length in seconds.
        round_to: Rounds each gated width to the nearest multiple of this number. That comes after the target, so the
            size ends up beside it, above or below. A width that is rounded up changes no output, one that is rounded
            down may: see `round_widths`.

    Returns:
        A model of the same class without gates.

    Raises:
        ValueError: If the model has no gates, both targets are given, or the target cannot be reached.
    """
    if model.config.gates is None:
        raise ValueError("The model has no gates to decide what stays. Call `attach_gates()` and train them first.")
    target, measure = choose_target(target_sparsity, target_macs, mac_seconds)
    decisions = GateDecisions(model) if target is None else decide_at_target(model, target, measure)
    if round_to is not None:
        decisions = _round_and_tell(decisions, round_to, target, measure)
    cut = decisions.cut()
    config = copy.deepcopy(model.config)
    config.gates = None
    config.pruned_shape = None if cut.shape.is_dense(config) else cut.shape.to_dict()
    modes = {module: module.training for module in model.modules()}
    try:
        state = _cut_state(model.eval(), cut)
    finally:
        # One by one: a frozen batch norm, for one, stays in evaluation mode while the model trains.
        for module, mode in modes.items():
            module.training = mode
    return build_like(model, config, state)


def _round_and_tell(decisions: GateDecisions, round_to: int, target: float | None, measure: Measure) -> GateDecisions:
    """Rounds the widths, and names the sparsity that was asked for and that is reached."""
    rounded = round_widths(decisions, round_to)
    asked = "" if target is None else f" {target:.4f} was asked for."
    logger.warning(
        f"Widths are rounded to multiples of {round_to}, which takes the sparsity in {measure} from "
        f"{decisions.sparsity(measure):.4f} to {rounded.sparsity(measure):.4f}.{asked}"
    )
    return rounded


def _cut_state(model: PreTrainedModel, cut: Cut) -> dict[str, torch.Tensor]:
    """The state dict of the small model, of tensors of its own."""
    base = model.base_model
    parts = {"feature_extractor": base.feature_extractor.cut(cut.conv)}
    old_heads, new_heads = base.config.shape.position_bias_heads, cut.shape.position_bias_heads
    bias_columns = torch.tensor([old_heads.index(head) for head in new_heads], dtype=torch.long)
    for number, layer in enumerate(base.encoder.layers):
        name = f"encoder.layers.{number}"
        parts[f"{name}.attention"] = layer.attention.cut(cut.attention[number], bias_columns)
        parts[f"{name}.feed_forward"] = layer.feed_forward.cut(cut.intermediate[number])
        if layer.pre_norm and not cut.shape.layers[number].heads:
            parts[f"{name}.layer_norm"] = {}
        if layer.pre_norm and not cut.shape.layers[number].intermediate:
            parts[f"{name}.final_layer_norm"] = {}
    prefix = "" if base is model else f"{model.base_model_prefix}."
    replaced = tuple(f"{prefix}{name}." for name in parts)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(replaced)}
    for name, parameters in parts.items():
        state |= {f"{prefix}{name}.{key}": tensor for key, tensor in parameters.items()}
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
