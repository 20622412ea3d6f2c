"""What speaks for a layer beside its convexity: linear probes, block influence and similarity to the last layer."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from .class_pairs import PointClasses


# scikit-learn's inverse strength.
INVERSE_REGULARISATION = 0.1
MAX_ITERATIONS = 2000
# Of the cross-validation.
FOLDS = 5
# A probe of more clips tells layers apart no better, and takes long.
MAX_PROBE_CLIPS = 5000


def linear_probe() -> Pipeline:
    """Logistic regression of standardised features, not yet fitted."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAX_ITERATIONS))


def probe_accuracy(features: np.ndarray, classes: PointClasses, seed: int = 42) -> tuple[float, float]:
    """The accuracy of a linear probe on clips that it was not fitted to, by cross-validation.

    Of more than 5,000 clips, about so many are drawn, every class keeping its share.

    Args:
        features: Of shape (clips, dimensions).
        classes: Of the clips.
        seed: Of the draw and the folds.

    Returns:
        The accuracy and its binomial standard error.
    """
    clips = _draw_by_class(classes, MAX_PROBE_CLIPS, seed)
    codes = classes.codes[clips]
    folds = StratifiedKFold(min(FOLDS, int(np.bincount(codes).min())), shuffle=True, random_state=seed)
    scores = cross_val_score(linear_probe(), features[clips], codes, cv=folds, error_score="raise")
    # Folds differ by a clip at most.
    accuracy = float(scores.mean())
    return accuracy, float(np.sqrt(accuracy * (1 - accuracy) / len(clips)))


def _draw_by_class(classes: PointClasses, max_clips: int, seed: int) -> np.ndarray:
    """Numbers of clips, ascending: all, or each class's share of the number wanted, but as many as folds if it has them."""
    num_clips = len(classes.codes)
    if num_clips <= max_clips:
        return np.arange(num_clips)
    order = np.random.default_rng(seed).permutation(num_clips)
    order = order[np.argsort(classes.codes[order], kind="stable")]
    place_in_class = np.arange(num_clips) - np.repeat(np.cumsum(classes.counts) - classes.counts, classes.counts)
    wanted = np.maximum(FOLDS, np.round(classes.counts * max_clips / num_clips))
    return np.sort(order[place_in_class < wanted[classes.codes[order]]])


def block_influence(features: np.ndarray) -> np.ndarray:
    """One minus the cosine similarity of a block's input and output, mean over clips (ShortGPT, arXiv 2403.03853).

    Args:
        features: Of shape (layers + 1, clips, dimensions).

    Returns:
        Of shape (layers,); place l is what block l + 1 changes in the output of block l.
    """
    layers = [torch.from_numpy(np.asarray(layer)) for layer in features]
    return np.array(
        [
            1 - float(torch.nn.functional.cosine_similarity(before, after, dim=1).double().mean())
            for before, after in zip(layers[:-1], layers[1:], strict=True)
        ]
    )


def linear_cka(features: np.ndarray, others: np.ndarray) -> float:
    """Linear centred kernel alignment of two sets of features of the same clips (arXiv 1905.00414, equation 5).

    Args:
        features: Of shape (clips, dimensions).
        others: Of shape (clips, other dimensions).

    Returns:
        1 where they agree but for a rotation and a factor, 0 where they have nothing linear in common.

    Raises:
        ValueError: If one of them is the same for all clips.
    """
    first, second = (values.astype(np.float64) - values.mean(0, dtype=np.float64) for values in (features, others))
    norms = np.linalg.norm(first.T @ first) * np.linalg.norm(second.T @ second)
    if norms == 0:
        raise ValueError("The features are the same for all clips, so nothing can be aligned. Give clips that differ.")
    return float(np.linalg.norm(first.T @ second) ** 2 / norms)
