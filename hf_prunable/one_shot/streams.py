"""Hidden states of all calibration clips, carried through a model from block to block."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

from ..modeling.pretrained import PrunableModelMixin
from .blocks import AttentionBlock, FeedForwardBlock, add_output


class Stream:
    """Residual stream of a model on calibration clips of one length.

    Only the present hidden states are kept: memory grows with the audio, not with the depth of the model.

    Args:
        model: Base model in evaluation mode.
        clips: Audio, of shape (clips, samples), on any device.
        batch_size: Number of clips that are computed at once, 1 or more.

    Attributes:
        states: Present hidden states, of shape (clips, frames, hidden size), on the model's device.
        position_bias: Position bias of the preceding layer, for families with one; else `None`.
    """

    def __init__(self, model: PrunableModelMixin, clips: torch.Tensor, batch_size: int):
        self.batch_size = batch_size
        batches = clips.split(batch_size)
        self.states = torch.cat([model.embed_frames(batch.to(model.device, model.dtype)) for batch in batches])
        self.position_bias: Any = None

    def batches(self) -> Iterator[torch.Tensor]:
        """Yields the present hidden states in batches of clips."""
        yield from self.states.split(self.batch_size)

    def attention_sums(self, block: AttentionBlock) -> Iterator[torch.Tensor]:
        """Yields stream plus attention in batches, and passes the position bias on.

        Args:
            block: Attention block of the layer that reads the present states.
        """
        position_bias = self.position_bias
        for states in self.batches():
            features, self.position_bias = block.features(states, position_bias)
            yield add_output(states, features, block.output_layer)

    def feed_forward_sums(self, block: FeedForwardBlock) -> Iterator[torch.Tensor]:
        """Yields stream plus feed-forward block in batches.

        Args:
            block: Feed-forward block of the layer that reads the present states.
        """
        for states in self.batches():
            yield add_output(states, block.features(states), block.output_layer)

    def replace(self, batches: list[torch.Tensor]) -> None:
        """Replaces the present hidden states.

        Args:
            batches: New hidden states in batches of clips.
        """
        self.states = torch.cat(batches)


def paired_streams(
    student: PrunableModelMixin, teacher: PrunableModelMixin, clips: torch.Tensor, batch_size: int
) -> tuple[Stream, Stream]:
    """Returns the streams of student and teacher; what precedes the first layer is computed once if it is the same in both.

    Args:
        student: Base model in evaluation mode.
        teacher: Base model in evaluation mode.
        clips: Audio, of shape (clips, samples), on any device.
        batch_size: Number of clips that are computed at once, 1 or more.
    """
    stream = Stream(student, clips, batch_size)
    if not _have_equal_front_ends(student, teacher):
        return stream, Stream(teacher, clips, batch_size)
    return stream, copy.copy(stream)


def _have_equal_front_ends(student: PrunableModelMixin, teacher: PrunableModelMixin) -> bool:
    """Returns whether everything before the first layer has equal weights."""
    states = (
        {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("encoder.layers.")}
        for model in (student, teacher)
    )
    own, wanted = states
    return own.keys() == wanted.keys() and all(
        own[name].shape == wanted[name].shape and torch.equal(own[name], wanted[name]) for name in own
    )
