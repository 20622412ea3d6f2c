"""Second moments of a linear layer's inputs and targets, from which it is pruned and refitted without the audio."""

from __future__ import annotations

import torch
import torch.distributed as dist

from ..modeling.gated import GatedLinear, OutputBias
from ..modeling.pretrained import PrunableModelMixin


# Rows of the Gram matrix that are computed at once. Of the others, what lies below the diagonal is left out.
BLOCK_ROWS = 256


def sum_over_processes_(tensor: torch.Tensor) -> torch.Tensor:
    """Adds up a tensor over the processes of a distributed run, in place; alone, leaves it as it is.

    Args:
        tensor: Tensor of the same shape in all processes.
    """
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


class NormalEquations:
    """Normal equations of the regression of targets on inputs and a constant, in float64.

    Their size depends on the numbers of inputs and outputs alone, not on the number of rows that were added.

    Args:
        num_inputs: Number of inputs, 0 or more.
        num_outputs: Number of outputs.
        device: Device of the rows that will be added.

    Attributes:
        gram: Mean products of inputs with a constant 1 appended, of shape (inputs + 1, inputs + 1).
        cross: Mean products of these inputs and the targets, of shape (inputs + 1, outputs).
    """

    def __init__(self, num_inputs: int, num_outputs: int, device: torch.device):
        # Right of the diagonal; it is symmetric.
        self._gram = torch.zeros(num_inputs + 1, num_inputs + 1, dtype=torch.float64, device=device)
        self._cross = torch.zeros(num_inputs + 1, num_outputs, dtype=torch.float64, device=device)
        self._num_rows = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Adds rows.

        Args:
            inputs: Inputs of the layer, of shape (..., inputs).
            targets: Wanted outputs, of shape (..., outputs).
        """
        inputs, targets = inputs.flatten(0, -2).double(), targets.flatten(0, -2).double()
        inputs = torch.cat((inputs, inputs.new_ones(len(inputs), 1)), dim=1)
        for start in range(0, len(self._gram), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            self._gram[rows, start:].addmm_(inputs[:, rows].T, inputs[:, start:])
        self._cross.addmm_(inputs.T, targets)
        self._num_rows += len(inputs)

    def reduce_(self) -> NormalEquations:
        """Adds up the sums of all processes of a distributed run, and returns the object."""
        for sums in (self._gram, self._cross, self._num_rows):
            sum_over_processes_(sums)
        return self

    def transform_(self, change: torch.Tensor) -> None:
        """Changes the basis of the inputs.

        Args:
            change: Matrix M of the new inputs x M, of shape (inputs, inputs).
        """
        gram = self._whole_gram()
        gram[:-1] = change.T @ gram[:-1]
        gram[:, :-1] = gram[:, :-1] @ change
        self._gram = gram
        self._cross[:-1] = change.T @ self._cross[:-1]

    @property
    def gram(self) -> torch.Tensor:
        return self._whole_gram() / self._num_rows

    @property
    def cross(self) -> torch.Tensor:
        return self._cross / self._num_rows

    def _whole_gram(self) -> torch.Tensor:
        """Returns the sums of products with both triangles."""
        upper = self._gram.triu()
        return upper + upper.triu(1).T


def equations_of(output_layer: GatedLinear | OutputBias | None, model: PrunableModelMixin) -> NormalEquations:
    """Returns empty normal equations for an output layer.

    Args:
        output_layer: Output layer of a block, or `None` for a removed block.
        model: Model that the layer belongs to.
    """
    num_inputs = output_layer.in_features if isinstance(output_layer, GatedLinear) else 0
    return NormalEquations(num_inputs, model.config.hidden_size, model.device)
