"""Reconstruction of one feed-forward block: gradient steps that bring its output, behind the norm, to the teacher's.

Block by block as in BRECQ (Li et al. 2021, arXiv 2102.05426): no gradient crosses the block, and its inputs stay fixed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers.utils import logging

from .blocks import FeedForwardBlock
from .calibration import rank_and_size
from .config import OneShotConfig
from .statistics import sum_over_processes_


logger = logging.get_logger(__name__)

# Frames that the error is compared on before and after the steps.
CHECKED_FRAMES = 8192
# Steps over which the learning rate rises from 0; it then falls to 0 linearly.
WARMUP_STEPS = 10


class FrameSample:
    """Random frames of all clips, the same whatever number of processes hold the clips.

    Args:
        num_clips: Number of clips over all processes.
        num_frames: Number of frames of a clip.
        seed: Random seed.
        device: Device of the hidden states.
    """

    def __init__(self, num_clips: int, num_frames: int, seed: int, device: torch.device):
        self.num_clips, self.num_frames, self.device = num_clips, num_frames, device
        self.generator = torch.Generator().manual_seed(seed)
        self.rank, self.num_ranks = rank_and_size()

    def draw(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws frames with replacement.

        Args:
            size: Number of frames over all processes.

        Returns:
            Indices of clips and frames for this process, each of shape (frames of this process,).
        """
        drawn = torch.randint(self.num_clips * self.num_frames, (size,), generator=self.generator)
        clip, frame = drawn // self.num_frames, drawn % self.num_frames
        is_own = clip % self.num_ranks == self.rank
        return (clip[is_own] // self.num_ranks).to(self.device), frame[is_own].to(self.device)


def reconstruct_feed_forward_(
    block: FeedForwardBlock,
    kept: torch.Tensor,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    sample: FrameSample,
    config: OneShotConfig,
) -> None:
    """Trains the kept units of a feed-forward block, its output bias and the norm behind it, in place.

    The loss is the mean squared error of the residual stream behind the block. If it does not fall, the block stays as it was
    refitted.

    Args:
        block: Feed-forward block, refitted.
        kept: Indices of the intermediate units that stay, of shape (kept units,).
        inputs: Residual stream before the block, of shape (clips of this process, frames, hidden size).
        targets: Residual stream of the teacher behind its block, of the same shape.
        sample: Sample of the frames.
        config: Number of steps, frames of a step, and learning rate.
    """
    feed_forward, norm = block.feed_forward, None if block.layer.pre_norm else block.layer.final_layer_norm
    first, last = feed_forward.intermediate_dense, feed_forward.output_dense
    assert last.weight is not None
    values = [first.weight.data[kept], first.bias.data[kept], last.weight.data[:, kept], last.bias.data]
    if norm is not None:
        values += [norm.weight.data, norm.bias.data]
    parameters = [nn.Parameter(value.clone()) for value in values]
    rates = [config.reconstruction_rate * float(value.square().mean().sqrt()) for value in values]
    optimizer = torch.optim.Adam(
        [{"params": [parameter], "lr": rate} for parameter, rate in zip(parameters, rates, strict=True)],
        betas=(0.9, 0.99),
    )

    def error(size: int) -> torch.Tensor:
        """Returns this process's part of the mean squared error on random frames."""
        clips, frames = sample.draw(size)
        difference = _block_output(block, parameters, inputs[clips, frames]) - targets[clips, frames]
        return difference.square().sum() / (size * difference.shape[-1])

    errors = [sum_over_processes_(error(CHECKED_FRAMES))]
    for step in range(config.reconstruction_steps):
        factor = min(1.0, (step + 1) / WARMUP_STEPS) * (1 - step / config.reconstruction_steps)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        with torch.enable_grad():
            loss = error(config.reconstruction_frames)
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = sum_over_processes_(gradient.contiguous())
        optimizer.step()
    errors.append(sum_over_processes_(error(CHECKED_FRAMES)))
    if not errors[1] < errors[0]:
        logger.info(
            f"The reconstruction of a feed-forward block is undone: the mean squared error went from {float(errors[0]):.3g} "
            f"to {float(errors[1]):.3g}."
        )
        return
    first.weight.data[kept], first.bias.data[kept] = parameters[0].data, parameters[1].data
    last.weight.data[:, kept] = parameters[2].data
    last.bias.data.copy_(parameters[3].data)
    if norm is not None:
        norm.weight.data.copy_(parameters[4].data)
        norm.bias.data.copy_(parameters[5].data)


def _block_output(block: FeedForwardBlock, parameters: Sequence[torch.Tensor], states: torch.Tensor) -> torch.Tensor:
    """Returns the residual stream behind a feed-forward block with other parameters.

    Args:
        block: Feed-forward block.
        parameters: Weight and bias of its first and its output layer, and those of the norm behind it if there is one.
        states: Residual stream before the block, of shape (frames, hidden size).
    """
    first_weight, first_bias, last_weight, last_bias = parameters[:4]
    activations = nn.functional.linear(block.before(states), first_weight, first_bias)
    activations = block.feed_forward.intermediate_act_fn(activations)
    output = states + nn.functional.linear(activations, last_weight, last_bias)
    norm = block.layer.final_layer_norm
    if block.layer.pre_norm or norm is None:
        return output
    return nn.functional.layer_norm(output, output.shape[-1:], parameters[4], parameters[5], norm.eps)
