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
    problem: RidgeProblem,
    group_sizes: Sequence[int],
    group_kept: Sequence[int],
    batch_size: int = 1,
    columns_per_input: int = 1,
) -> Elimination:
    """Removes inputs one by one, each time the one whose removal costs least when the other weights are refitted.

    With P the inverse of the regularised Gram matrix, W the optimal weights and j the columns of an input, its removal
    costs tr(W_j^T P_jj^-1 W_j); then W -= P_:j P_jj^-1 W_j and P -= P_:j P_jj^-1 P_j:.

    Args:
        problem: Regression of the layer's targets on its inputs.
        group_sizes: Numbers of neighbouring inputs that form a group, such as the dimensions of a head; they add up to
            the number of inputs.
        group_kept: Number of inputs that stay in each group.
        batch_size: Number of inputs that are removed at once, 1 or more. Above 1, scores are not updated within a batch,
            but the error of a batch and the weights after it are exact.
        columns_per_input: Number of neighbouring columns that an input has, such as the taps of a channel.
    """
    if sum(group_kept) == sum(group_sizes):
        return Elimination([], [])
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(problem.matrix))
    weights = inverse @ problem.right_side
    device, width, num_outputs = inverse.device, columns_per_input, weights.shape[1]
    sizes, kept = (torch.tensor(values, dtype=torch.long, device=device) for values in (group_sizes, group_kept))
    surplus = sizes - kept
    group_of = torch.repeat_interleave(torch.arange(len(sizes), device=device), sizes)
    # Inputs at the present positions, and which of them are left; the constant, which stays, is the last column.
    inputs = torch.arange(len(group_of), device=device)
    is_left = torch.ones(len(group_of), dtype=torch.bool, device=device)
    removed: list[int] = []
    increments: list[float] = []
    while (num_removable := int(surplus.sum())) > 0:
        scores = _removal_scores(weights[:-1], inverse[:-1, :-1], width)
        scores[~is_left | (surplus[group_of] == 0)] = torch.inf
        batch = scores.topk(min(batch_size, num_removable), largest=False, sorted=True).indices
        batch = _within_surplus(batch, group_of, surplus)
        columns = (batch[:, None] * width + torch.arange(width, device=device)).flatten()
        column = inverse[:, columns]
        correction = torch.linalg.solve(column[columns], torch.cat((weights[columns], inverse[columns]), dim=1))
        growth = float((weights[columns] * correction[:, :num_outputs]).sum())
        total = scores[batch].sum()
        increments += (growth * scores[batch] / total if total > 0 else scores[batch]).tolist()
        removed += inputs[batch].tolist()
        surplus -= torch.bincount(group_of[batch], minlength=len(surplus))
        is_left[batch] = False
        weights.addmm_(column, correction[:, :num_outputs], alpha=-1)
        inverse.addmm_(column, correction[:, num_outputs:], alpha=-1)
        if 2 * int(is_left.sum()) >= len(is_left):
            # Rows and columns of removed inputs are 0 up to rounding; their blocks must stay invertible.
            inverse[columns, columns] = 1
            continue
        # Copies of large matrices take longer than updates: one when half of the inputs are gone.
        rows = torch.cat((is_left.repeat_interleave(width), is_left.new_ones(1)))
        weights, inverse = weights[rows], inverse[rows][:, rows]
        inputs, group_of, is_left = inputs[is_left], group_of[is_left], is_left[is_left]
    return Elimination(removed, increments)


def _removal_scores(weights: torch.Tensor, inverse: torch.Tensor, width: int) -> torch.Tensor:
    """Returns what the removal of each input alone costs, from weights and inverse without the constant."""
    if width == 1:
        return weights.square().sum(1) / inverse.diagonal()
    num_inputs = len(weights) // width
    blocks = inverse.unflatten(1, (num_inputs, width)).unflatten(0, (num_inputs, width)).diagonal(dim1=0, dim2=2)
    weights = weights.unflatten(0, (num_inputs, width))
    # The inverse of small blocks is fast; solving for each of them with all outputs as right sides is not.
    return (weights * (torch.linalg.inv(blocks.permute(2, 0, 1)) @ weights)).sum((1, 2))


def _within_surplus(batch: torch.Tensor, group_of: torch.Tensor, surplus: torch.Tensor) -> torch.Tensor:
    """Returns the part of a batch, best first, that leaves no group with fewer inputs than it is to keep."""
    groups = group_of[batch]
    rank_in_group = (groups[:, None] == groups[None]).tril(-1).sum(1)
    return batch[rank_in_group < surplus[groups]]
