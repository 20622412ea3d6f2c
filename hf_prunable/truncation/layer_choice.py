"""Which layer to truncate a model after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from transformers.utils import logging

from .layer_profile import CRITERIA, LabelProfile, LayerProfile


Scores = TypeVar("Scores")

logger = logging.get_logger(__name__)

# Ours, as the literature names no threshold: what the last layer has in common with itself, less a tenth.
CKA_THRESHOLD = 0.9


@dataclass(frozen=True)
class LayerChoice:
    """The layers to keep.

    Attributes:
        num_layers: How many: blocks 1 to `num_layers`.
        criterion: By which, or "explicit".
        labels: The set of labels that it is for, where the criterion looks at labels.
        best_layer: The layer of the highest score, from 1 on, where the criterion has scores with standard errors.
        score: At the chosen layer.
        best_score: At the best layer.
        standard_error: At the best layer.
        ties_with_layer_0: Whether the input of the first layer is within the standard error of the best layer too, or
            above it: no layer is then known to be better than none.
    """

    num_layers: int
    criterion: str
    labels: str | None = None
    best_layer: int | None = None
    score: float | None = None
    best_score: float | None = None
    standard_error: float | None = None
    ties_with_layer_0: bool = False


def choose_layer(profile: LayerProfile, criterion: str | int = "convexity", labels: str | None = None) -> LayerChoice:
    """Chooses how many layers to keep.

    - "convexity", "probe", "neighbourhood_hit": the earliest of the layers 1 to n whose score is within one standard
      error of the highest, the standard error being that of the highest: over classes for convexity and neighbourhood
      hit, binomial for the probe.
    - "block_influence": up to the last block that changes its input at least as much as the mean block does.
    - "cka": the earliest layer whose linear CKA to the last one is at least 0.9.
    - A number: so many.

    Args:
        profile: Of the model.
        criterion: One of these names, or a number from 1 to n.
        labels: The set of labels, which may be left out where there is only one.

    Raises:
        ValueError: If the criterion is unknown or was not computed, the number is not one of 1 to n, or it is not clear
            which labels are meant.
    """
    if isinstance(criterion, int):
        if not 1 <= criterion <= profile.num_layers:
            raise ValueError(f"{criterion} layers cannot be kept; the model has layers 1 to {profile.num_layers}.")
        return LayerChoice(criterion, "explicit")
    if criterion not in CRITERIA:
        raise ValueError(
            f"There is no criterion {criterion!r}; choose one of {', '.join(CRITERIA)}, or give a number of layers from "
            f"1 to {profile.num_layers}."
        )
    if criterion == "block_influence":
        influence = np.array(_computed(profile.block_influence, criterion))
        return LayerChoice(int(np.flatnonzero(influence >= influence.mean())[-1]) + 1, criterion)
    if criterion == "cka":
        cka = np.array(_computed(profile.cka, criterion))
        chosen = int(np.flatnonzero(cka[1:] >= CKA_THRESHOLD)[0]) + 1
        return LayerChoice(chosen, criterion, score=float(cka[chosen]))
    name, label_profile = _select(profile, labels)
    scores = _computed(getattr(label_profile, criterion), criterion)
    choice = LayerChoice(
        criterion=criterion, labels=name, **earliest_within_error(scores.values, scores.standard_errors)
    )
    if choice.ties_with_layer_0:
        logger.warning(
            f"By {criterion} for the labels {name!r}, the input of the first layer ({scores.values[0]:.4f}) is as good as "
            f"the best layer, {choice.best_layer} ({choice.best_score:.4f}, standard error {choice.standard_error:.4f}): no "
            f"layer is known to serve these labels. Compare several depths before you keep {choice.num_layers}."
        )
    return choice


def earliest_within_error(values: Sequence[float], standard_errors: Sequence[float]) -> dict:
    """The one-standard-error rule over layers 1 to n.

    Args:
        values: Of the layers 0 to n.
        standard_errors: Of these values.

    Returns:
        The fields of a `LayerChoice`.
    """
    best = int(np.argmax(values[1:])) + 1
    least = values[best] - standard_errors[best]
    chosen = next(layer for layer in range(1, len(values)) if values[layer] >= least)
    return {
        "num_layers": chosen,
        "best_layer": best,
        "score": values[chosen],
        "best_score": values[best],
        "standard_error": standard_errors[best],
        "ties_with_layer_0": bool(values[0] >= least),
    }


def _select(profile: LayerProfile, labels: str | None) -> tuple[str, LabelProfile]:
    names = ", ".join(profile.labels)
    if labels is None and len(profile.labels) == 1:
        return next(iter(profile.labels.items()))
    if labels not in profile.labels:
        given = "No labels are named" if labels is None else f"There are no labels {labels!r}"
        raise ValueError(f"{given}; choose one of the sets of labels that were scored: {names or 'none'}.")
    return labels, profile.labels[labels]


def _computed(scores: Scores | None, criterion: str) -> Scores:
    if scores is None:
        raise ValueError(f"{criterion!r} was not computed. Score the layers again with it among the `criteria`.")
    return scores
