"""Fidelity: how near the hidden states of a pruned model are to its teacher's, measured directly, without a projection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..runtime.evaluation_mode import evaluation_mode
from .distillation import captured_hidden_states, default_layers, layer_loss
from .frames import frame_difference, real_frames


# Key of the feature projection's output among the hidden states of a batch, which have their index as key.
PROJECTED_FEATURES = -1


@dataclass
class Fidelity:
    """Agreement of a student's hidden states with its teacher's.

    The index of a hidden state is that of `output_hidden_states=True`: 0 is the input of the first layer. If both models
    have the same number of layers, the last one is the encoder's output, `last_hidden_state`.

    Attributes:
        cosine: Mean cosine similarity over frames, for each hidden state.
        relative_error: Frobenius norm of the difference divided by that of the teacher's hidden state, over all frames,
            for each hidden state.
        distillation_loss: Mean of `layer_loss` over the layers of `default_layers`, without a projection. As in
            `captured_hidden_states`, its layer 0 is the output of the feature projection.
        num_frames: Number of frames compared, without padding.
    """

    cosine: list[float]
    relative_error: list[float]
    distillation_loss: float
    num_frames: int

    @property
    def mean_cosine(self) -> float:
        """Mean of `cosine` over the hidden states."""
        return sum(self.cosine) / len(self.cosine)


def incomparable_reason(student_config: PreTrainedConfig, teacher_config: PreTrainedConfig) -> str | None:
    """Returns why the hidden states of two models cannot be compared without a projection; `None` if they can.

    Args:
        student_config: Configuration of the student.
        teacher_config: Configuration of the teacher.
    """
    if student_config.hidden_size != teacher_config.hidden_size:
        return (
            f"Hidden states are compared without a projection, but the hidden size of the student is "
            f"{student_config.hidden_size} and that of the teacher {teacher_config.hidden_size}. Give a teacher of the "
            "same hidden size."
        )
    if student_config.num_hidden_layers > teacher_config.num_hidden_layers:
        return (
            f"Hidden states are compared one by one, but the student has {student_config.num_hidden_layers} layers and "
            f"the teacher {teacher_config.num_hidden_layers}. Give a teacher that is at least as deep."
        )
    return frame_difference(student_config, teacher_config)


def measure_fidelity(
    student: PreTrainedModel, teacher: PreTrainedModel, batches: Iterable[Mapping[str, torch.Tensor]]
) -> Fidelity:
    """Compares each hidden state of a student with the teacher's hidden state of the same index.

    Both models run once per batch, in evaluation mode. A student with fewer layers than its teacher is compared with the
    teacher's first hidden states; its last one is then taken before the final norm of pre-norm models, as the teacher's.

    Args:
        student: Stock or prunable model, with or without a head.
        teacher: Stock or prunable model of the same hidden size and at least the same depth, with or without a head.
        batches: Batches with `input_values` of shape (batch, samples) and, for padded clips, `attention_mask` of the
            same shape, 0 where samples are padding. Frames of padding do not count. Other entries are not used.

    Returns:
        The agreement over all frames; each frame has the same weight.

    Raises:
        ValueError: If the hidden states cannot be compared, or there is no frame.
    """
    reason = incomparable_reason(student.config, teacher.config)
    if reason is not None:
        raise ValueError(reason)
    depth = student.config.num_hidden_layers
    has_final_norm = depth == teacher.config.num_hidden_layers
    sums = _Sums(depth)
    with evaluation_mode([student, teacher]):
        for batch in batches:
            states, targets = (_hidden_states(model, batch, has_final_norm) for model in (student, teacher))
            mask = batch.get("attention_mask")
            if mask is not None:
                is_real = real_frames(student.config, mask, states[0].shape[1])
                states, targets = _selected(states, is_real), _selected(targets, is_real)
            sums.add(states, targets)
    return sums.fidelity()


def _hidden_states(
    model: PreTrainedModel, batch: Mapping[str, torch.Tensor], has_final_norm: bool
) -> dict[int, torch.Tensor]:
    """Runs a model without its head and returns its hidden states of a batch.

    Args:
        model: Student or teacher.
        batch: Batch as in `measure_fidelity`.
        has_final_norm: Whether the last hidden state is taken after the final norm of pre-norm models.

    Returns:
        Hidden states of shape (batch, frames, hidden size) by index, and with the key `PROJECTED_FEATURES` the output of
        the feature projection.
    """
    depth = model.config.num_hidden_layers
    inputs = {name: batch[name].to(model.device) for name in ("input_values", "attention_mask") if name in batch}
    inputs["input_values"] = inputs["input_values"].to(model.dtype)
    with captured_hidden_states(model, [0, depth]) as captured:
        states = dict(enumerate(model.base_model(**inputs, output_hidden_states=True).hidden_states))
    states[PROJECTED_FEATURES] = captured[0]
    if has_final_norm:
        states[depth] = captured[depth]
    return states


def _selected(states: dict[int, torch.Tensor], is_real: torch.Tensor) -> dict[int, torch.Tensor]:
    """Selects frames; the results have shape (frames, hidden size)."""
    return {key: state[is_real.to(state.device)] for key, state in states.items()}


class _Sums:
    """Sums over frames, in float64 on the CPU.

    Args:
        num_layers: Number of layers of the student.
    """

    def __init__(self, num_layers: int):
        self.loss_keys = [PROJECTED_FEATURES if layer == 0 else layer for layer in default_layers(num_layers)]
        self.cosine, self.squared_error, self.squared_target = torch.zeros(3, num_layers + 1, dtype=torch.float64)
        self.loss = torch.zeros((), dtype=torch.float64)
        self.num_frames = 0

    def add(self, states: dict[int, torch.Tensor], targets: dict[int, torch.Tensor]) -> None:
        """Adds the frames of a batch.

        Args:
            states: Hidden states of the student by index, of shape (..., hidden size).
            targets: Hidden states of the teacher, of the same shapes; those of further layers are not used.
        """
        num_frames = states[0].shape[:-1].numel()
        if num_frames == 0:
            return
        self.num_frames += num_frames
        pairs = {key: (state.float(), targets[key].to(state.device).float()) for key, state in states.items()}
        for index in range(len(self.cosine)):
            state, target = pairs[index]
            self.cosine[index] += _total(nn.functional.cosine_similarity(state, target, dim=-1))
            self.squared_error[index] += _total((state - target).square().sum(-1))
            self.squared_target[index] += _total(target.square().sum(-1))
        losses = torch.stack([layer_loss(*pairs[key]) for key in self.loss_keys])
        self.loss += num_frames * losses.cpu().double().mean()

    def fidelity(self) -> Fidelity:
        """Divides the sums by the number of frames and by the teacher's norms.

        Raises:
            ValueError: If there is no frame.
        """
        if self.num_frames == 0:
            raise ValueError(
                "Fidelity needs at least one frame of audio, but the batches hold none. Give longer clips."
            )
        return Fidelity(
            cosine=(self.cosine / self.num_frames).tolist(),
            relative_error=(self.squared_error / self.squared_target).sqrt().tolist(),
            distillation_loss=(self.loss / self.num_frames).item(),
            num_frames=self.num_frames,
        )


def _total(values: torch.Tensor) -> torch.Tensor:
    """Returns the sum in float64, on the CPU because not every accelerator has float64."""
    return values.cpu().double().sum()
