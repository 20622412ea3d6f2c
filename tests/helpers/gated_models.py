"""Tiny models with gates, ways to close them, and the comparison of a masked model with a small one."""

import copy
import functools
import re

import pytest
import torch

from hf_prunable.modeling.units import UNITS
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, tiny_inputs, tiny_prunable


# float32 rounding over a few layers of values around 1; on the largest difference anywhere.
TOLERANCE = 1e-5
# log_alpha of gates whose value is 0 and 1, and around the two limits, which are at -2.398 and 2.398.
CLOSED, OPEN = -4.0, 4.0
LOG_ALPHAS = (-6.9, CLOSED, -2.4, -2.39, -2.0, -0.5, 0.0, 0.5, 2.0, 2.39, 2.4, OPEN)
NUM_LAYERS, NUM_HEADS, HEAD_DIM, INTERMEDIATE, SIZE = 3, 4, 6, 40, 24
# Fields of a configuration that change what a pruned model is made of.
VARIANTS = {
    "wavlm": ({}, {"conv_bias": True}, {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}),
    "hubert": ({}, {"conv_pos_batch_norm": True}, {"conv_pos_batch_norm": True, "feat_proj_layer_norm": False}),
    "wav2vec2": ({}, {"adapter_attn_dim": 5}, {"add_adapter": True, "output_hidden_size": 26}, {"conv_bias": True}),
}


@functools.cache
def _dense(family, norm_order, feature_norm, variant):
    return tiny_prunable(family, norm_order, feature_norm=feature_norm, **VARIANTS[family][variant])


def dense(family, norm_order="post", feature_norm="group", variant=0):
    return copy.deepcopy(_dense(family, norm_order, feature_norm, variant))


def gated(model, units=UNITS, log_alpha=OPEN):
    """The model with gates, all with the same log_alpha."""
    model.attach_gates(units)
    for _, gate in model.named_gates():
        gate.log_alpha.data.fill_(log_alpha)
    return model.eval()


def gate_of(model, layer, unit):
    layer = model.base_model.encoder.layers[layer]
    if unit in ("ffn", "int"):
        return layer.feed_forward.output_dense.gates[unit]
    return (layer.attention.q_proj if unit == "qk" else layer.attention.out_proj).gates[unit]


def close(model, layer, unit, *which):
    """Closes gates of a layer: all, or those named by numbers or slices."""
    log_alpha = gate_of(model, layer, unit).log_alpha.data
    for number in which or (slice(None),):
        log_alpha[number] = CLOSED


def head_dims(head):
    return slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)


@torch.no_grad()
def run(model, inputs, attention):
    model.set_attn_implementation(attention)
    return model(**inputs, output_hidden_states=True, output_attentions=attention == "eager")


def deviation(a, b):
    assert a.shape == b.shape
    assert torch.isfinite(a).all()
    return (a - b).abs().max().item()


def assert_same(masked, small, attention="eager", padded=True):
    """Compares a model with gates in evaluation mode with what `compact` made of it."""
    inputs = tiny_inputs(batch_size=2, samples=400, padded=padded)
    if not padded:
        del inputs["attention_mask"]
    expected, actual = run(masked, inputs, attention), run(small, inputs, attention)
    worst = deviation(expected.last_hidden_state, actual.last_hidden_state)
    assert len(expected.hidden_states) == len(actual.hidden_states) == len(masked.encoder.layers) + 1
    for one, other in zip(expected.hidden_states, actual.hidden_states, strict=True):
        worst = max(worst, deviation(one, other))
    if attention == "eager":
        layers = list(zip(masked.config.shape.layers, small.config.shape.layers, strict=True))
        assert len(expected.attentions) == len(actual.attentions) == len(layers)
        for one, other, (before, after) in zip(expected.attentions, actual.attentions, layers, strict=True):
            assert other.shape[1] == len(after.heads)
            if after.heads:
                worst = max(worst, deviation(one[:, [before.heads.index(head) for head in after.heads]], other))
    assert worst <= TOLERANCE
    return worst


def set_pattern(model, pattern, seed):
    """Sets each gate module open, closed, mixed, or open and closed by whole heads."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [layer.attention.shape for layer in model.encoder.layers]
    values = torch.tensor(LOG_ALPHAS)
    for (name, gate), mode in zip(model.named_gates(), pattern, strict=False):
        mixed = values[torch.randint(len(values), (gate.num_gates,), generator=generator)]
        unit = name.rsplit(".", 1)[1]
        if mode == "heads" and unit in ("qk", "vo"):
            shape = shapes[int(re.search(r"layers\.(\d+)\.", name)[1])]
            widths = shape.query_key if unit == "qk" else shape.value_output
            is_closed = torch.rand(len(widths), generator=generator) < 0.5
            mixed = mixed.where(~is_closed.repeat_interleave(torch.tensor(widths)), torch.tensor(CLOSED))
        gate.log_alpha.data = {"open": torch.full_like(mixed, OPEN), "closed": torch.full_like(mixed, CLOSED)}.get(
            mode, mixed
        )


def both_norm_orders(test):
    return pytest.mark.parametrize("family", FAMILIES)(pytest.mark.parametrize("norm_order", NORM_ORDERS)(test))
