"""Frames that a student and its teacher make of the same audio: whether they match, and which of them are padding."""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig

from ..modeling.size import count_frames


def frame_difference(student_config: PreTrainedConfig, teacher_config: PreTrainedConfig) -> str | None:
    """Returns why the frames of student and teacher do not match; `None` if they do.

    Args:
        student_config: Configuration of the student.
        teacher_config: Configuration of the teacher.
    """
    for field in ("conv_kernel", "conv_stride"):
        if list(getattr(student_config, field)) != list(getattr(teacher_config, field)):
            return (
                f"Teacher and student must cut audio into the same frames, but `{field}` is "
                f"{list(getattr(teacher_config, field))} and {list(getattr(student_config, field))}."
            )
    return None


def real_frames(config: PreTrainedConfig, attention_mask: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Returns which frames of the encoder are audio and which are padding.

    Args:
        config: Configuration of the model.
        attention_mask: 0 where samples are padding, else 1, of shape (batch, samples). Padding is at the end.
        num_frames: Number of frames of each clip, with those of padding.

    Returns:
        Boolean mask of shape (batch, frames), true for frames of audio.
    """
    lengths = count_frames(config, attention_mask.sum(-1))
    return torch.arange(num_frames, device=attention_mask.device) < lengths[:, None]
