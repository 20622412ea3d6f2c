"""The two blocks of a layer compute what the layer does."""

import pytest
import torch

from hf_prunable.modeling.gated import OutputBias
from hf_prunable.one_shot.blocks import AttentionBlock, FeedForwardBlock, add_output
from tests.helpers.one_shot_models import VARIANTS, variant


# Rounding of float32 over one block.
TOLERANCE = 1e-6


def run_attention(layer, states, position_bias):
    block = AttentionBlock(layer)
    features, position_bias = block.features(states, position_bias)
    return block.normalize(add_output(states, features, block.output_layer)), position_bias, features


def run_feed_forward(layer, states):
    block = FeedForwardBlock(layer)
    features = block.features(states)
    return block.adapt(block.normalize(add_output(states, features, block.output_layer))), features


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_blocks_are_the_layer(name):
    model = variant(name)
    states = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(0))
    expected_bias = position_bias = None
    for layer, shape in zip(model.encoder.layers, model.config.shape.layers, strict=True):
        expected, expected_bias = layer.add_attention(states, None, expected_bias)
        actual, position_bias, features = run_attention(layer, states, position_bias)
        torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)
        assert features.shape == (2, 9, sum(shape.attention.value_output) if shape.attention else 0)
        assert (position_bias is None) == (expected_bias is None)
        if position_bias is not None:
            assert torch.equal(position_bias, expected_bias)
        states = expected
        expected = layer.add_feed_forward(states)
        actual, features = run_feed_forward(layer, states)
        torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)
        assert features.shape == (2, 9, shape.intermediate or 0)
        states = expected


@pytest.mark.parametrize("name", ["wavlm-post-group", "wavlm-pre-layer", "wav2vec2-post-ragged"])
@torch.no_grad()
def test_a_block_that_is_given_up_adds_nothing(name):
    """Whatever the features are, a block without output layer leaves its stream to the norm."""
    layer = variant(name).encoder.layers[0]
    states = torch.randn(2, 9, 24)
    for block in (AttentionBlock(layer), FeedForwardBlock(layer)):
        block.output_layer = None
        assert add_output(states, torch.randn(2, 9, 7), block.output_layer) is states
    # The bias of the positions reaches the next layer still.
    block = AttentionBlock(layer)
    _, expected = block.features(states, None)
    block.output_layer = None
    features, position_bias = block.features(states, None)
    assert features.shape == (2, 9, 0)
    assert (position_bias is None) == (expected is None)


def test_hooks_are_removed():
    layer = variant("hubert-post-group").encoder.layers[0]
    AttentionBlock(layer).features(torch.randn(2, 9, 24), None)
    assert not layer.attention.out_proj._forward_pre_hooks
    with pytest.raises(RuntimeError):
        AttentionBlock(layer).features(torch.randn(2, 9, 25), None)
    assert not layer.attention.out_proj._forward_pre_hooks


@torch.no_grad()
def test_blocks_of_a_bias_alone():
    layers = variant("hubert-pre-ragged").encoder.layers
    states = torch.randn(2, 9, 24)
    block = AttentionBlock(layers[1])
    assert isinstance(block.output_layer, OutputBias)
    features, _ = block.features(states, None)
    torch.testing.assert_close(add_output(states, features, block.output_layer), states + block.output_layer.bias)
    removed = FeedForwardBlock(layers[2])
    assert removed.output_layer is None and removed.features(states).shape == (2, 9, 0)
