"""Audio that one-shot pruning takes its statistics from."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist

from ..modeling.gated import GatedLinear, OutputBias
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.shape import PrunedShape
from ..modeling.size import SAMPLING_RATE, count_frames
from ..pruning.fidelity import incomparable_reason
from ..runtime.messages import first_names


Value = TypeVar("Value")


def rank_and_size() -> tuple[int, int]:
    """Returns rank and number of the processes of a distributed run; (0, 1) without one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def from_first_process(value: Value) -> Value:
    """Returns a value of the first process in all processes of a distributed run; all must call it.

    Args:
        value: Value of this process.
    """
    if rank_and_size()[1] == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def own_clips(clips: torch.Tensor) -> torch.Tensor:
    """Returns the clips that this process computes: every n-th of n processes.

    Args:
        clips: All clips, of shape (clips, samples).
    """
    rank, num_ranks = rank_and_size()
    return clips[rank::num_ranks]


def own_share(num_clips: int) -> int:
    """Returns how many of the first clips this process computes, at least 1.

    Args:
        num_clips: Number of the first clips over all processes.
    """
    rank, num_ranks = rank_and_size()
    return max(1, len(range(rank, num_clips, num_ranks)))


def check_clips(clips: torch.Tensor, model: PrunableModelMixin, allow_few_frames: bool = False) -> None:
    """Checks the audio that statistics are taken from.

    Args:
        clips: Audio of shape (clips, samples), normalised as the model wants it.
        model: Base or head model.
        allow_few_frames: Whether there may be fewer frames than a layer has inputs.

    Raises:
        ValueError: If the clips are no matrix, hold values that are not finite, are silent, all equal or too short, are
            fewer than the processes that share them, or have too few frames.
    """
    if not isinstance(clips, torch.Tensor) or clips.dim() != 2 or not clips.is_floating_point():
        found = (
            f"shape {tuple(clips.shape)} and {clips.dtype}"
            if isinstance(clips, torch.Tensor)
            else type(clips).__name__
        )
        raise ValueError(
            "Calibration clips must be one tensor of floating-point numbers of shape (clips, samples), but are "
            f"{found}. Cut clips of different lengths to one length first."
        )
    if not len(clips):
        raise ValueError("There are no calibration clips. Give at least one, better a hundred.")
    if len(clips) < (num_ranks := rank_and_size()[1]):
        raise ValueError(
            f"{num_ranks} processes share {len(clips)} calibration clips, and each needs one. Give more clips, or start "
            "fewer processes."
        )
    if bad := _clips_where(~clips.isfinite().all(1)):
        raise ValueError(f"Calibration clips hold NaN or infinite values: {bad}. Leave them out.")
    if bad := _clips_where(clips.amax(1) == clips.amin(1)):
        raise ValueError(f"Calibration clips are silent, with one value in all samples: {bad}. Leave them out.")
    if len(clips) > 1 and bool((clips == clips[0]).all()):
        raise ValueError(f"All {len(clips)} calibration clips are the same. Give different ones, of many speakers.")
    num_frames = count_frames(model.config, clips.shape[1])
    if num_frames < 1:
        raise ValueError(f"Calibration clips of {clips.shape[1]} samples are too short for one frame of this model.")
    needed, num_rows = _largest_input(model.config.shape), num_frames * len(clips)
    if num_rows < needed and not allow_few_frames:
        seconds = needed * clips.shape[1] / num_frames / SAMPLING_RATE
        raise ValueError(
            f"The calibration clips have {num_rows} frames, and a layer of this model has {needed} inputs, which the frames "
            f"cannot tell apart. Give at least {seconds:.0f} s of audio in all, better ten times that, or set "
            "`allow_few_frames` to let the ridge decide."
        )


def _clips_where(is_bad: torch.Tensor) -> str:
    """Returns the indices of some clips as text; empty for none."""
    return first_names([str(index) for index in is_bad.nonzero().flatten().tolist()]) if is_bad.any() else ""


def _largest_input(shape: PrunedShape) -> int:
    """Returns the largest number of inputs of an output layer."""
    contexts = [sum(layer.attention.value_output) for layer in shape.layers if layer.attention is not None]
    return max([layer.intermediate or 0 for layer in shape.layers] + contexts, default=0)


def check_models(model: PrunableModelMixin, teacher: PrunableModelMixin) -> None:
    """Checks that a model can be pruned by statistics, with the hidden states of a teacher as target.

    Args:
        model: Base or head model.
        teacher: Base or head model.

    Raises:
        ValueError: If a model is not prunable, has gates, was prepared for inference or has foreign modules, or the two
            do not fit.
    """
    for role, candidate in (("model", model), ("teacher", teacher)):
        if not isinstance(candidate, PrunableModelMixin):
            raise ValueError(
                f"The {role} is a {type(candidate).__name__}. Load it with `hf_prunable.load_prunable(folder)`; take "
                "adapters off or merge them first."
            )
        if candidate.config.gates is not None:
            raise ValueError(
                f"The {role} has gates on {', '.join(candidate.config.gates['units'])}. Call `compact(model)` or "
                "`model.detach_gates()` first."
            )
        candidate._check_not_prepared()
        for name, module in candidate.base_model.encoder.named_modules():
            if (
                name.startswith("layers.")
                and name.endswith(("_proj", "_dense"))
                and not isinstance(module, GatedLinear | OutputBias)
            ):
                raise ValueError(
                    f"In the {role}, encoder.{name} is a {type(module).__name__}, of a tool that has changed the "
                    "model. Merge or remove what it added first."
                )
    if reason := incomparable_reason(model.config, teacher.config):
        raise ValueError(reason)
    if model.config.do_stable_layer_norm != teacher.config.do_stable_layer_norm:
        raise ValueError(
            "Model and teacher differ in the order of their norms. Give a teacher of the same family and size."
        )
