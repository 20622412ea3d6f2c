"""Layer-to-layer distillation: which hidden states of the student are compared with which of the teacher, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .frames import frame_difference, real_frames
from .projections import AUTO, NO_PROJECTIONS, group_of, identity_projection, resolve_projections


# Index that stands for the output of the convolutions among the layers of `captured_hidden_states`.
FEATURES = -1


def default_layers(num_hidden_layers: int) -> tuple[int, ...]:
    """Returns the layers to distill: DPHuBERT's 0, 4, 8 and 12 of 12 (arXiv 2305.17651), scaled to another depth."""
    return tuple(sorted({round(num_hidden_layers * third / 3) for third in range(4)}))


@contextmanager
def captured_hidden_states(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Captures chosen hidden states of the forward passes inside the context, by forward hooks.

    Args:
        model: Stock or prunable model, with or without a head.
        layers: Layer indices. 0 is the output of the feature projection, before the position convolution
            (`hidden_states[0]` is after it). n is the output of the n-th layer; for the last one it is the encoder's
            output, after the final norm of pre-norm models. `FEATURES` is the output of the convolutions.

    Yields:
        Hidden states by layer index, each of shape (batch, frames, hidden size), filled by the forward pass. The output
        of the convolutions has shape (batch, channels, frames).
    """
    captured: dict[int, torch.Tensor] = {}

    def capture(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, BaseModelOutput):
                output = output.last_hidden_state
            captured[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    hooks = [_source_of(model, layer).register_forward_hook(capture(layer)) for layer in layers]
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()


def _source_of(model: PreTrainedModel, layer: int) -> nn.Module:
    """Returns the module whose output is the hidden state of a layer index."""
    base = model.base_model
    if layer == FEATURES:
        return base.get_submodule("feature_extractor")
    if layer == 0:
        return base.get_submodule("feature_projection")
    if layer == model.config.num_hidden_layers:
        return base.get_submodule("encoder")
    return base.get_submodule(f"encoder.layers.{layer - 1}")


def hidden_states_of(
    model: PreTrainedModel, input_values: torch.Tensor, layers: Sequence[int], **inputs: Any
) -> dict[int, torch.Tensor]:
    """Runs a model and returns chosen hidden states.

    Args:
        model: Stock or prunable model, with or without a head.
        input_values: Audio, of shape (batch, samples).
        layers: Layer indices as in `captured_hidden_states`.
        **inputs: Further inputs of the model.

    Returns:
        Hidden states by layer index, in the order of `layers`.
    """
    with captured_hidden_states(model, layers) as captured:
        model(input_values, **inputs)
    return {layer: captured[layer] for layer in layers}


class _PrecomputedFeatures(nn.Module):
    """Takes the place of convolutions whose output has been computed already."""

    def __init__(self, features: torch.Tensor):
        super().__init__()
        self.features = features

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        return self.features


@contextmanager
def _shortened_forward(
    teacher: PreTrainedModel, num_layers: int, features: torch.Tensor | None = None
) -> Iterator[None]:
    """Shortens the teacher's forward pass inside the context to what the loss reads.

    The modules that are not needed are taken out of the model for that time. The alternative, calling the model's parts
    one by one, would repeat the handling of padding, position bias and norm order of each family.

    Args:
        teacher: Base model.
        num_layers: Number of transformer layers to run, from the first.
        features: Output of the convolutions, of shape (batch, channels, frames); `None` to run them.
    """
    encoder, convolutions = teacher.get_submodule("encoder"), teacher.get_submodule("feature_extractor")
    layers = encoder.get_submodule("layers")
    encoder.layers = nn.ModuleList(list(layers.children())[:num_layers])
    if features is not None:
        teacher.feature_extractor = _PrecomputedFeatures(features)
    try:
        yield
    finally:
        encoder.layers, teacher.feature_extractor = layers, convolutions


def layer_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """L1 distance plus one minus cosine similarity, averaged over frames: DPHuBERT's loss plus 1 (arXiv 2305.17651).

    With the constant 1, the loss of equal hidden states is 0.

    Args:
        student: Projected hidden states of the student, of shape (..., hidden size).
        teacher: Hidden states of the teacher, of the same shape.

    Returns:
        The loss in float32, of shape ().
    """
    student, teacher = student.float(), teacher.float()
    cosine = nn.functional.cosine_similarity(student, teacher, dim=-1)
    return nn.functional.l1_loss(student, teacher) + 1 - cosine.mean()


def prediction_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """L1 distance minus log-sigmoid of the cosine similarity, averaged over frames: DistilHuBERT's (arXiv 2110.01900).

    Args:
        student: Projected hidden states of the student, of shape (..., hidden size).
        teacher: Hidden states of the teacher, of the same shape.

    Returns:
        The loss in float32, of shape ().
    """
    student, teacher = student.float(), teacher.float()
    cosine = nn.functional.cosine_similarity(student, teacher, dim=-1)
    return nn.functional.l1_loss(student, teacher) - nn.functional.logsigmoid(cosine).mean()


# Loss of one layer, by the form of the distillation.
LOSSES = {"layers": layer_loss, "predictions": prediction_loss}


class Distillation(nn.Module):
    """Distillation loss with a frozen teacher, on hidden states themselves or behind trainable projections.

    Args:
        teacher: Stock or prunable base model. It is no submodule: it is neither trained nor saved with this module.
        student_config: Configuration of the student, whose depth and width may differ from the teacher's.
        layers: Layer indices of the student to distill, from 0 for the feature projection to the student's depth;
            `default_layers` where `None`. Each is compared with the teacher's layer at the same relative depth.
        form: "layers" compares each of these layers with the teacher's by `layer_loss`. "predictions" predicts the
            teacher's layers from the student's last one, each through its own projection, by `prediction_loss`.
        projections: Linear maps from student to teacher: "none"; "shared", one for layer 0 and one for all others, as in
            DPHuBERT; "each", one for each layer; or "auto", see `default_projections`.
        shares_features: Whether the convolutions of student and teacher have equal weights and are not trained. Then
            they run only once, in the student.

    Raises:
        ValueError: If a layer or the form does not exist, the projections do not fit, or the frames of teacher and student
            do not match.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        student_config: PreTrainedConfig,
        layers: Sequence[int] | None = None,
        form: str = "layers",
        projections: str = AUTO,
        shares_features: bool = False,
    ):
        super().__init__()
        self.shares_features = shares_features
        depth, teacher_depth = student_config.num_hidden_layers, teacher.config.num_hidden_layers
        layers = default_layers(depth) if layers is None else tuple(layers)
        if not layers or any(not 0 <= layer <= depth for layer in layers):
            raise ValueError(f"Layers to distill must be in 0..{depth}, but are {list(layers)}.")
        if form not in LOSSES:
            raise ValueError(f"The form of distillation is {form!r}; choose from {', '.join(map(repr, LOSSES))}.")
        if (difference := frame_difference(student_config, teacher.config)) is not None:
            raise ValueError(difference)
        self.loss = LOSSES[form]
        # For each distilled layer of the student, the teacher's layer at the same relative depth.
        self.teacher_layers = {layer: round(layer * teacher_depth / depth) for layer in layers}
        # A list hides the teacher from parameters(), state_dict() and train().
        self._teacher = [teacher.eval().requires_grad_(False)]
        sizes = student_config.hidden_size, teacher.config.hidden_size
        kind = resolve_projections(projections, *sizes, form)
        self.has_projections = kind != NO_PROJECTIONS
        # For each distilled layer, the student's layer that is compared, and the name of its projection.
        self.sources = {layer: depth if form == "predictions" else layer for layer in layers}
        self.groups = {layer: group_of(layer, kind) for layer in layers} if self.has_projections else {}
        self.projections = nn.ModuleDict(
            {group: identity_projection(*sizes) for group in dict.fromkeys(self.groups.values())}
        )

    @property
    def teacher(self) -> PreTrainedModel:
        """The frozen teacher."""
        return self._teacher[0]

    @property
    def layers(self) -> tuple[int, ...]:
        """Layer indices of the student's hidden states that `compare` reads, with `FEATURES` if it is needed."""
        layers = tuple(dict.fromkeys(self.sources.values()))
        return (FEATURES, *layers) if self.shares_features else layers

    def _apply(self, fn, recurse=True):
        self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, student: PreTrainedModel, input_values: torch.Tensor) -> torch.Tensor:
        """Runs student and teacher and computes the loss.

        Args:
            student: Model with the configuration of the student.
            input_values: Audio clips of equal length, of shape (batch, samples).

        Returns:
            The loss, of shape ().
        """
        return self.compare(hidden_states_of(student, input_values, self.layers), input_values)

    def compare(
        self,
        hidden_states: dict[int, torch.Tensor],
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Computes the loss of a batch from the student's hidden states.

        Args:
            hidden_states: Hidden states of the student by layer index, for the indices in `layers`.
            input_values: Audio, of shape (batch, samples).
            attention_mask: 0 where `input_values` are padding, else 1, of the same shape. Frames of padding do not count.

        Returns:
            The mean over the distilled layers, of shape ().
        """
        targets = self._teacher_hidden_states(hidden_states, input_values, attention_mask)
        is_real_frame = None
        if attention_mask is not None:
            num_frames = next(iter(targets.values())).shape[1]
            is_real_frame = real_frames(self.teacher.config, attention_mask, num_frames)
        losses = []
        for layer, source in self.sources.items():
            predicted = hidden_states[source]
            if layer in self.groups:
                predicted = self.projections[self.groups[layer]](predicted)
            target = targets[self.teacher_layers[layer]]
            if is_real_frame is not None:
                predicted, target = predicted[is_real_frame], target[is_real_frame]
            losses.append(self.loss(predicted, target))
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _teacher_hidden_states(
        self,
        hidden_states: dict[int, torch.Tensor],
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None,
    ) -> dict[int, torch.Tensor]:
        """Computes the hidden states of the teacher that the loss reads, by layer index in ascending order."""
        layers = sorted(set(self.teacher_layers.values()))
        inputs = {} if attention_mask is None else {"attention_mask": attention_mask}
        features = hidden_states[FEATURES].detach() if self.shares_features else None
        with _shortened_forward(self.teacher, layers[-1], features):
            return hidden_states_of(self.teacher, input_values, layers, **inputs)
