"""A grouped convolution with a long kernel as products of spectra: for inference on CPUs."""

from __future__ import annotations

import torch
from torch import nn


class FourierConv1d(nn.Module):
    """A convolution of stride 1 by the fast Fourier transform, block by block (overlap-save).

    With a kernel of size k and blocks of 2 k samples, the k + 1 outputs of a block take k + 1 products of spectra instead
    of k (k + 1) products of samples. A short input fits into one block of k samples: the convolution is then circular,
    and the samples that wrap around are padding.

    Args:
        conv: Convolution whose weights are used.

    Raises:
        ValueError: If the convolution has a stride, a dilation, or padding other than zeros.
    """

    even_spectrum: torch.Tensor
    odd_spectrum: torch.Tensor

    def __init__(self, conv: nn.Conv1d):
        super().__init__()
        if (
            conv.stride != (1,)
            or conv.dilation != (1,)
            or conv.padding_mode != "zeros"
            or isinstance(conv.padding, str)
        ):
            raise ValueError(f"Only convolutions of stride and dilation 1 with zero padding have a fast form: {conv}.")
        self.kernel_size, self.padding, self.groups = conv.kernel_size[0], int(conv.padding[0]), conv.groups
        weight = conv.weight.detach().float().unflatten(0, (self.groups, -1))
        # Networks compute correlations, hence the conjugate. Of shape (frequencies, groups, inputs, outputs).
        spectrum = torch.fft.rfft(weight, n=2 * self.kernel_size).conj().permute(3, 0, 2, 1).resolve_conj()
        # Stored as pairs of real numbers: casting the model to another dtype would drop imaginary parts. The even
        # frequencies are the spectrum over a block of half the length.
        self.register_buffer("even_spectrum", torch.view_as_real(spectrum[::2]).contiguous())
        self.register_buffer("odd_spectrum", torch.view_as_real(spectrum[1::2]).contiguous())
        self.bias = conv.bias

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, frames) to (batch, channels, outputs)."""
        frames = hidden_states.shape[-1]
        num_outputs = frames + 2 * self.padding - self.kernel_size + 1
        is_short = (
            frames + self.padding <= self.kernel_size
            and num_outputs <= self.padding + 1
            # A compiled graph serves inputs of any length.
            and not torch.compiler.is_compiling()
        )
        block_size = self.kernel_size if is_short else 2 * self.kernel_size
        outputs_of_block = num_outputs if is_short else self.kernel_size + 1
        num_blocks = -(-num_outputs // outputs_of_block)
        missing = (num_blocks - 1) * outputs_of_block + block_size - frames - self.padding
        padded = nn.functional.pad(hidden_states.float(), (self.padding, missing))
        blocks = torch.fft.rfft(padded.unfold(-1, block_size, outputs_of_block))
        if is_short:
            products = self._multiply(blocks, self.even_spectrum)
        else:
            even = self._multiply(blocks[..., ::2], self.even_spectrum)
            products = even.new_empty(*even.shape[:-1], blocks.shape[-1])
            products[..., ::2] = even
            products[..., 1::2] = self._multiply(blocks[..., 1::2], self.odd_spectrum)
        outputs = torch.fft.irfft(products, n=block_size)[..., :outputs_of_block]
        outputs = outputs.flatten(2)[..., :num_outputs].to(hidden_states.dtype)
        return outputs if self.bias is None else outputs + self.bias.unsqueeze(-1)

    def _multiply(self, blocks: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
        """Maps spectra of the inputs, (batch, channels, blocks, frequencies), to those of the outputs."""
        batch_size, _, num_blocks, _ = blocks.shape
        # (frequencies, groups, batch x blocks, channels of a group)
        blocks = blocks.unflatten(1, (self.groups, -1)).permute(4, 1, 0, 3, 2).flatten(2, 3)
        products = torch.matmul(blocks, torch.view_as_complex(spectrum.float()))
        return products.unflatten(2, (batch_size, num_blocks)).permute(2, 1, 4, 3, 0).flatten(1, 2)
