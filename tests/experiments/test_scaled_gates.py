"""Transfer of learned gates to a larger model."""

import pytest
import torch

from experiments.scaled_gates import scale_gates_
from hf_prunable.modeling.units import DEFAULT_UNITS
from tests.helpers.tiny_models import tiny_prunable


def test_gates_grow_head_by_head_and_keep_their_shares():
    small = tiny_prunable("wavlm", num_hidden_layers=2, num_attention_heads=2)
    large = tiny_prunable("wavlm", num_hidden_layers=4, num_attention_heads=4, hidden_size=96, intermediate_size=200)
    for model in (small, large):
        model.attach_gates((*DEFAULT_UNITS, "conv"))
    learned = {}
    for number, (name, gate) in enumerate(small.named_gates()):
        learned[name] = torch.linspace(-4, 4, gate.num_gates).roll(5 * number) + number
    scale_gates_(large, learned, small.config)
    for layer in range(4):
        # 2 heads of 12 dimensions become 4 of 24.
        name = "encoder.layers.{}.attention.out_proj.gates.vo"
        old = learned[name.format(layer // 2)].split(12)
        new = dict(large.named_gates())[name.format(layer)].log_alpha.detach().split(24)
        for head, values in enumerate(new):
            source = old[head // 2]
            assert (values.max(), values.min()) == (source.max(), source.min())
            assert values.tolist() == sorted(values.tolist(), reverse=True)
            assert (values > 0).float().mean().item() == pytest.approx((source > 0).float().mean().item(), abs=1 / 12)
    conv = "feature_extractor.conv_layers.1.conv.gates.conv"
    torch.testing.assert_close(dict(large.named_gates())[conv].log_alpha, learned[conv].sort(descending=True).values)
    del learned[conv]
    with pytest.raises(ValueError, match=f"{conv} has no counterpart"):
        scale_gates_(large, learned, small.config)
