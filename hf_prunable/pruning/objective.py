"""What is minimised: distillation, a task's loss or both, under the constraint on sparsity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..modeling.size import PARAMETERS, Measure
from .constraint import Lagrangian
from .distillation import LOSSES, Distillation, captured_hidden_states
from .expected_size import expected_sparsity


# Whether distillation and a task's loss take part.
OBJECTIVES = {"distillation": (True, False), "task": (False, True), "both": (True, True)}


@dataclass
class ObjectiveArguments:
    """What the student learns from.

    Raises:
        ValueError: If there is no such objective.
    """

    objective: str = field(
        default="distillation",
        metadata={"help": "'distillation' from the teacher, without labels; 'task', with labels; or 'both'."},
    )
    crop_seconds: float = field(
        default=5.0, metadata={"help": "Length of the crops for distillation; with labels, clips are whole."}
    )
    distillation_layers: list[int] | None = field(
        default=None, metadata={"help": "Layers to distill; by default 0 and each third of the depth."}
    )
    distillation_form: str = field(
        default="layers",
        metadata={"help": f"{' or '.join(map(repr, LOSSES))}: layer by layer, or all from the last layer."},
    )
    share_projections: bool = field(
        default=True,
        metadata={"help": "One projection to the teacher for all layers but 0, instead of one for each layer."},
    )
    task: str | None = field(
        default=None, metadata={"help": "'ctc' or 'classification', for an objective with labels."}
    )
    label_column: str | None = field(
        default=None, metadata={"help": "Column of the labels: 'text' for CTC and 'label' for classes by default."}
    )
    task_weight: float = field(
        default=1.0, metadata={"help": "Weight of the task's loss beside the distillation's of 1."}
    )

    def __post_init__(self):
        if self.objective not in OBJECTIVES:
            raise ValueError(f"`objective` is {self.objective!r}; choose from {', '.join(map(repr, OBJECTIVES))}.")
        if self.has_task != (self.task is not None):
            raise ValueError(
                f"`objective` is {self.objective!r} and `task` is {self.task!r}. Give a task, 'ctc' or 'classification', "
                "with the objectives 'task' and 'both', and none with 'distillation'."
            )

    @property
    def has_distillation(self) -> bool:
        """Whether the teacher takes part."""
        return OBJECTIVES[self.objective][0]

    @property
    def has_task(self) -> bool:
        """Whether labels take part."""
        return OBJECTIVES[self.objective][1]


class PruningObjective(nn.Module):
    """Student, losses and the sparsity constraint as one module, so that every strategy sees all parameters.

    Args:
        student: A prunable model; with a head for a task's loss.
        distillation: With the teacher; `None` for a task's loss alone.
        lagrangian: The constraint; `None` for a student without gates.
        task_weight: Of the loss that the student's head computes from labels, beside the distillation's of 1.
        measure: What sparsity is counted in.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        distillation: Distillation | None,
        lagrangian: Lagrangian | None = None,
        task_weight: float = 0.0,
        measure: Measure = PARAMETERS,
    ):
        super().__init__()
        self.student = student
        self.distillation = distillation
        self.lagrangian = lagrangian
        self.task_weight = task_weight
        self.measure = measure
        for name, parameter in student.named_parameters():
            # What takes no part in the loss would be waited for by DDP.
            if name.endswith("masked_spec_embed") or (not task_weight and name.startswith("adapter.")):
                parameter.requires_grad = False

    @property
    def _no_split_modules(self) -> list[str]:
        # What FSDP wraps, by Accelerate's name for it.
        return self.student._no_split_modules

    def train(self, mode: bool = True) -> PruningObjective:
        super().train(mode)
        for module in self.student.modules():
            if isinstance(module, nn.BatchNorm1d):
                # Its statistics are the teacher's, gathered over far more audio than a batch.
                module.eval()
        return self

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Recomputes the student's activations in the backward pass; the Trainer calls it."""
        self.student.activation_checkpointing_enable(*args, **kwargs)

    def forward(
        self, input_values: torch.Tensor, target_sparsity: float = 0.0, **inputs: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Losses of a batch.

        Args:
            input_values: Of shape (batch, samples).
            target_sparsity: What the constraint asks for.
            **inputs: Of the student: `labels`, and `attention_mask` where clips are padded.

        Returns:
            "loss", with the constraint; "objective_loss", without it; its parts "distillation_loss" and "task_loss"
            where there are both; and with gates "expected_sparsity".
        """
        layers = () if self.distillation is None else self.distillation.layers
        with captured_hidden_states(self.student, layers) as hidden_states:
            outputs = self.student(input_values, **inputs)
        parts = {}
        if self.distillation is not None:
            parts["distillation_loss"] = self.distillation.compare(
                hidden_states, input_values, inputs.get("attention_mask")
            )
        if self.task_weight:
            parts["task_loss"] = self.task_weight * outputs.loss
        loss = sum(parts.values())
        result = {"loss": loss, "objective_loss": loss.detach()}
        result |= {name: part.detach() for name, part in parts.items()}
        if self.lagrangian is not None:
            sparsity = expected_sparsity(self.student, self.measure)
            result["loss"] = loss + self.lagrangian(sparsity, target_sparsity)
            result["expected_sparsity"] = sparsity.detach()
        return result
