"""Criteria for layers beside graph convexity: linear probes, block influence and similarity to the last layer."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from .class_pairs import PointClasses


# Inverse strength of the L2 penalty, `C` in scikit-learn.
INVERSE_REGULARISATION = 0.1
MAX_ITERATIONS = 2000
# Number of folds of the cross-validation; fewer if a class has fewer clips.
FOLDS = 5
# Maximum number of clips that a probe is fitted to and tested on, to bound its time.
MAX_PROBE_CLIPS = 5000


def linear_probe() -> Pipeline:
    """Unfitted logistic regression on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAX_ITERATIONS))


def probe_accuracy(features: np.ndarray, classes: PointClasses, seed: int) -> tuple[float, float]:
    """Computes the accuracy of a linear probe by stratified cross-validation.

    Of more than 5,000 clips, a sample of about 5,000 is used, stratified by class.

    Args:
        features: Feature vectors of shape (clips, dimensions).
        classes: Classes of the clips.
        seed: Random seed of the sample and the folds.

    Returns:
        Accuracy from 0 to 1, the mean over folds, and its binomial standard error.
    """
    clips = _sample_by_class(classes, MAX_PROBE_CLIPS, seed)
    codes = classes.codes[clips]
    folds = StratifiedKFold(min(FOLDS, int(np.bincount(codes).min())), shuffle=True, random_state=seed)
    scores = cross_val_score(linear_probe(), features[clips], codes, cv=folds, error_score="raise")
    # Folds differ in size by one clip at most, so that their plain mean is the accuracy over clips to rounding.
    accuracy = float(scores.mean())
    return accuracy, float(np.sqrt(accuracy * (1 - accuracy) / len(clips)))


def _sample_by_class(classes: PointClasses, max_clips: int, seed: int) -> np.ndarray:
    """Samples clips in proportion to class sizes, but at least `FOLDS` of each class that has them.

    Args:
        classes: Classes of the clips.
        max_clips: Number of clips to sample, up to rounding; all clips are taken if there are no more.
        seed: Random seed of the sample.

    Returns:
        Clip indices in ascending order.
    """
    num_clips = len(classes.codes)
    if num_clips <= max_clips:
        return np.arange(num_clips)
    order = np.random.default_rng(seed).permutation(num_clips)
    order = order[np.argsort(classes.codes[order], kind="stable")]
    rank_in_class = np.arange(num_clips) - np.repeat(np.cumsum(classes.counts) - classes.counts, classes.counts)
    wanted = np.maximum(FOLDS, np.round(classes.counts * max_clips / num_clips))
    return np.sort(order[rank_in_class < wanted[classes.codes[order]]])


def block_influence(features: np.ndarray) -> np.ndarray:
    """Computes 1 minus the cosine similarity of each layer's input and output, averaged over clips (arXiv 2403.03853).

    Args:
        features: Feature vectors of shape (layers + 1, clips, dimensions); index 0 is the input of the first layer.

    Returns:
        Influence of each layer from 0 to 2, of shape (layers,); index 0 is that of the first layer.
    """
    layers = [torch.from_numpy(np.asarray(layer)) for layer in features]
    return np.array(
        [
            1 - float(torch.nn.functional.cosine_similarity(before, after, dim=1).double().mean())
            for before, after in zip(layers[:-1], layers[1:], strict=True)
        ]
    )


def linear_cka(features: np.ndarray, others: np.ndarray) -> float:
    """Computes the linear centred kernel alignment (CKA) of two feature matrices (arXiv 1905.00414, section 3).

    Args:
        features: Feature vectors of shape (clips, dimensions).
        others: Other feature vectors of the same clips, of shape (clips, other dimensions).

    Returns:
        Similarity from 0 to 1: 1 if the matrices are equal up to rotation, scale and offset, 0 if they are
        uncorrelated.

    Raises:
        ValueError: If one of the matrices has the same vector for all clips.
    """
    first, second = (values.astype(np.float64) - values.mean(0, dtype=np.float64) for values in (features, others))
    norms = np.linalg.norm(first.T @ first) * np.linalg.norm(second.T @ second)
    if norms == 0:
        raise ValueError(
            "The features are the same for all clips, so their alignment is undefined. Give clips that differ."
        )
    return float(np.linalg.norm(first.T @ second) ** 2 / norms)
