"""Attention of heads of different widths with a gated position bias, one head after the other: for a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch


# Scores that are there at a time. Their 2 MB in float32 stay in a processor's cache from one step to the next.
SCORES_AT_A_TIME = 2**19
# With fewer frames, one product for all heads costs less than the calls for each.
LEAST_FRAMES = 200


def attend_head_by_head(
    query: torch.Tensor | None,
    key: torch.Tensor | None,
    value: torch.Tensor,
    query_key_widths: Sequence[int],
    value_output_widths: Sequence[int],
    bias_gate: torch.Tensor,
    bias_table: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """Attends without padding heads to one width, and without a position bias for every pair of frames.

    Queries are taken in reverse order: the biases of each then begin one place further in the table than those of the
    query before, and are read where they are.

    Args:
        query: Of shape (batch, frames, query/key dimensions of all heads); `None` where there are none.
        key: Of the same shape.
        value: Of shape (batch, frames, value/output dimensions of all heads).
        query_key_widths: Query/key dimensions of each head.
        value_output_widths: Value/output dimensions of each head.
        bias_gate: What each query's biases are multiplied with, of shape (batch, heads, frames, 1).
        bias_table: Biases by distance, from 1 - frames to frames - 1, of shape (heads, 2 frames - 1).
        scaling: Of the scores.

    Returns:
        A tensor like `value`. No gradients pass.
    """
    num_frames = value.shape[1]
    windows = bias_table.unfold(-1, num_frames, 1)
    bias_gate = bias_gate.flip(2)
    queries = [None] * len(windows) if query is None else query.flip(1).split(query_key_widths, dim=-1)
    keys = queries if key is None else key.split(query_key_widths, dim=-1)
    values = value.split(value_output_widths, dim=-1)
    reversed_output = torch.empty_like(value)
    outputs = reversed_output.split(value_output_widths, dim=-1)
    rows = min(num_frames, max(1, SCORES_AT_A_TIME // num_frames))
    memory = value.new_empty(rows, num_frames)
    for clip in range(len(value)):
        for head, widths in enumerate(query_key_widths):
            for first in range(0, num_frames, rows):
                part = slice(first, min(first + rows, num_frames))
                scores = memory[: part.stop - first]
                torch.mul(windows[head, part], bias_gate[clip, head, part], out=scores)
                if widths:
                    scores.addmm_(queries[head][clip, part], keys[head][clip].t(), alpha=scaling)
                torch.softmax(scores, dim=-1, out=scores)
                torch.mm(scores, values[head][clip], out=outputs[head][clip, part])
    return reversed_output.flip(1)
