"""Layer-to-layer distillation: which hidden states of the student learn from which of the teacher, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


# What the convolutions give, by the name of a hidden state.
FEATURES = -1


def default_layers(num_hidden_layers: int) -> tuple[int, ...]:
    """The layers to distill: DPHuBERT's 0, 4, 8, 12 of 12 (arXiv 2305.17651), scaled to other depths."""
    return tuple(sorted({round(num_hidden_layers * third / 3) for third in range(4)}))


@contextmanager
def captured_hidden_states(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Collects hidden states while a model runs, and holds no others.

    Args:
        model: A stock or prunable model, with a head or without.
        layers: 0 is the feature projection's output, before the position convolution (`hidden_states[0]` is after it); n
            is the output of layer n, for the last layer as the encoder returns it, with the final norm of pre-norm
            models. `FEATURES` is the output of the convolutions.

    Yields:
        Hidden states by layer, each of shape (batch, frames, hidden size), filled by the forward pass; of the
        convolutions, of shape (batch, channels, frames).
    """
    base, captured = model.base_model, {}
    modules = {
        FEATURES: base.feature_extractor,
        0: base.feature_projection,
        base.config.num_hidden_layers: base.encoder,
    }

    def keep(layer: int) -> Callable[..., None]:
        def hook(module, args, output):
            if isinstance(output, BaseModelOutput):
                output = output.last_hidden_state
            captured[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    hooks = [
        (modules[layer] if layer in modules else base.encoder.layers[layer - 1]).register_forward_hook(keep(layer))
        for layer in layers
    ]
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()


def hidden_states_of(
    model: PreTrainedModel, input_values: torch.Tensor, layers: Sequence[int], **inputs: Any
) -> dict[int, torch.Tensor]:
    """Runs a model on audio of shape (batch, samples) and returns its hidden states by layer."""
    with captured_hidden_states(model, layers) as captured:
        model(input_values, **inputs)
    return {layer: captured[layer] for layer in layers}


class _Given(nn.Module):
    """Stands for convolutions whose output is there already."""

    def __init__(self, features: torch.Tensor):
        super().__init__()
        self.features = features

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        return self.features


@contextmanager
def _replaced(parent: nn.Module, name: str, module: nn.Module) -> Iterator[None]:
    """Puts a module in the place of another for a while."""
    own = getattr(parent, name)
    setattr(parent, name, module)
    try:
        yield
    finally:
        setattr(parent, name, own)


def layer_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """L1 distance plus one minus the cosine similarity, over frames: 0 for equal hidden states.

    DPHuBERT's loss (arXiv 2305.17651) is the same less the constant 1.
    """
    student, teacher = student.float(), teacher.float()
    cosine = nn.functional.cosine_similarity(student, teacher, dim=-1)
    return nn.functional.l1_loss(student, teacher) + 1 - cosine.mean()


def prediction_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """L1 distance minus the log-sigmoid of the cosine similarity, over frames: DistilHuBERT's (arXiv 2110.01900)."""
    student, teacher = student.float(), teacher.float()
    cosine = nn.functional.cosine_similarity(student, teacher, dim=-1)
    return nn.functional.l1_loss(student, teacher) - nn.functional.logsigmoid(cosine).mean()


LOSSES = {"layers": layer_loss, "predictions": prediction_loss}


class Distillation(nn.Module):
    """Holds a frozen teacher and the projections from student to teacher, which start as the identity.

    Args:
        teacher: A base model; it is neither trained nor saved with this module.
        student_config: Of the student, whose depth and width may differ from the teacher's.
        layers: Student layers to distill; `default_layers` where `None`. A student of another depth learns from the
            teacher's layers at the same relative depth.
        form: "layers" compares each of these layers with the teacher's by `layer_loss`. "predictions" lets the
            student's last layer predict them all, each through a projection of its own, by `prediction_loss`.
        share_projections: For "layers", one projection for all layers but 0, as in DPHuBERT, or one for each layer.
        shares_features: Whether the student's convolutions are the teacher's and stay so: they then run once for both.

    Raises:
        ValueError: If a layer or the form does not exist, or the frames of teacher and student do not match.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        student_config: Any,
        layers: Sequence[int] | None = None,
        form: str = "layers",
        share_projections: bool = True,
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
        for field in ("conv_kernel", "conv_stride"):
            if list(getattr(student_config, field)) != list(getattr(teacher.config, field)):
                raise ValueError(
                    f"Teacher and student must cut audio into the same frames, but `{field}` is "
                    f"{list(getattr(teacher.config, field))} and {list(getattr(student_config, field))}."
                )
        self.loss = LOSSES[form]
        # For each layer of the student's depth that is learned, where the teacher has it.
        self.teacher_layers = {layer: round(layer * teacher_depth / depth) for layer in layers}
        # A plain list hides the teacher from parameters(), state_dict() and train().
        self._teacher = [teacher.eval().requires_grad_(False)]
        shares = share_projections and form == "layers"
        self.groups = {layer: "shared" if shares and layer > 0 else f"layer_{layer}" for layer in layers}
        # Where the student's side comes from.
        self.sources = {layer: depth if form == "predictions" else layer for layer in layers}
        self.projections = nn.ModuleDict(
            {
                group: nn.Linear(student_config.hidden_size, teacher.config.hidden_size)
                for group in dict.fromkeys(self.groups.values())
            }
        )
        for projection in self.projections.values():
            nn.init.eye_(projection.weight)
            nn.init.zeros_(projection.bias)

    @property
    def teacher(self) -> PreTrainedModel:
        """The frozen teacher."""
        return self._teacher[0]

    @property
    def layers(self) -> tuple[int, ...]:
        """What `compare` reads of the student."""
        return (FEATURES,) * self.shares_features + tuple(dict.fromkeys(self.sources.values()))

    def _apply(self, fn, recurse=True):
        self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, student: PreTrainedModel, input_values: torch.Tensor) -> torch.Tensor:
        """Runs the student on audio of shape (batch, samples), all clips of one length, and compares."""
        return self.compare(hidden_states_of(student, input_values, self.layers), input_values)

    def compare(
        self,
        hidden_states: dict[int, torch.Tensor],
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The distillation loss of a batch, the mean over layers.

        Args:
            hidden_states: The student's, by layer.
            input_values: Of shape (batch, samples).
            attention_mask: Of the same shape, 0 where `input_values` are padding; the frames of padding do not count.
        """
        needed = sorted(set(self.teacher_layers.values()))
        inputs = {} if attention_mask is None else {"attention_mask": attention_mask}
        convolutions, layers = self.teacher.feature_extractor, self.teacher.encoder.layers
        if self.shares_features:
            convolutions = _Given(hidden_states[FEATURES].detach())
        with (
            torch.no_grad(),
            _replaced(self.teacher, "feature_extractor", convolutions),
            _replaced(self.teacher.encoder, "layers", layers[: needed[-1]]),
        ):
            targets = hidden_states_of(self.teacher, input_values, needed, **inputs)
        is_real = ...
        if attention_mask is not None:
            frames = targets[needed[0]].shape[1]
            is_real = self.teacher._get_feature_vector_attention_mask(frames, attention_mask).bool()
        losses = [
            self.loss(
                self.projections[self.groups[layer]](hidden_states[source])[is_real],
                targets[self.teacher_layers[layer]][is_real],
            )
            for layer, source in self.sources.items()
        ]
        return torch.stack(losses).mean()
