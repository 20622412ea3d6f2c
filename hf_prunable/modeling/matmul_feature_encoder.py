"""The convolutions that turn a waveform into frames, as matrix products: for inference on CPUs."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn
from transformers.activations import GELUActivation

from .configuration import PrunableConfigMixin
from .feature_encoder import PrunableConvLayer, PrunableFeatureEncoder, check_waveforms
from .size import count_frames


# Maximum number of frames that pass all layers together. Fewer make small matrices, more exceed a processor's cache.
FRAMES_AT_A_TIME = 250


class MatmulConvLayer(nn.Module):
    """A convolution, its norm over channels if it has one, and its activation, on tensors with the channels last.

    With the channels last, the inputs of `stride` neighbouring taps are contiguous for every output, so that a matrix
    product reads them without copies. The remaining taps make further products.

    Args:
        layer: Convolution layer whose weights are used.
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
        # With few inputs, copying all taps side by side takes less time than adding up several products.
        self.copies_taps = self.kernel_size * self.in_channels < conv.out_channels

    def forward(
        self, frames: torch.Tensor, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Computes the layer.

        Args:
            frames: Contiguous input, of shape (clips, frames, channels).
            weight: Weight of each clip, of shape (clips, taps x channels, output channels); `None` takes the layer's own.
            bias: Bias of each clip, of shape (clips, 1, output channels), used with `weight`.

        Returns:
            Output of shape (clips, fewer frames, output channels).
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
            # As the weight of one more input, which is 1: the inputs are fewer to write than the outputs.
            taps = nn.functional.pad(taps, (0, 1), value=1.0)
            weight = torch.cat((weight, bias.expand(len(weight), 1, -1)), 1)
        return torch.bmm(taps, weight)

    def _sum_of_products(self, frames: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        # Autocast covers only the product that makes a new tensor.
        device = frames.device.type
        is_autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        add_product = torch.baddbmm if is_autocast else torch.Tensor.baddbmm_
        output: torch.Tensor | None = None
        for first in range(0, self.kernel_size, self.stride):
            last = min(first + self.stride, self.kernel_size)
            taps = self._taps(frames, first, last)
            part = weight[:, first * self.in_channels : last * self.in_channels]
            if output is not None:
                output = add_product(output, taps, part)
            else:
                output = torch.bmm(taps, part) if bias is None else torch.baddbmm(bias, taps, part)
        assert output is not None
        return output

    def _taps(self, frames: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Returns a view of the inputs of some taps, side by side for each output."""
        num_outputs = (frames.shape[1] - self.kernel_size) // self.stride + 1
        width, step = (last - first) * self.in_channels, self.stride * self.in_channels
        return frames.flatten(1)[:, first * self.in_channels :].unfold(1, width, step)[:, :num_outputs]


def _gelu_in_place(hidden_states: torch.Tensor) -> torch.Tensor:
    # torch has no public name for it.
    return torch.ops.aten.gelu_(hidden_states)


class MatmulFeatureEncoder(nn.Module):
    """Computes what a feature encoder computes, some frames at a time.

    The group norm after the first convolution normalises each channel over time and is folded into the convolution's
    weights: the mean and the variance of a channel with weights w follow from those of the waveform's patches x as
    w . E[x] and w . Cov[x] . w. No layer's output is then in memory for the whole of a long clip.

    Args:
        feature_encoder: Feature encoder whose weights are used.
        config: Configuration of the model.
    """

    def __init__(self, feature_encoder: PrunableFeatureEncoder, config: PrunableConfigMixin):
        super().__init__()
        self.config = config
        layers = [MatmulConvLayer(layer) for layer in feature_encoder.conv_layers]
        # torch types the entries of a module list as any module.
        self.conv_layers = cast("list[MatmulConvLayer]", nn.ModuleList(layers))
        norm = feature_encoder.conv_layers[0].layer_norm
        self.group_norm = norm if isinstance(norm, nn.GroupNorm) else None
        self.hop = math.prod(layer.stride for layer in self.conv_layers)

    @property
    def input_layer(self) -> nn.Module:
        """The module that takes the waveform in."""
        return self.conv_layers[0]

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Maps (batch, samples) to (batch, channels, frames)."""
        check_waveforms(input_values)
        num_clips, num_frames = len(input_values), count_frames(self.config, input_values.shape[1])
        if num_frames < 1:
            raise ValueError(
                f"The waveform has {input_values.shape[1]} samples, and a frame takes {self._num_samples(1)}. Give a "
                "longer one."
            )
        norm = self.group_norm
        first_layer = None if norm is None else self._normalized_first_layer(norm, input_values)
        # A compiled graph cannot have a loop whose length depends on the input.
        in_parts = not torch.compiler.is_compiling()
        parts = []
        for clips in _equal_parts(num_clips, max(1, FRAMES_AT_A_TIME // num_frames) if in_parts else num_clips):
            parameters = () if first_layer is None else [tensor[clips] for tensor in first_layer]
            for frames in _equal_parts(num_frames, FRAMES_AT_A_TIME if in_parts else num_frames):
                begin = frames.start * self.hop
                end = begin + self._num_samples(frames.stop - frames.start)
                hidden_states = self.conv_layers[0](input_values[clips, begin:end].unsqueeze(-1), *parameters)
                for layer in self.conv_layers[1:]:
                    hidden_states = layer(hidden_states)
                parts.append(hidden_states)
        return torch.cat([part.flatten(0, 1) for part in parts]).unflatten(0, (num_clips, num_frames)).transpose(1, 2)

    def _num_samples(self, num_frames: int) -> int:
        """Returns the number of samples that a number of frames is computed from."""
        for layer in reversed(self.conv_layers):
            num_frames = (num_frames - 1) * layer.stride + layer.kernel_size
        return num_frames

    def _normalized_first_layer(
        self, norm: nn.GroupNorm, input_values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns weight and bias of the first convolution for each clip, with the group norm folded in."""
        layer = self.conv_layers[0]
        # In double precision: a variance is a small difference of large products.
        patches = input_values.double().unfold(1, layer.kernel_size, layer.stride)
        mean = patches.mean(1, keepdim=True)
        centered = patches - mean
        covariance = centered.mT @ centered / centered.shape[1]
        weight = layer.weight.double()
        variance = (weight * (covariance @ weight)).sum(1, keepdim=True)
        scale = norm.weight.double() / (variance + norm.eps).sqrt()
        # The convolution's own bias shifts the mean, which the norm subtracts.
        bias = norm.bias.double() - mean @ weight * scale
        return (weight * scale).to(layer.weight), bias.to(layer.weight)


def _equal_parts(length: int, max_length: int) -> list[slice]:
    """Splits a range into as few parts of at most `max_length` as possible, whose lengths differ by at most one."""
    num_parts = -(-length // max_length)
    return [slice(length * part // num_parts, length * (part + 1) // num_parts) for part in range(num_parts)]
