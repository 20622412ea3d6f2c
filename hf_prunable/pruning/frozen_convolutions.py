"""Which convolutions are trained: those that equal the teacher's and have no gates are frozen."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.units import walk_gates
from .arguments import PruningTrainingArguments


def freezes_feature_encoder(
    model: PrunableModelMixin, args: PruningTrainingArguments, has_teachers_convolutions: bool
) -> bool:
    """Returns whether the convolutions of a run's first student are frozen.

    Args:
        model: Student, with or without gates.
        args: Training arguments; `freeze_feature_encoder` decides if it is given.
        has_teachers_convolutions: Whether the student's convolutions have the teacher's weights.

    Raises:
        ValueError: If weights with gates are to be frozen.
    """
    has_conv_gates = any(unit_gates.unit == "conv" for unit_gates in walk_gates(model))
    if args.freeze_feature_encoder is None:
        # Convolutions with the output of the teacher's have no distillation loss of their own to reduce.
        return has_teachers_convolutions and not has_conv_gates
    if args.freeze_feature_encoder and has_conv_gates:
        raise ValueError(
            "`freeze_feature_encoder` is given, and the convolutions have gates. Leave it out, or 'conv' of "
            "`prune_units`."
        )
    return args.freeze_feature_encoder


def convolutions(model: PrunableModelMixin) -> dict[str, torch.Tensor]:
    """Returns the weights of the convolutions by name."""
    return model.base_model.feature_extractor.state_dict()


def copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns copies of tensors on the CPU, by name."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def are_equal(tensors: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether two sets of tensors have the same names, types and values.

    Args:
        tensors: Tensors by name, on any device.
        others: Tensors by name, on the CPU.
    """
    return tensors.keys() == others.keys() and all(
        tensor.dtype == others[name].dtype and torch.equal(tensor.cpu(), others[name])
        for name, tensor in tensors.items()
    )
