"""The feature encoder as matrix products is the feature encoder."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable.modeling import matmul_feature_encoder
from hf_prunable.modeling.feature_encoder import PrunableFeatureEncoder
from hf_prunable.modeling.matmul_feature_encoder import MatmulFeatureEncoder
from tests.helpers.tiny_models import FEATURE_NORMS, randomize_, tiny_config


def both(channels=(12, 5, 20), **options):
    """A feature encoder with random weights, and its form as matrix products.

    In double precision: a norm over a few channels that are almost equal enlarges any rounding.
    """
    config = tiny_config("wavlm", prunable=True, **options)
    encoder = randomize_(PrunableFeatureEncoder(config, channels)).double().eval()
    return encoder, MatmulFeatureEncoder(encoder, config)


@torch.no_grad()
def assert_same(encoder, products, inputs):
    inputs = inputs.double()
    torch.testing.assert_close(products(inputs), encoder(inputs), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("conv_bias", [False, True])
@pytest.mark.parametrize("feature_norm", FEATURE_NORMS)
@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_equals_convolutions(monkeypatch, batch_size, feature_norm, conv_bias):
    encoder, products = both(feature_norm=feature_norm, conv_bias=conv_bias)
    # Through one frame, parts that are not whole, and several clips at a time.
    for frames_at_a_time in (1, 5, 128):
        monkeypatch.setattr(matmul_feature_encoder, "FRAMES_AT_A_TIME", frames_at_a_time)
        for samples in (50, 311, 999):
            assert_same(encoder, products, torch.randn(batch_size, samples))


@given(
    layers=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=4),
    feature_norm=st.sampled_from(FEATURE_NORMS),
    extra_samples=st.integers(1, 200),
)
def test_any_kernels_strides_and_channels(layers, feature_norm, extra_samples):
    kernels, strides, channels = zip(*layers, strict=True)
    encoder, products = both(
        channels, conv_dim=channels, conv_kernel=kernels, conv_stride=strides, feature_norm=feature_norm
    )
    torch.manual_seed(0)
    # A group norm over a single value gives nothing but its bias.
    assert_same(encoder, products, torch.randn(2, products._num_samples(1) + extra_samples))


def test_silence_and_a_constant():
    encoder, products = both()
    assert_same(encoder, products, torch.zeros(1, 400))
    assert_same(encoder, products, torch.full((1, 400), 0.5))


def test_loud_audio_with_an_offset():
    encoder, products = both()
    assert_same(encoder, products, 100 + 1000 * torch.randn(1, 4000))


def test_too_short():
    _, products = both()
    with pytest.raises(ValueError, match="has 29 samples, and a frame takes 30"):
        products(torch.zeros(1, 29))
