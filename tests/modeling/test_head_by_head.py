"""Attention one head after the other is attention."""

import pytest
import torch

from hf_prunable import AttentionShape
from hf_prunable.modeling import head_by_head
from hf_prunable.modeling.head_by_head import GatedPositionBias, attend_head_by_head
from hf_prunable.modeling.wavlm import bias_of_pairs


SCALING = 0.3


def reference(query, key, value, query_key_widths, value_output_widths, bias):
    outputs, query_key, value_output = [], 0, 0
    for head, (width, value_width) in enumerate(zip(query_key_widths, value_output_widths, strict=True)):
        scores = bias[:, head]
        if width:
            part = slice(query_key, query_key + width)
            scores = scores + SCALING * query[..., part] @ key[..., part].mT
        outputs.append(scores.softmax(-1) @ value[..., value_output : value_output + value_width])
        query_key, value_output = query_key + width, value_output + value_width
    return torch.cat(outputs, -1)


@pytest.mark.parametrize("scores_at_a_time", [1, 40, 2**19])
@pytest.mark.parametrize("query_key_widths", [(3, 0, 7), (0, 0, 0)])
def test_equals_padded_heads(monkeypatch, query_key_widths, scores_at_a_time):
    monkeypatch.setattr(head_by_head, "SCORES_AT_A_TIME", scores_at_a_time)
    torch.manual_seed(0)
    frames, value_output_widths = 17, (2, 5, 1)
    query, key = torch.randn(2, 2, frames, sum(query_key_widths))
    value = torch.randn(2, frames, sum(value_output_widths))
    gate, table = torch.rand(2, 3, frames, 1), torch.randn(3, 2 * frames - 1)
    expected = reference(query, key, value, query_key_widths, value_output_widths, gate * bias_of_pairs(table))
    if not any(query_key_widths):
        query = key = None
    shape = AttentionShape((0, 1, 2), query_key_widths, value_output_widths)
    output = attend_head_by_head(query, key, value, shape, GatedPositionBias(gate, table), SCALING)
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)
