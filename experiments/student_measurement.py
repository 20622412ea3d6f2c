"""Size of a student, and how near its hidden states are to the teacher's on held-out audio."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from hf_prunable.modeling.size import UnitCounts, count_macs
from hf_prunable.pruning.fidelity import Fidelity, measure_fidelity


class TeacherAtDepth(nn.Module):
    """A view of a teacher that returns fewer hidden states: those at the same relative depths as a student's.

    Args:
        teacher: Base model.
        depth: Number of layers of the student, at most the teacher's.
    """

    def __init__(self, teacher: PreTrainedModel, depth: int):
        super().__init__()
        self.teacher, self.config = teacher, copy.deepcopy(teacher.config)
        self.config.num_hidden_layers = depth
        self.layers = [round(layer * teacher.config.num_hidden_layers / depth) for layer in range(depth + 1)]
        self.feature_projection, self.encoder = teacher.feature_projection, teacher.encoder
        self.device, self.dtype = teacher.device, teacher.dtype

    @property
    def base_model(self) -> TeacherAtDepth:
        """This view, as a model without a head."""
        return self

    def forward(self, **inputs: Any) -> BaseModelOutput:
        """Runs the teacher and selects hidden states."""
        output = self.teacher(**inputs)
        output.hidden_states = tuple(output.hidden_states[layer] for layer in self.layers)
        return output


def measure_at_depth(
    student: PreTrainedModel, teacher: PreTrainedModel, batches: Iterable[Mapping[str, torch.Tensor]]
) -> Fidelity:
    """Compares each hidden state of a student with the teacher's at the same relative depth, without a projection.

    For a student of the teacher's depth it is `measure_fidelity`.

    Args:
        student: Base model of the teacher's hidden size and at most its depth.
        teacher: Base model.
        batches: Batches with `input_values`.
    """
    depth = student.config.num_hidden_layers
    reference: Any = teacher if depth == teacher.config.num_hidden_layers else TeacherAtDepth(teacher, depth)
    return measure_fidelity(student, reference, batches)


def measure_student(
    student: PreTrainedModel, teacher: PreTrainedModel, batches: Iterable[Mapping[str, torch.Tensor]]
) -> dict[str, Any]:
    """Measures size and fidelity of a student.

    Args:
        student: Base model.
        teacher: Dense base model.
        batches: Held-out batches with `input_values`.

    Returns:
        Sizes, the distillation "loss" without a projection, and "cosine" and "relative_error" of each hidden state, with
        the teacher's hidden state at the same relative depth.
    """
    fidelity = measure_at_depth(student, teacher, batches)
    return {
        "num_parameters": student.num_parameters(),
        "sparsity": 1 - student.num_parameters() / teacher.num_parameters(),
        "macs": count_macs(student.config, UnitCounts.of(student.config.shape)),
        "loss": fidelity.distillation_loss,
        "cosine": fidelity.cosine,
        "relative_error": fidelity.relative_error,
        "held_out_frames": fidelity.num_frames,
    }
