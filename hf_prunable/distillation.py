"""Layer-to-layer distillation: which hidden states of the student learn from which of the teacher, and how."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel


def default_layers(num_hidden_layers: int) -> tuple[int, ...]:
    """The layers to distill: DPHuBERT's 0, 4, 8, 12 of 12 (arXiv 2305.17651), scaled to other depths."""
    return tuple(sorted({round(num_hidden_layers * third / 3) for third in range(4)}))


def hidden_states_of(
    model: PreTrainedModel, input_values: torch.Tensor, layers: Sequence[int]
) -> dict[int, torch.Tensor]:
    """Runs a base model and keeps the hidden states of some layers.

    Args:
        model: A stock or prunable base model.
        input_values: Of shape (batch, samples), all clips of one length.
        layers: 0 is the feature projection's output, before the position convolution (`hidden_states[0]` is after
            it); n is the output of layer n, for the last layer as the encoder returns it, with the final norm of
            pre-norm models.

    Returns:
        Hidden states by layer, each of shape (batch, frames, hidden size).
    """
    captured = {}

    def keep_projection(module, args, output):
        captured[0] = output[0] if isinstance(output, tuple) else output

    def keep_encoder(module, args, output):
        captured[model.config.num_hidden_layers] = output.last_hidden_state

    hooks = [
        model.feature_projection.register_forward_hook(keep_projection),
        model.encoder.register_forward_hook(keep_encoder),
    ]
    try:
        inner = [layer for layer in layers if 0 < layer < model.config.num_hidden_layers]
        outputs = model(input_values, output_hidden_states=inner or None)
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: captured[layer] if layer in captured else outputs.hidden_states[layer] for layer in layers}


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """L1 distance plus one minus the cosine similarity, over frames: 0 for equal hidden states.

    DPHuBERT's loss (arXiv 2305.17651) is the same less the constant 1.
    """
    student, teacher = student.float(), teacher.float()
    return (
        nn.functional.l1_loss(student, teacher) + 1 - nn.functional.cosine_similarity(student, teacher, dim=-1).mean()
    )


class Distillation(nn.Module):
    """Holds a frozen teacher and the projections from student to teacher, which start as the identity.

    Args:
        teacher: A base model; it is neither trained nor saved with this module.
        student_config: Of the student, whose depth and width may differ from the teacher's.
        layers: Student layers to distill; `default_layers` where `None`. A student of another depth learns from the
            teacher's layers at the same relative depth.
        share_projections: One projection for all layers but 0, as in DPHuBERT, or one for each layer.

    Raises:
        ValueError: If a layer does not exist, or the frames of teacher and student do not match.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        student_config,
        layers: Sequence[int] | None = None,
        share_projections: bool = True,
    ):
        super().__init__()
        depth, teacher_depth = student_config.num_hidden_layers, teacher.config.num_hidden_layers
        self.layers = default_layers(depth) if layers is None else tuple(layers)
        if not self.layers or any(not 0 <= layer <= depth for layer in self.layers):
            raise ValueError(f"Layers to distill must be in 0..{depth}, but are {list(self.layers)}.")
        for field in ("conv_kernel", "conv_stride"):
            if list(getattr(student_config, field)) != list(getattr(teacher.config, field)):
                raise ValueError(
                    f"Teacher and student must cut audio into the same frames, but `{field}` is "
                    f"{list(getattr(teacher.config, field))} and {list(getattr(student_config, field))}."
                )
        self.teacher_layers = {layer: round(layer * teacher_depth / depth) for layer in self.layers}
        # A plain list hides the teacher from parameters(), state_dict() and train().
        self._teacher = [teacher.eval().requires_grad_(False)]
        groups = {layer: "shared" if share_projections and layer > 0 else f"layer_{layer}" for layer in self.layers}
        self.groups = groups
        self.projections = nn.ModuleDict(
            {
                group: nn.Linear(student_config.hidden_size, teacher.config.hidden_size)
                for group in dict.fromkeys(groups.values())
            }
        )
        for projection in self.projections.values():
            nn.init.eye_(projection.weight)
            nn.init.zeros_(projection.bias)

    @property
    def teacher(self) -> PreTrainedModel:
        """The frozen teacher."""
        return self._teacher[0]

    def _apply(self, fn, recurse=True):
        self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, student: PreTrainedModel, input_values: torch.Tensor) -> torch.Tensor:
        """The distillation loss of a batch, the mean over layers.

        Args:
            student: A base model.
            input_values: Of shape (batch, samples), all clips of one length.
        """
        with torch.no_grad():
            targets = hidden_states_of(self.teacher, input_values, sorted(set(self.teacher_layers.values())))
        states = hidden_states_of(student, input_values, self.layers)
        losses = [
            distillation_loss(self.projections[self.groups[layer]](states[layer]), targets[self.teacher_layers[layer]])
            for layer in self.layers
        ]
        return torch.stack(losses).mean()
