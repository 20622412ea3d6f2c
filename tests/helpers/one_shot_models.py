"""Tiny models and clips for one-shot pruning, and the rotation of a whole model."""

import copy
import functools
from dataclasses import replace

import torch

from hf_prunable import AttentionShape, LayerShape, PrunedShape
from hf_prunable.modeling.gated import GatedLinear
from hf_prunable.one_shot.config import OneShotConfig
from hf_prunable.one_shot.head_rotation import rotate_queries_and_keys_, rotate_values_and_outputs_
from hf_prunable.one_shot.statistics import NormalEquations
from tests.helpers.tiny_models import FAMILIES, FEATURE_NORMS, NORM_ORDERS, tiny_prunable


CHANNELS = (12, 16, 20)
DENSE_ATTENTION = AttentionShape.dense(4, 6)
# Ragged heads, one of them without queries; an attention block of a bias alone; a layer of which nothing is left.
RAGGED = PrunedShape(
    CHANNELS,
    (
        LayerShape(AttentionShape((0, 1, 3), (1, 5, 0), (3, 6, 2)), 11),
        LayerShape(AttentionShape((), (), ()), 7),
        LayerShape(None, None),
    ),
)
# Heads without queries throughout, a removed attention block, a feed-forward block of a bias alone.
NARROW = PrunedShape(
    CHANNELS,
    (
        LayerShape(AttentionShape((1, 2), (0, 0), (6, 5)), 0),
        LayerShape(None, 40),
        LayerShape(AttentionShape((0, 1, 2, 3), (6, 3, 2, 1), (1, 2, 3, 6)), None),
    ),
)
SHAPES = {"ragged": RAGGED, "narrow": NARROW}

# Name and arguments of each model: all families, norm orders and feature norms; adapters in layers; models pruned before.
VARIANTS = {
    f"{family}-{norm_order}-{feature_norm}": (family, {"norm_order": norm_order, "feature_norm": feature_norm})
    for family in FAMILIES
    for norm_order in NORM_ORDERS
    for feature_norm in FEATURE_NORMS
}
VARIANTS["adapters"] = ("wav2vec2", {"norm_order": "pre", "adapter_attn_dim": 5})
VARIANTS["output-adapter"] = ("wav2vec2", {"norm_order": "post", "add_adapter": True, "output_hidden_size": 26})
VARIANTS |= {
    f"{family}-{norm_order}-{name}": (family, {"norm_order": norm_order, "pruned_shape": shape.to_dict()})
    for family in FAMILIES
    for norm_order in NORM_ORDERS
    for name, shape in SHAPES.items()
}
# Convolutions pruned before; a channel of the first one is a group of its norm.
FEW_CHANNELS = replace(RAGGED, conv_channels=(5, 9, 20))
VARIANTS["wavlm-post-channels"] = ("wavlm", {"pruned_shape": FEW_CHANNELS.to_dict(), "conv_bias": True})
VARIANTS["adapters-ragged"] = ("wav2vec2", VARIANTS["adapters"][1] | {"pruned_shape": RAGGED.to_dict()})

FAST = OneShotConfig(reconstruction_steps=0, batch_size=5)


@functools.cache
def _variant(name):
    family, config = VARIANTS[name]
    return tiny_prunable(family, **config)


def variant(name):
    """A model of `VARIANTS` that the caller may change."""
    return copy.deepcopy(_variant(name))


def make_clips(num_clips=16, samples=400, seed=0):
    """Noise clips; a clip of 400 samples has 19 frames in tiny models."""
    return torch.randn(num_clips, samples, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def hidden_states(model, clips):
    """All hidden states of a model, and what its head returns."""
    output = model(clips, output_hidden_states=True)
    found = [*output.hidden_states]
    return found + [output[name] for name in ("logits", "last_hidden_state") if name in output]


def assert_near(model, other, clips, tolerance):
    for one, two in zip(hidden_states(model, clips), hidden_states(other, clips), strict=True):
        assert torch.isfinite(one).all()
        assert one.dtype == two.dtype
        torch.testing.assert_close(one, two, rtol=0, atol=tolerance)


@torch.no_grad()
def captured_inputs(model, modules, clips):
    """First input of each module when the clips run through the model."""
    captured = {}

    def capture(module, args, kwargs):
        captured[module] = args[0]

    hooks = [module.register_forward_pre_hook(capture, with_kwargs=True) for module in modules]
    try:
        model(clips)
    finally:
        for hook in hooks:
            hook.remove()
    return [captured[module] for module in modules]


@torch.no_grad()
def rotate_model_(model, clips):
    """Rotates all heads of a model; returns the energies of scores and outputs, by layer that has them."""
    scores, outputs = {}, {}
    for layer_idx, layer in enumerate(model.base_model.encoder.layers):
        attention = layer.attention
        if not attention.heads:
            continue
        (states,) = captured_inputs(model, [attention], clips)
        scores[layer_idx] = rotate_queries_and_keys_(attention, [states])
        if isinstance(attention.out_proj, GatedLinear):
            (contexts,) = captured_inputs(model, [attention.out_proj], clips)
            equations = NormalEquations(contexts.shape[-1], model.config.hidden_size, model.device)
            equations.add(contexts, torch.zeros(*contexts.shape[:-1], model.config.hidden_size))
            outputs[layer_idx], _ = rotate_values_and_outputs_(attention, equations)
    return scores, outputs
