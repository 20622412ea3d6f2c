"""Attention over heads of different widths with a gated position bias, one head at a time: for CPUs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .shape import AttentionShape


# Number of scores in memory at a time: 2 MB in float32, which stay in a processor's cache between operations.
SCORES_AT_A_TIME = 2**19
# With fewer frames, one product for all heads takes less time than the calls for each head.
MIN_FRAMES = 200


@dataclass
class GatedPositionBias:
    """Relative position bias of a block's heads, and the gate that each query multiplies it with.

    Attributes:
        gate: Gate of each query, of shape (batch, heads, frames, 1).
        bias: Bias of every distance from 1 - frames to frames - 1, of shape (heads, 2 frames - 1); or of every pair of
            frames, of shape (heads, frames, frames).
    """

    gate: torch.Tensor
    bias: torch.Tensor


def attend_head_by_head(
    query: torch.Tensor | None,
    key: torch.Tensor | None,
    value: torch.Tensor,
    shape: AttentionShape,
    position_bias: GatedPositionBias,
    scaling: float,
) -> torch.Tensor:
    """Attends without padding heads to one width, and without computing a position bias for every pair of frames.

    Queries are processed in reverse order: the biases of each then begin one entry later in the table than those of the
    query before, and can be read as views.

    Args:
        query: Queries, of shape (batch, frames, query/key dimensions of all heads); `None` if there are none.
        key: Keys, of the same shape; `None` if there are none.
        value: Values, of shape (batch, frames, value/output dimensions of all heads).
        shape: Widths of the heads.
        position_bias: Position bias of these heads, by distance.
        scaling: Factor of the products of queries and keys.

    Returns:
        A tensor of the shape of `value`, without gradients.
    """
    num_frames = value.shape[1]
    windows = position_bias.bias.unfold(-1, num_frames, 1)
    gate = position_bias.gate.flip(2)
    # Without any query/key dimension, all widths are 0.
    query, key = (value[..., :0] if states is None else states for states in (query, key))
    queries, keys = query.flip(1).split(shape.query_key, dim=-1), key.split(shape.query_key, dim=-1)
    values = value.split(shape.value_output, dim=-1)
    reversed_output = torch.empty_like(value)
    outputs = reversed_output.split(shape.value_output, dim=-1)
    rows = min(num_frames, max(1, SCORES_AT_A_TIME // num_frames))
    memory = value.new_empty(rows, num_frames)
    for clip in range(len(value)):
        for head, width in enumerate(shape.query_key):
            for first in range(0, num_frames, rows):
                part = slice(first, min(first + rows, num_frames))
                scores = memory[: part.stop - first]
                torch.mul(windows[head, part], gate[clip, head, part], out=scores)
                if width:
                    scores.addmm_(queries[head][clip, part], keys[head][clip].t(), alpha=scaling)
                torch.softmax(scores, dim=-1, out=scores)
                torch.mm(scores, values[head][clip], out=outputs[head][clip, part])
    return reversed_output.flip(1)
