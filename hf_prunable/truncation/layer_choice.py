"""The choice of the layer to truncate a model after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from transformers.utils import logging

from .convexity_config import CRITERIA
from .layer_profile import LabelProfile, LayerProfile, LayerScores


logger = logging.get_logger(__name__)

# Our choice: arXiv 1905.00414 names no threshold.
CKA_THRESHOLD = 0.9


@dataclass(frozen=True)
class LayerChoice:
    """The number of layers to keep, and why.

    Attributes:
        num_layers: Number of layers to keep: layers 1 to `num_layers`.
        criterion: Name of the criterion, or "explicit" for a given number.
        labels: Name of the set of labels, for criteria that use labels.
        best_layer: Layer 1 to n of the highest score, for criteria that use labels.
        score: Score of layer `num_layers`; also set for "cka".
        best_score: Score of `best_layer`.
        standard_error: Standard error of `best_score`.
        ties_with_layer_0: Whether the input of the first layer scores at least `best_score - standard_error`: then no
            layer is known to be better than none.
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
    """Chooses how many layers of a model to keep.

    - "convexity", "probe", "neighbourhood_hit": the first of the layers 1 to n whose score is at least the highest
      score minus its standard error (over classes; binomial for the probe). arXiv 2408.11858 truncates after the peak
      of convexity; the tolerance of one standard error is our choice.
    - "block_influence": up to the last layer whose influence is at least the mean over layers.
    - "cka": the first layer whose linear CKA with the last layer is at least 0.9.
    - an integer: this number of layers.

    Args:
        profile: Scores of the model's layers.
        criterion: One of the names above, or a number of layers from 1 to n.
        labels: Name of the set of labels in `profile.labels`; may be left out if there is one set only.

    Raises:
        ValueError: If the criterion is unknown or was not computed, the number is not in 1 to n, or `labels` is
            missing or unknown.
    """
    if isinstance(criterion, int):
        check_num_layers(criterion, profile.num_layers)
        return LayerChoice(criterion, "explicit")
    if criterion not in CRITERIA:
        raise ValueError(
            f"There is no criterion {criterion!r}; choose one of {', '.join(CRITERIA)}, or give a number of layers "
            f"from 1 to {profile.num_layers}."
        )
    if criterion == "block_influence":
        return _choose_by_block_influence(profile)
    if criterion == "cka":
        return _choose_by_cka(profile)
    return _choose_by_labels(profile, criterion, labels)


def check_num_layers(num_layers: int, num_model_layers: int) -> None:
    """Checks a number of layers to keep.

    Args:
        num_layers: Number of layers to keep.
        num_model_layers: Number of layers of the model.

    Raises:
        ValueError: If the model does not have so many layers, or none is to be kept.
    """
    if not 1 <= num_layers <= num_model_layers:
        raise ValueError(f"{num_layers} layers cannot be kept; the model has layers 1 to {num_model_layers}.")


def _choose_by_block_influence(profile: LayerProfile) -> LayerChoice:
    if profile.block_influence is None:
        raise _not_computed("block_influence")
    influence = np.array(profile.block_influence)
    return LayerChoice(int(np.flatnonzero(influence >= influence.mean())[-1]) + 1, "block_influence")


def _choose_by_cka(profile: LayerProfile) -> LayerChoice:
    if profile.cka is None:
        raise _not_computed("cka")
    # The last layer has a CKA of 1 with itself, so that one layer is always found.
    chosen = next(layer for layer in range(1, len(profile.cka)) if profile.cka[layer] >= CKA_THRESHOLD)
    return LayerChoice(chosen, "cka", score=profile.cka[chosen])


def _choose_by_labels(profile: LayerProfile, criterion: str, labels: str | None) -> LayerChoice:
    name, label_profile = _select_labels(profile, labels)
    scores: LayerScores | None = getattr(label_profile, criterion)
    if scores is None:
        raise _not_computed(criterion)
    choice = earliest_within_error(scores, criterion, name)
    if choice.ties_with_layer_0:
        logger.warning(
            f"By {criterion} for the labels {name!r}, the input of the first layer ({scores.values[0]:.4f}) is as "
            f"good as the best layer, {choice.best_layer} ({choice.best_score:.4f}, standard error "
            f"{choice.standard_error:.4f}): the scores do not show that any layer helps. Compare several depths "
            f"before you keep {choice.num_layers}."
        )
    return choice


def earliest_within_error(scores: LayerScores, criterion: str, labels: str) -> LayerChoice:
    """Chooses the first layer whose score is at least the highest score minus its standard error.

    Args:
        scores: Scores of the hidden states 0 to n; layer 0 is not chosen.
        criterion: Name of the criterion, for the result.
        labels: Name of the set of labels, for the result.
    """
    values = scores.values
    best = int(np.argmax(values[1:])) + 1
    least = values[best] - scores.standard_errors[best]
    chosen = next(layer for layer in range(1, len(values)) if values[layer] >= least)
    return LayerChoice(
        num_layers=chosen,
        criterion=criterion,
        labels=labels,
        best_layer=best,
        score=values[chosen],
        best_score=values[best],
        standard_error=scores.standard_errors[best],
        ties_with_layer_0=values[0] >= least,
    )


def _select_labels(profile: LayerProfile, labels: str | None) -> tuple[str, LabelProfile]:
    if labels is None and len(profile.labels) == 1:
        return next(iter(profile.labels.items()))
    if labels is None or labels not in profile.labels:
        given = "No labels are named" if labels is None else f"There are no labels {labels!r}"
        names = ", ".join(profile.labels) or "none"
        raise ValueError(f"{given}; choose one of the sets of labels that were scored: {names}.")
    return labels, profile.labels[labels]


def _not_computed(criterion: str) -> ValueError:
    return ValueError(f"{criterion!r} was not computed. Score the layers again with it among the `criteria`.")
