"""The convolution by spectra is the convolution."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hf_prunable.modeling.fourier_conv import FourierConv1d


@given(
    kernel_size=st.integers(1, 17),
    groups=st.sampled_from([1, 2, 4]),
    padding=st.integers(0, 9),
    extra_frames=st.integers(0, 70),
    batch_size=st.integers(1, 3),
    bias=st.booleans(),
)
def test_equals_convolution(kernel_size, groups, padding, extra_frames, batch_size, bias):
    torch.manual_seed(0)
    conv = nn.Conv1d(8, 12, kernel_size, padding=padding, groups=groups, bias=bias)
    frames = max(1, kernel_size - 2 * padding) + extra_frames
    inputs = torch.randn(batch_size, 8, frames)
    with torch.no_grad():
        torch.testing.assert_close(FourierConv1d(conv)(inputs), conv(inputs), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel_size", [15, 16])
@torch.no_grad()
def test_about_the_length_that_a_short_block_holds(monkeypatch, kernel_size):
    block_sizes = []
    inverse = torch.fft.irfft
    monkeypatch.setattr(torch.fft, "irfft", lambda values, n: block_sizes.append(n) or inverse(values, n))
    conv = nn.Conv1d(8, 8, kernel_size, padding=kernel_size // 2, groups=2)
    fast = FourierConv1d(conv)
    for frames in range(1, 12):
        inputs = torch.randn(2, 8, frames)
        torch.testing.assert_close(fast(inputs), conv(inputs), atol=1e-5, rtol=0)
    # With 15 taps and 7 in the padding, 8 frames and their 8 outputs; with 16 and 8, 8 frames and 9 outputs.
    assert block_sizes == [kernel_size] * 8 + [2 * kernel_size] * 3


def test_follows_the_model_to_another_dtype():
    conv = nn.Conv1d(8, 8, 16, padding=8, groups=2)
    inputs = torch.randn(2, 8, 40)
    with torch.no_grad():
        expected = conv(inputs)
        output = FourierConv1d(conv).to(torch.bfloat16)(inputs.to(torch.bfloat16))
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("option", [{"stride": 2}, {"dilation": 2}, {"padding": 2, "padding_mode": "reflect"}])
def test_others_are_refused(option):
    with pytest.raises(ValueError, match="stride and dilation 1"):
        FourierConv1d(nn.Conv1d(4, 4, 3, **option))
