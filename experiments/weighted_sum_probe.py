"""Linear classifier on a learned weighted sum of pooled hidden states, as in SUPERB (arXiv 2105.01051)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy


LBFGS_STEPS = 100


@dataclass(frozen=True)
class WeightedSumProbe:
    """A trained classifier of clips.

    Attributes:
        classes: Class names, sorted.
        mean: Mean of the training features, of shape (hidden states, hidden size).
        deviation: Standard deviation of the training features, of the same shape.
        layer_logits: Weights of the hidden states before the softmax, of shape (hidden states,).
        weight: Weights of the classes, of shape (classes, hidden size).
        bias: Bias of the classes, of shape (classes,).
    """

    classes: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    layer_logits: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def fit(cls, features: np.ndarray, labels: Sequence[str], regularisation: float) -> WeightedSumProbe:
        """Trains a classifier.

        Hidden states are standardized; their weights are a softmax. L-BFGS minimizes cross-entropy plus an L2 penalty on
        all clips, starting from zeros, so the result is deterministic.

        Args:
            features: Features of shape (clips, hidden states, hidden size).
            labels: Class name of each clip.
            regularisation: Weight of the L2 penalty, 0 or more.
        """
        classes, targets = np.unique(np.asarray(labels), return_inverse=True)
        mean, deviation = features.mean(0), np.maximum(features.std(0), 1e-6)
        inputs = _standardized(features, mean, deviation)
        sizes = ((inputs.shape[0],), (len(classes), inputs.shape[2]), (len(classes),))
        parameters = [torch.zeros(size, requires_grad=True) for size in sizes]
        optimizer = torch.optim.LBFGS(parameters, max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            # The penalty includes the layer logits; without it, the softmax collapses onto one hidden state.
            penalty = sum(parameter.square().sum() for parameter in parameters[:2])
            loss = cross_entropy(_scores(inputs, *parameters), torch.from_numpy(targets))
            loss = loss + regularisation / 2 * penalty
            loss.backward()
            return loss

        optimizer.step(closure)
        return cls(classes, mean, deviation, *(parameter.detach() for parameter in parameters))

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Classifies clips.

        Args:
            features: Features of shape (clips, hidden states, hidden size).

        Returns:
            Class name of each clip, of shape (clips,).
        """
        inputs = _standardized(features, self.mean, self.deviation)
        return self.classes[_scores(inputs, self.layer_logits, self.weight, self.bias).argmax(1).numpy()]


def _standardized(features: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> torch.Tensor:
    """Hidden states come first in the result, so that their weighted sum is a vector-matrix product."""
    return torch.from_numpy(((features - mean) / deviation).astype(np.float32)).transpose(0, 1).contiguous()


def _scores(
    inputs: torch.Tensor, layer_logits: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    weighted = layer_logits.softmax(0) @ inputs.flatten(1)
    return weighted.view(inputs.shape[1:]) @ weight.T + bias
