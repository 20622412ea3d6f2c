"""The convolutions that turn a waveform into frames, as matrix products: for evaluation on a CPU."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers.activations import GELUActivation

from .feature_encoder import PrunableConvLayer, PrunableFeatureEncoder
from .size import count_frames


# Frames that go through all layers together, at most. Fewer make small matrices, and more do not stay in a processor's
# cache.
FRAMES_AT_A_TIME = 250


class MatmulConvLayer(nn.Module):
    """A convolution over frames of channels, its norm over the channels where it has one, and its activation.

    In frames of channels, as many taps as the stride lie one after the other for every output, so that a matrix product
    reads them where they are. What is left of the taps makes further products.

    Args:
        layer: Whose weights are taken over.
    """

    def __init__(self, layer: PrunableConvLayer):
        super().__init__()
        conv = layer.conv
        (self.kernel_size,), (self.stride,) = conv.kernel_size, conv.stride
        self.in_channels = conv.in_channels
        weight = conv.weight.detach().permute(2, 1, 0).flatten(0, 1).contiguous()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach(), requires_grad=False)
        self.layer_norm = layer.layer_norm if layer.normalizes_channels else None
        self.activation = _gelu_in_place if isinstance(layer.activation, GELUActivation) else layer.activation
        # Where there are few inputs, it costs less to copy all taps side by side than to add up several products.
        self.copies_taps = self.kernel_size * self.in_channels < conv.out_channels

    def forward(
        self, frames: torch.Tensor, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Maps (clips, frames, channels) to the same with fewer frames.

        Args:
            frames: Contiguous.
            weight: Instead of the layer's own, one for each clip: (clips, taps x channels, output channels).
            bias: Instead of the layer's own, one for each clip: (clips, 1, output channels).
        """
        if weight is None:
            weight, bias = self.weight.expand(len(frames), -1, -1), self.bias
        if self.copies_taps:
            output = self._product_of_all_taps(frames, weight, bias)
        else:
            output = self._sum_of_products(frames, weight, bias)
        if self.layer_norm is not None:
            output = self.layer_norm(output)
        return self.activation(output)

    def _product_of_all_taps(
        self, frames: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        taps = self._taps(frames, 0, self.kernel_size)
        if bias is not None:
            # As the weight of one more input, which is 1, because the inputs are fewer to write than the outputs.
            taps = nn.functional.pad(taps, (0, 1), value=1.0)
            weight = torch.cat((weight, bias.expand(len(weight), 1, -1)), 1)
        return torch.bmm(taps, weight)

    def _sum_of_products(self, frames: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        # Autocast knows only the product that makes a new tensor.
        add_product = torch.baddbmm if torch.is_autocast_enabled(frames.device.type) else torch.Tensor.baddbmm_
        output = None
        for first in range(0, self.kernel_size, self.stride):
            last = min(first + self.stride, self.kernel_size)
            taps = self._taps(frames, first, last)
            part = weight[:, first * self.in_channels : last * self.in_channels]
            if output is not None:
                output = add_product(output, taps, part)
            else:
                output = torch.bmm(taps, part) if bias is None else torch.baddbmm(bias, taps, part)
        return output

    def _taps(self, frames: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """The inputs of some taps, side by side for each output: a view."""
        num_outputs = (frames.shape[1] - self.kernel_size) // self.stride + 1
        width, step = (last - first) * self.in_channels, self.stride * self.in_channels
        return frames.flatten(1)[:, first * self.in_channels :].unfold(1, width, step)[:, :num_outputs]


def _gelu_in_place(hidden_states: torch.Tensor) -> torch.Tensor:
    # torch has no other name for it.
    return torch.ops.aten.gelu_(hidden_states)


class MatmulFeatureEncoder(nn.Module):
    """A feature encoder that computes what another one does, some frames at a time.

    A group norm after the first convolution, which is over time and for each channel alone, becomes part of that
    convolution's weights: the mean and the variance of a channel follow from those of the waveform's patches, x, as
    w . E[x] and w . Cov[x] . w. No layer's output is then ever there for the whole of a long clip.

    Args:
        feature_encoder: Whose weights are taken over.
        config: The model's configuration.
    """

    def __init__(self, feature_encoder: PrunableFeatureEncoder, config: Any):
        super().__init__()
        self.config = config
        self.conv_layers = nn.ModuleList(MatmulConvLayer(layer) for layer in feature_encoder.conv_layers)
        norm = feature_encoder.conv_layers[0].layer_norm
        self.group_norm = norm if isinstance(norm, nn.GroupNorm) else None
        self.hop = math.prod(layer.stride for layer in self.conv_layers)

    @property
    def input_layer(self) -> nn.Module:
        """The module that takes the waveform in."""
        return self.conv_layers[0]

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Maps (batch, samples) to (batch, channels, frames)."""
        num_clips, num_frames = len(input_values), count_frames(self.config, input_values.shape[1])
        if num_frames < 1:
            raise ValueError(
                f"The waveform has {input_values.shape[1]} samples, and a frame takes {self._num_samples(1)}. Give a "
                "longer one."
            )
        weight, bias = self._normalized_first_layer(input_values) if self.group_norm is not None else (None, None)
        # A loop of a length that depends on the input has no place in a graph.
        in_parts = not torch.compiler.is_compiling()
        parts = []
        for clips in _equal_parts(num_clips, max(1, FRAMES_AT_A_TIME // num_frames) if in_parts else num_clips):
            own = (None, None) if weight is None else (weight[clips], bias[clips])
            for frames in _equal_parts(num_frames, FRAMES_AT_A_TIME if in_parts else num_frames):
                begin = frames.start * self.hop
                end = begin + self._num_samples(frames.stop - frames.start)
                hidden_states = self.conv_layers[0](input_values[clips, begin:end].unsqueeze(-1), *own)
                for layer in self.conv_layers[1:]:
                    hidden_states = layer(hidden_states)
                parts.append(hidden_states)
        return torch.cat([part.flatten(0, 1) for part in parts]).unflatten(0, (num_clips, num_frames)).transpose(1, 2)

    def _num_samples(self, num_frames: int) -> int:
        """The samples that so many frames are computed from."""
        for layer in reversed(self.conv_layers):
            num_frames = (num_frames - 1) * layer.stride + layer.kernel_size
        return num_frames

    def _normalized_first_layer(self, input_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the first convolution, for each clip, with the group norm in them."""
        layer, norm = self.conv_layers[0], self.group_norm
        # In double precision: a variance is a small difference of products.
        patches = input_values.double().unfold(1, layer.kernel_size, layer.stride)
        mean = patches.mean(1, keepdim=True)
        centered = patches - mean
        covariance = centered.mT @ centered / centered.shape[1]
        weight = layer.weight.double()
        variance = (weight * (covariance @ weight)).sum(1, keepdim=True)
        scale = norm.weight.double() / (variance + norm.eps).sqrt()
        # The convolution's own bias would only move the mean that is taken off.
        bias = norm.bias.double() - mean @ weight * scale
        return (weight * scale).to(layer.weight), bias.to(layer.weight)


def _equal_parts(length: int, most: int) -> list[slice]:
    """Cuts a range into as few parts as may be, of no more than `most`, that differ by one at most."""
    num_parts = -(-length // most)
    return [slice(length * part // num_parts, length * (part + 1) // num_parts) for part in range(num_parts)]
