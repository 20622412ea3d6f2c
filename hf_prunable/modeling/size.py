"""Parameters and multiply-accumulates (MACs) of an encoder as functions of unit counts.

Both are linear in the counts of every layer. One formula therefore serves a shape, with whole numbers, and gates, with
expected values: see `hf_prunable.pruning.expected_size`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

from .shape import LayerShape, PrunedShape


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

    from .configuration import PrunableConfigMixin

# Sampling rate in Hz of the published models of these families; a configuration does not say it.
SAMPLING_RATE = 16000
# Default length in seconds of the clip that MACs are counted for. Attention makes them grow faster than the clip.
MAC_SECONDS = 10.0
# A day. Longer clips, or infinite ones, have more multiply-accumulates than a float can tell apart.
MAX_MAC_SECONDS = 86400.0
# Outputs of WavLM's linear layer that gates the position bias.
BIAS_GATE_SIZE = 8

# A number of units: an integer of a shape, or an expected value as a scalar tensor.
Count: TypeAlias = Any
# One target, or several.
Target = TypeVar("Target", float, list[float])
# One length, or several as a tensor.
Length = TypeVar("Length", int, "torch.Tensor")


@dataclass
class LayerCounts:
    """Number of units in a layer.

    Attributes:
        query_key: Query/key dimensions, summed over the heads with value/output dimensions.
        value_output: Value/output dimensions, summed over the heads.
        heads: Heads with at least one value/output dimension.
        any_head: 1 if there is such a head, otherwise 0.
        attention: 1 if the attention block is present, possibly with its output bias alone, otherwise 0.
        intermediate: Intermediate units of the feed-forward block.
        any_intermediate: 1 if there is such a unit, otherwise 0.
        feed_forward: 1 if the feed-forward block is present, possibly with its output bias alone, otherwise 0.
    """

    query_key: Count = 0
    value_output: Count = 0
    heads: Count = 0
    any_head: Count = 0
    attention: Count = 0
    intermediate: Count = 0
    any_intermediate: Count = 0
    feed_forward: Count = 0

    @classmethod
    def of(cls, layer: LayerShape) -> LayerCounts:
        """Returns the counts of a layer's shape."""
        attention = layer.attention
        return cls(
            query_key=sum(attention.query_key) if attention else 0,
            value_output=sum(attention.value_output) if attention else 0,
            heads=len(layer.heads),
            any_head=int(bool(layer.heads)),
            attention=int(attention is not None),
            intermediate=layer.intermediate or 0,
            any_intermediate=int(bool(layer.intermediate)),
            feed_forward=int(layer.intermediate is not None),
        )


@dataclass
class UnitCounts:
    """Number of units in an encoder.

    Attributes:
        conv_channels: Output channels of each convolution.
        layers: Counts of the transformer layers.
        position_bias_heads: Heads that survive in at least one layer.
    """

    conv_channels: Sequence[Count]
    layers: Sequence[LayerCounts]
    position_bias_heads: Count

    @classmethod
    def of(cls, shape: PrunedShape) -> UnitCounts:
        """Returns the counts of a shape."""
        layers = [LayerCounts.of(layer) for layer in shape.layers]
        return cls(shape.conv_channels, layers, len(shape.position_bias_heads))


def count_parameters(config: PrunableConfigMixin, counts: UnitCounts) -> Count:
    """Returns the number of parameters of the encoder (the base model), the mask embedding included.

    Args:
        config: Prunable configuration with the original widths.
        counts: Number of units in the encoder.
    """
    size = config.hidden_size
    return (
        _feature_encoder_parameters(config, counts.conv_channels)
        + _fixed_parameters(config)
        + sum(_layer_parameters(config, layer) for layer in counts.layers)
        + (config.num_buckets * counts.position_bias_heads if config.has_relative_position_bias else 0)
        + len(counts.layers) * (0 if config.do_stable_layer_norm else 4 * size)
        + len(counts.layers) * _attention_adapter_parameters(config)
    )


def _feature_encoder_parameters(config: PrunableConfigMixin, channels: Sequence[Count]) -> Count:
    total: Count = 0
    inputs: Count = 1
    for layer_idx, (outputs, kernel) in enumerate(zip(channels, config.conv_kernel, strict=True)):
        total = total + inputs * outputs * kernel + (outputs if config.conv_bias else 0)
        if config.feat_extract_norm == "layer" or layer_idx == 0:
            total = total + 2 * outputs
        inputs = outputs
    return total


def _fixed_parameters(config: PrunableConfigMixin) -> int:
    """Counts feature projection, mask embedding, position convolution, the encoder's own layer norm and the adapter."""
    size, features = config.hidden_size, config.conv_dim[-1]
    total = (features + 1) * size + (2 * features if getattr(config, "feat_proj_layer_norm", True) else 0)
    if config.has_mask_embedding:
        total += size
    for kernel in config.position_conv_kernels:
        total += size * (size // config.num_conv_pos_embedding_groups) * kernel + size
        if getattr(config, "conv_pos_batch_norm", False):
            total += 2 * size
        elif config.position_weight_norm:
            total += kernel
    total += 2 * size
    if getattr(config, "add_adapter", False):
        outputs = config.output_hidden_size
        if outputs != size:
            total += (size + 1) * outputs + 2 * outputs
        total += config.num_adapter_layers * (2 * outputs * outputs * config.adapter_kernel_size + 2 * outputs)
    return total


def _attention_adapter_parameters(config: PrunableConfigMixin) -> int:
    if not config.has_attention_adapter:
        return 0
    size, inner = config.hidden_size, config.adapter_attn_dim
    return 2 * size + (size + 1) * inner + (inner + 1) * size


def _layer_parameters(config: PrunableConfigMixin, layer: LayerCounts) -> Count:
    size = config.hidden_size
    # A query/key dimension has 2 (size + 1) parameters, a value/output dimension 2 size + 1.
    total: Count = 2 * (size + 1) * layer.query_key + (2 * size + 1) * layer.value_output + size * layer.attention
    total = total + (2 * size + 1) * layer.intermediate + size * layer.feed_forward
    if config.has_relative_position_bias:
        head_dim = size // config.num_attention_heads
        total = total + layer.heads + BIAS_GATE_SIZE * (head_dim + 1) * layer.any_head
    if config.do_stable_layer_norm:
        # Pre-norm: a norm before a block that does not read its input is removed (see `PrunableEncoderLayer`).
        total = total + 2 * size * (layer.any_head + layer.any_intermediate)
    return total


def count_frames(config: PreTrainedConfig, num_samples: Length) -> Length:
    """Returns the number of frames that the convolutions make of a clip; below 1 for a clip that is too short.

    Args:
        config: Stock or prunable configuration.
        num_samples: Length of the clip in samples, or lengths of several clips as a tensor of integers.
    """
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        num_samples = (num_samples - kernel) // stride + 1
    return num_samples


def count_macs(config: PrunableConfigMixin, counts: UnitCounts, seconds: float = MAC_SECONDS) -> Count:
    """Returns the multiply-accumulates of one forward pass over one clip, in convolutions and matrix products.

    Args:
        config: Prunable configuration with the original widths.
        counts: Number of units in the encoder.
        seconds: Length of the clip in seconds, at 16 kHz.

    Raises:
        ValueError: If the clip is too short for one frame.
    """
    size = config.hidden_size
    total: Count = 0
    length, inputs = round(seconds * SAMPLING_RATE), 1
    for outputs, kernel, stride in zip(counts.conv_channels, config.conv_kernel, config.conv_stride, strict=True):
        length = (length - kernel) // stride + 1
        if length < 1:
            raise ValueError(f"A clip of {seconds} s is too short for one frame of this model; take a longer one.")
        total = total + length * inputs * outputs * kernel
        inputs = outputs
    frames = length
    total = total + frames * config.conv_dim[-1] * size
    for kernel in config.position_conv_kernels:
        positions = frames + 2 * (kernel // 2) - kernel + 1
        total = total + positions * size * (size // config.num_conv_pos_embedding_groups) * kernel
    for layer in counts.layers:
        total = total + 2 * frames * size * (layer.query_key + layer.value_output + layer.intermediate)
        total = total + frames * frames * (layer.query_key + layer.value_output)
        if config.has_relative_position_bias:
            total = total + frames * (size // config.num_attention_heads) * BIAS_GATE_SIZE * layer.heads
        if config.has_attention_adapter:
            total = total + 2 * frames * size * config.adapter_attn_dim
    return total + _adapter_macs(config, frames)


def _adapter_macs(config: PrunableConfigMixin, frames: int) -> int:
    if not getattr(config, "add_adapter", False):
        return 0
    outputs = config.output_hidden_size
    total = frames * config.hidden_size * outputs if outputs != config.hidden_size else 0
    for _ in range(config.num_adapter_layers):
        frames = (frames + 2 - config.adapter_kernel_size) // config.adapter_stride + 1
        total += frames * 2 * outputs * outputs * config.adapter_kernel_size
    return total


MeasureName = Literal["parameters", "macs"]


@dataclass(frozen=True)
class Measure:
    """Measure of the size of an encoder.

    Attributes:
        name: "parameters" for all parameters of the encoder, prunable or not; "macs" for the multiply-accumulates of one
            forward pass over one clip.
        mac_seconds: Length of that clip in seconds.
    """

    name: MeasureName = "parameters"
    mac_seconds: float = MAC_SECONDS

    def __post_init__(self):
        if self.name not in get_args(MeasureName):
            raise ValueError(f"A measure's `name` must be one of {get_args(MeasureName)}, but is {self.name!r}.")
        if not isinstance(self.mac_seconds, Real) or not 0 <= self.mac_seconds <= MAX_MAC_SECONDS:
            raise ValueError(
                f"`mac_seconds` must be a number of seconds up to {MAX_MAC_SECONDS:g}, but is {self.mac_seconds!r}. It is "
                "the length of the clip that multiply-accumulates are counted for."
            )

    def __str__(self) -> str:
        return "parameters" if self.name == "parameters" else f"multiply-accumulates of a {self.mac_seconds:g} s clip"

    @property
    def option(self) -> str:
        """Name of the argument of `compact` that takes a target in this measure."""
        return {"parameters": "target_sparsity", "macs": "target_macs"}[self.name]

    def count(self, config: PrunableConfigMixin, counts: UnitCounts) -> Count:
        """Returns the size of an encoder.

        Args:
            config: Prunable configuration with the original widths.
            counts: Number of units in the encoder.

        Raises:
            ValueError: If the clip is too short for one frame.
        """
        if self.name == "parameters":
            return count_parameters(config, counts)
        return count_macs(config, counts, self.mac_seconds)

    def dense(self, config: PrunableConfigMixin) -> int:
        """Returns the size of the original dense encoder, which sparsity refers to."""
        return self.count(config, config.dense_counts)

    def sparsity(self, config: PrunableConfigMixin, counts: UnitCounts) -> Count:
        """Returns the fraction of the original dense encoder's size that is removed, from 0 to 1.

        Args:
            config: Prunable configuration with the original widths.
            counts: Number of units in the encoder.
        """
        return 1 - self.count(config, counts) / self.dense(config)


PARAMETERS = Measure()


def choose_target(
    target_sparsity: Target | None, target_macs: Target | None, mac_seconds: float = MAC_SECONDS
) -> tuple[Target | None, Measure]:
    """Returns the target that was given, if any, and its measure.

    Args:
        target_sparsity: Fraction of the dense encoder's parameters to remove.
        target_macs: Fraction of its multiply-accumulates to remove.
        mac_seconds: Length in seconds of the clip that multiply-accumulates are counted for.

    Raises:
        ValueError: If both targets are given.
    """
    if target_macs is None:
        return target_sparsity, PARAMETERS
    if target_sparsity is not None:
        raise ValueError(
            f"`target_sparsity` is {target_sparsity} and `target_macs` is {target_macs}, but a model is brought to one "
            "target. Leave one of them out: the first counts parameters, the second multiply-accumulates."
        )
    return target_macs, Measure("macs", mac_seconds)
