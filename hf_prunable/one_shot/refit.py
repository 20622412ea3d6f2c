"""Least-squares refit of an output layer to targets, with a ridge towards its present weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..modeling.gated import GatedLinear, OutputBias
from .statistics import NormalEquations


# Ridge as a fraction of the inputs' mean second moment.
RIDGE = 1e-3


@dataclass
class RidgeProblem:
    """Ridge regression that starts from present weights: min ||x W - y||^2 + ||R^(1/2) (W - W_present)||^2.

    The bias is not regularised.

    Attributes:
        matrix: Gram matrix plus ridge, of shape (inputs + 1, inputs + 1).
        right_side: Cross products plus ridge times present weights, of shape (inputs + 1, outputs).
    """

    matrix: torch.Tensor
    right_side: torch.Tensor

    @classmethod
    def of(
        cls, equations: NormalEquations, present: torch.Tensor, ridge: float = RIDGE, has_bias: bool = True
    ) -> RidgeProblem:
        """Builds the problem from normal equations.

        Args:
            equations: Normal equations of inputs and targets.
            present: Present weights with the bias as last row, of shape (inputs + 1, outputs), float64.
            ridge: Ridge as a fraction of the inputs' mean second moment, above 0.
            has_bias: Whether the layer has a bias; if not, the last row of every solution is 0.
        """
        matrix, right_side = equations.gram, equations.cross
        diagonal = matrix.diagonal()[:-1]
        penalty = float(ridge * diagonal.mean()) if len(diagonal) else 0.0
        # Inputs that are 0 on all clips would leave the matrix singular.
        diagonal += max(penalty, torch.finfo(torch.float64).tiny ** 0.5)
        right_side[:-1] += penalty * present[:-1]
        if not has_bias:
            matrix[-1], matrix[:, -1], matrix[-1, -1], right_side[-1] = 0, 0, 1, 0
        return cls(matrix, right_side)

    def solve(self, kept: torch.Tensor) -> torch.Tensor:
        """Solves the problem for some of the inputs; the others have the weight 0.

        Args:
            kept: Indices of the inputs, of shape (kept inputs,).

        Returns:
            Weights with the bias as last row, of shape (kept inputs + 1, outputs).
        """
        rows = torch.cat((kept, kept.new_tensor([len(self.matrix) - 1])))
        return torch.linalg.solve(self.matrix[rows][:, rows], self.right_side[rows])


def present_solution(layer: GatedLinear | OutputBias) -> torch.Tensor:
    """Returns the parameters of an output layer as a solution: weights with the bias as last row, in float64."""
    bias = layer.bias.detach().double()[None]
    return bias if layer.weight is None else torch.cat((layer.weight.detach().double().T, bias))


def write_solution_(layer: GatedLinear | OutputBias, kept: torch.Tensor, solution: torch.Tensor) -> None:
    """Writes a solution into an output layer; weights of other inputs become 0.

    Args:
        layer: Output layer.
        kept: Indices of the inputs that the solution reads, of shape (kept inputs,).
        solution: Weights with the bias as last row, of shape (kept inputs + 1, outputs).
    """
    if layer.weight is not None:
        layer.weight.data.zero_()
        layer.weight.data[:, kept] = solution[:-1].T.to(layer.weight.dtype)
    layer.bias.data.copy_(solution[-1])
