"""Compaction with a refit: what the removed units did is taken over by those that stay."""

from __future__ import annotations

import torch

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import MAC_SECONDS
from ..pruning.compaction import compact as compact_without_refit
from .config import OneShotConfig
from .layerwise import refit_


def compact(  # noqa: PLR0913 - public keywords, as the docstring says
    model: PrunableModelMixin,
    target_sparsity: float | None = None,
    *,
    target_macs: float | None = None,
    mac_seconds: float = MAC_SECONDS,
    round_to: int | None = None,
    stock_shape: bool = False,
    clips: torch.Tensor | None = None,
    teacher: PrunableModelMixin | None = None,
    config: OneShotConfig | None = None,
) -> PrunableModelMixin:
    """Cuts a model with gates to the small model that computes the same, and with audio, refits it to a teacher.

    Without a target, a unit stays where its gate's deterministic value is above 0, and the outputs are those of `model`
    in evaluation mode. With a target, the outputs are the same as long as no such unit has to be removed. With `clips`,
    `refit_` follows, which brings the hidden states nearer to the teacher's. All options are keywords, hence their number.

    Args:
        model: Base or head model with gates; it is not changed.
        target_sparsity: Fraction of the original dense encoder's parameters to remove, between 0 and 1.
        target_macs: Fraction of its multiply-accumulates to remove, between 0 and 1; instead of `target_sparsity`.
        mac_seconds: Length in seconds of the clip that multiply-accumulates are counted for.
        round_to: Number that gated widths are rounded to multiples of, 1 or more. Rounding follows the target, so that
            the size ends above or below it; see `round_widths` for its effect on the outputs.
        stock_shape: Whether each layer keeps the same number of intermediate units, those with the highest log_alpha, so that
            a stock class can express the result. It needs gates on "int" alone. Without a target, the number is that of the
            layer whose gates open the most.
        clips: Audio for the refit, of shape (clips, samples), normalised as the model wants it; `None` for no refit.
        teacher: Model whose hidden states the refit brings back; needed with `clips`.
        config: Settings of the refit.

    Returns:
        A model of the same class without gates.

    Raises:
        ValueError: If the model has no gates, both targets are given, the target cannot be reached, a stock class
            cannot express what the gates leave, or there is only one of `clips` and `teacher`.
    """
    if (clips is None) != (teacher is None):
        raise ValueError(
            "A refit needs both `clips` and `teacher`: the audio, and the model whose hidden states are to be kept."
        )
    small = compact_without_refit(
        model,
        target_sparsity,
        target_macs=target_macs,
        mac_seconds=mac_seconds,
        round_to=round_to,
        stock_shape=stock_shape,
    )
    if clips is not None and teacher is not None:
        refit_(small, teacher, clips, config=config)
    return small
