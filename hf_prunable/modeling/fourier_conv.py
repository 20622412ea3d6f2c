"""A long grouped convolution as products of spectra: for evaluation on a CPU."""

from __future__ import annotations

import torch
from torch import nn


class FourierConv1d(nn.Module):
    """A convolution of stride 1 by the fast Fourier transform, block by block (overlap-save).

    With k taps and blocks of 2 k samples, k + 1 outputs of a block take k + 1 products of spectra instead of k (k + 1)
    products of samples.

    Args:
        conv: Whose weights are taken over.

    Raises:
        ValueError: If the convolution has a stride, a dilation, or padding other than zeros.
    """

    def __init__(self, conv: nn.Conv1d):
        super().__init__()
        if conv.stride != (1,) or conv.dilation != (1,) or conv.padding_mode != "zeros":
            raise ValueError(f"Only convolutions of stride and dilation 1 with zero padding have a fast form: {conv}.")
        (self.kernel_size,), (self.padding,), self.groups = conv.kernel_size, conv.padding, conv.groups
        self.block_size = 2 * self.kernel_size
        self.outputs_of_block = self.block_size - self.kernel_size + 1
        weight = conv.weight.detach().float().unflatten(0, (self.groups, -1))
        # A convolution of a network is a correlation, hence the conjugate. (frequencies, groups, inputs, outputs)
        spectrum = torch.fft.rfft(weight, n=self.block_size).conj().permute(3, 0, 2, 1)
        # As pairs of real numbers: a cast of the model to another dtype would drop the imaginary part of complex ones.
        self.register_buffer("spectrum", torch.view_as_real(spectrum.resolve_conj()).contiguous())
        self.bias = conv.bias

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, frames) to the same, with as many frames as the padding leaves."""
        batch_size, _, frames = hidden_states.shape
        num_outputs = frames + 2 * self.padding - self.kernel_size + 1
        num_blocks = -(-num_outputs // self.outputs_of_block)
        missing = num_blocks * self.outputs_of_block + self.kernel_size - 1 - frames - self.padding
        padded = nn.functional.pad(hidden_states.float(), (self.padding, missing))
        blocks = torch.fft.rfft(padded.unfold(-1, self.block_size, self.outputs_of_block))
        # (frequencies, groups, batch x blocks, inputs)
        blocks = blocks.unflatten(1, (self.groups, -1)).permute(4, 1, 0, 3, 2).flatten(2, 3)
        products = torch.matmul(blocks, torch.view_as_complex(self.spectrum.float()))
        products = products.unflatten(2, (batch_size, num_blocks)).permute(2, 1, 4, 3, 0)
        outputs = torch.fft.irfft(products, n=self.block_size)[..., : self.outputs_of_block]
        outputs = outputs.flatten(3)[..., :num_outputs].flatten(1, 2).to(hidden_states.dtype)
        return outputs if self.bias is None else outputs + self.bias.unsqueeze(-1)
