"""The objective of a pruning run: distillation, a task's loss or both, with the constraint on sparsity."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import nn

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import PARAMETERS, Measure
from .constraint import Lagrangian
from .distillation import Distillation, captured_hidden_states
from .expected_size import expected_counts


class PruningObjective(nn.Module):
    """Student, losses and constraint as one module, so that DDP and FSDP wrap all trained parameters.

    Args:
        student: Prunable model; with a head for a task's loss.
        distillation: Distillation loss; `None` to train on the task's loss alone.
        lagrangian: Constraint on sparsity; `None` for a student without gates.
        task_weight: Weight of the loss that the student's head computes from labels; that of the distillation loss is 1.
        measure: Measure of the sparsity that is constrained.
    """

    # The loss is a mean over a micro-batch: the Trainer has to divide it by the number of micro-batches of a step.
    accepts_loss_kwargs = False

    def __init__(
        self,
        student: PrunableModelMixin,
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
        self._freeze_unused_parameters()

    def _freeze_unused_parameters(self) -> None:
        """Freezes parameters that the loss does not depend on; DDP would wait for their gradients."""
        base = self.student.base_model
        unused = [getattr(base, "masked_spec_embed", None)]
        # Hidden states are captured before wav2vec 2.0's adapter, which only a head reads.
        adapter = getattr(base, "adapter", None)
        if adapter is not None and not self.task_weight:
            unused += adapter.parameters()
        for parameter in unused:
            if parameter is not None:
                parameter.requires_grad = False

    @property
    def _no_split_modules(self) -> list[str] | set[str] | None:
        # Accelerate reads here which modules FSDP wraps.
        return self.student._no_split_modules

    def train(self, mode: bool = True) -> PruningObjective:
        super().train(mode)
        for module in self.student.modules():
            if isinstance(module, nn.BatchNorm1d):
                # Keeps the running statistics of pretraining, which come from far more audio than one batch.
                module.eval()
        return self

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Makes the backward pass recompute the student's activations; called by the Trainer."""
        self.student.activation_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """The same under the name that the Trainer calls before transformers 5.23."""
        self.student.gradient_checkpointing_enable(*args, **kwargs)

    def forward(
        self, input_values: torch.Tensor, target: float = 0.0, **inputs: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Computes the losses of a batch.

        Args:
            input_values: Audio, of shape (batch, samples).
            target: Present target of the constraint in its measure, between 0 and 1.
            **inputs: Further inputs of the student: `labels` for a task, `attention_mask` for padded clips.

        Returns:
            "loss", with the constraint; "objective_loss", without it; its parts "distillation_loss" and "task_loss", as
            far as they take part; and with a constraint "expected_sparsity". All have shape ().
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
        loss = reduce(torch.add, parts.values())
        result = {"loss": loss, "objective_loss": loss.detach()}
        result |= {name: part.detach() for name, part in parts.items()}
        if self.lagrangian is not None:
            # Not `expected_sparsity`, whose check of the gates waits for the device. NaN in a gate makes the loss NaN, which
            # the trainer refuses.
            sparsity = self.measure.sparsity(self.student.config, expected_counts(self.student))
            result["loss"] = loss + self.lagrangian(sparsity, target)
            result["expected_sparsity"] = sparsity.detach()
        return result
