"""Rotation of attention heads: a basis in which the first dimensions of a head carry most of it.

Queries and keys are changed by matrices whose product is the identity in the scores, values and output weights likewise:
the function of the model stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


# Smallest eigenvalue that roots are taken of, as a fraction of the largest. Both roots clamp alike, so that they stay
# inverses of each other and the rotation stays exact.
SMALLEST_EIGENVALUE = 1e-9
# Smallest value that the largest eigenvalue is taken as. Statistics of silence or of a single frame can be 0, and a basis
# for them must fit into float32.
SMALLEST_GRAM = 1e-24


@dataclass
class QueryKeyRotation:
    """Change of basis of one head's queries and keys.

    Attributes:
        query: Matrix that queries are multiplied with from the right, of shape (width, width).
        key: The same for keys.
        energy: Mean squared score that each new dimension carries, in descending order, of shape (width,).
    """

    query: torch.Tensor
    key: torch.Tensor
    energy: torch.Tensor


@dataclass
class ValueOutputRotation:
    """Change of basis of one head's values and of the columns of the output projection that read them.

    Attributes:
        value: Matrix that values are multiplied with from the right, of shape (width, width).
        output: New columns of the output projection, of shape (hidden size, width).
        energy: Mean squared output that each new dimension carries, in descending order, of shape (width,).
    """

    value: torch.Tensor
    output: torch.Tensor
    energy: torch.Tensor


def square_roots(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the symmetric square root of a positive semidefinite matrix and its inverse.

    Args:
        gram: Matrix of shape (width, width), float64.
    """
    values, vectors = torch.linalg.eigh(gram)
    largest = values[-1].clamp_min(SMALLEST_GRAM)
    roots = values.clamp_min(SMALLEST_EIGENVALUE * largest).sqrt()
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def _signed_svd(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns a reduced singular value decomposition whose signs do not depend on rounding.

    The entry of largest magnitude in each left singular vector is positive.

    Args:
        matrix: Matrix of shape (rows, columns).
    """
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    signs = left.gather(0, left.abs().argmax(0, keepdim=True)).sign()
    return left * signs, values, right * signs.T


def rotate_query_key(query_gram: torch.Tensor, key_gram: torch.Tensor) -> QueryKeyRotation:
    """Finds the basis in which the first r dimensions give the best approximation of rank r of the scores.

    With G_q^(1/2) G_k^(1/2) = U S V^T: M_q = G_q^(-1/2) U S^(1/2) and M_k = G_k^(-1/2) V S^(1/2).

    Args:
        query_gram: Mean product of queries G_q, of shape (width, width), float64.
        key_gram: Mean product of keys G_k, centred over the frames of each clip: softmax ignores what all keys share.
    """
    query_root, query_inverse = square_roots(query_gram)
    key_root, key_inverse = square_roots(key_gram)
    left, values, right = _signed_svd(query_root @ key_root)
    scale = values.sqrt()
    return QueryKeyRotation(query_inverse @ left * scale, key_inverse @ right.T * scale, values.square())


def rotate_value_output(context_gram: torch.Tensor, output: torch.Tensor) -> ValueOutputRotation:
    """Finds the basis in which the first r dimensions give the best approximation of rank r of a head's output.

    With S^(1/2) W^T = U T V^T: M = S^(-1/2) U T^(1/2), and the new columns are V T^(1/2).

    Args:
        context_gram: Mean product S of what the head passes to the output projection, of shape (width, width), float64.
        output: Columns W of the output projection that read the head, of shape (hidden size, width), float64.
    """
    root, inverse = square_roots(context_gram)
    left, values, right = _signed_svd(root @ output.T)
    scale = values.sqrt()
    return ValueOutputRotation(inverse @ left * scale, right.T * scale, values.square())


def rotate_rows_(weight: torch.Tensor, bias: torch.Tensor, matrix: torch.Tensor) -> None:
    """Multiplies the outputs of a projection with a matrix from the right, in place.

    Args:
        weight: Rows of the projection's weight, of shape (width, hidden size).
        bias: The same rows of its bias, of shape (width,).
        matrix: Matrix of shape (width, width), float64.
    """
    weight.copy_(matrix.T @ weight.double())
    bias.copy_(matrix.T @ bias.double())
