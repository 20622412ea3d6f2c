"""Selection of a linear layer's inputs by structured optimal brain surgeon (OBS).

Formulas: Hassibi and Stork 1993; for whole inputs of a layer Kurtic et al. 2023 (ZipLM, arXiv 2302.04089).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .refit import RidgeProblem


def batch_size(num_inputs: int, fraction: float) -> int:
    """Returns the number of inputs that are removed at once, 1 or more.

    Args:
        num_inputs: Number of inputs of the layer.
        fraction: Fraction of them.
    """
    return max(1, round(num_inputs * fraction))


@dataclass
class Elimination:
    """Order in which inputs were removed.

    Attributes:
        removed: Indices of the removed inputs, the least useful first.
        increments: Growth of the squared error by each removal, with the weights of the others refitted, of shape (removed
            inputs,).
    """

    removed: list[int]
    increments: list[float]

    def kept(self, num_inputs: int) -> torch.Tensor:
        """Returns the indices of the inputs that stay, ascending.

        Args:
            num_inputs: Number of inputs before the removal.
        """
        is_kept = torch.ones(num_inputs, dtype=torch.bool)
        is_kept[self.removed] = False
        return is_kept.nonzero().squeeze(1)


def eliminate(
    problem: RidgeProblem, group_sizes: Sequence[int], group_kept: Sequence[int], batch_size: int = 1
) -> Elimination:
    """Removes inputs one by one, each time the one whose removal costs least when the other weights are refitted.

    With P the inverse of the regularised Gram matrix and W the optimal weights, removing input j costs ||W_j||^2 / P_jj;
    then W -= P_:j W_j / P_jj and P -= P_:j P_j: / P_jj.

    Args:
        problem: Regression of the layer's targets on its inputs.
        group_sizes: Numbers of neighbouring inputs that form a group, such as the dimensions of a head; they add up to
            the number of inputs.
        group_kept: Number of inputs that stay in each group.
        batch_size: Number of inputs that are removed at once, 1 or more. Above 1, scores are not updated within a batch,
            but the error of a batch and the weights after it are exact.
    """
    if sum(group_kept) == sum(group_sizes):
        return Elimination([], [])
    inverse = torch.linalg.inv(problem.matrix)
    weights = inverse @ problem.right_side
    num_inputs = len(inverse) - 1
    # The inputs that are left, with the constant, which is never removed, at the end.
    left = torch.arange(num_inputs + 1, device=inverse.device)
    sizes, kept = (
        torch.tensor(values, dtype=torch.long, device=inverse.device) for values in (group_sizes, group_kept)
    )
    group_of = torch.repeat_interleave(torch.arange(len(sizes), device=inverse.device), sizes)
    surplus = sizes - kept
    removed: list[int] = []
    increments: list[float] = []
    while (num_removable := int(surplus.sum())) > 0:
        scores = weights[:-1].square().sum(1) / inverse.diagonal()[:-1]
        scores[surplus[group_of] == 0] = torch.inf
        batch = scores.topk(min(batch_size, num_removable), largest=False, sorted=True).indices
        batch = _within_surplus(batch, group_of, surplus)
        block, batch_weights = inverse[batch][:, batch], weights[batch]
        correction = torch.linalg.solve(block, torch.cat((batch_weights, inverse[batch]), dim=1))
        growth = float((batch_weights * correction[:, : weights.shape[1]]).sum())
        shares = scores[batch] / scores[batch].sum() if float(scores[batch].sum()) > 0 else scores[batch]
        removed += left[batch].tolist()
        increments += (growth * shares).tolist()
        surplus -= torch.bincount(group_of[batch], minlength=len(surplus))
        stays = torch.ones(len(inverse), dtype=torch.bool, device=inverse.device)
        stays[batch] = False
        column = inverse[stays][:, batch]
        weights = weights[stays] - column @ correction[:, : weights.shape[1]]
        inverse = inverse[stays][:, stays] - column @ correction[:, weights.shape[1] :][:, stays]
        left, group_of = left[stays], group_of[stays[:-1]]
    return Elimination(removed, increments)


def _within_surplus(batch: torch.Tensor, group_of: torch.Tensor, surplus: torch.Tensor) -> torch.Tensor:
    """Returns the part of a batch, best first, that leaves no group with fewer inputs than it is to keep."""
    groups = group_of[batch]
    rank_in_group = (groups[:, None] == groups[None]).tril(-1).sum(1)
    return batch[rank_in_group < surplus[groups]]
