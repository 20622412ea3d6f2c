"""Parameters and multiply-accumulates (MACs) as functions of unit counts.

Both are linear in the counts of every layer, so one formula serves a shape, where the counts are whole numbers, and
gates, where they are expected values: see `hf_prunable.pruning.sparsity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .shape import PrunedShape


SAMPLING_RATE = 16000
# The default clip that MACs are counted for; attention makes them grow faster than the clip.
MAC_SECONDS = 10.0
BIAS_GATE_SIZE = 8


@dataclass
class LayerCounts:
    """How many units of a layer are left: whole numbers, or expected values as scalar tensors.

    Attributes:
        query_key: Query dimensions, summed over the heads with values.
        value_output: Value dimensions, summed over the heads.
        heads: Heads with at least one value dimension.
        any_head: 1 if there is such a head.
        attention: 1 if the attention block is there, if only with its output bias.
        intermediate: Feed-forward units.
        any_intermediate: 1 if there is such a unit.
        feed_forward: 1 if the feed-forward block is there, if only with its output bias.
    """

    query_key: Any
    value_output: Any
    heads: Any
    any_head: Any
    attention: Any
    intermediate: Any
    any_intermediate: Any
    feed_forward: Any


@dataclass
class UnitCounts:
    """How many units of a model are left.

    Attributes:
        conv_channels: Channels of each convolution.
        layers: The transformer layers.
        position_bias_heads: Heads that are alive in at least one layer.
    """

    conv_channels: Sequence[Any]
    layers: Sequence[LayerCounts]
    position_bias_heads: Any

    @classmethod
    def of(cls, shape: PrunedShape) -> UnitCounts:
        """The counts of a shape."""
        layers = []
        for layer in shape.layers:
            attention = layer.attention
            layers.append(
                LayerCounts(
                    query_key=sum(attention.query_key) if attention else 0,
                    value_output=sum(attention.value_output) if attention else 0,
                    heads=len(layer.heads),
                    any_head=int(bool(layer.heads)),
                    attention=int(attention is not None),
                    intermediate=layer.intermediate or 0,
                    any_intermediate=int(bool(layer.intermediate)),
                    feed_forward=int(layer.intermediate is not None),
                )
            )
        return cls(shape.conv_channels, layers, len(shape.position_bias_heads))


def count_parameters(config: Any, counts: UnitCounts) -> Any:
    """Parameters of the encoder (the base model), the mask embedding included.

    Args:
        config: A prunable configuration, which names the original widths.
        counts: What is left of them.
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


def _feature_encoder_parameters(config: Any, channels: Sequence[Any]) -> Any:
    total = 0
    inputs: Any = 1
    for number, (outputs, kernel) in enumerate(zip(channels, config.conv_kernel, strict=True)):
        total = total + inputs * outputs * kernel + (outputs if config.conv_bias else 0)
        if config.feat_extract_norm == "layer" or number == 0:
            total = total + 2 * outputs
        inputs = outputs
    return total


def _fixed_parameters(config: Any) -> int:
    """Projection, mask embedding, position convolution, the encoder's own layer norm and the adapter."""
    size, features = config.hidden_size, config.conv_dim[-1]
    total = (features + 1) * size + (2 * features if getattr(config, "feat_proj_layer_norm", True) else 0)
    if config.mask_time_prob > 0.0 or config.mask_feature_prob > 0.0:
        total += size
    kernel = config.num_conv_pos_embeddings
    total += size * (size // config.num_conv_pos_embedding_groups) * kernel + size
    total += 2 * size if getattr(config, "conv_pos_batch_norm", False) else kernel
    total += 2 * size
    if getattr(config, "add_adapter", False):
        outputs = config.output_hidden_size
        if outputs != size:
            total += (size + 1) * outputs + 2 * outputs
        total += config.num_adapter_layers * (2 * outputs * outputs * config.adapter_kernel_size + 2 * outputs)
    return total


def _attention_adapter_parameters(config: Any) -> int:
    if not config.has_attention_adapter:
        return 0
    size, inner = config.hidden_size, config.adapter_attn_dim
    return 2 * size + (size + 1) * inner + (inner + 1) * size


def _layer_parameters(config: Any, layer: LayerCounts) -> Any:
    size = config.hidden_size
    # Queries and keys have (size + 1) parameters a dimension each, values and outputs 2 size + 1 together.
    total = 2 * (size + 1) * layer.query_key + (2 * size + 1) * layer.value_output + size * layer.attention
    total = total + (2 * size + 1) * layer.intermediate + size * layer.feed_forward
    if config.has_relative_position_bias:
        head_dim = size // config.num_attention_heads
        total = total + layer.heads + BIAS_GATE_SIZE * (head_dim + 1) * layer.any_head
    if config.do_stable_layer_norm:
        # Pre-norm: the norm before a block goes with what reads it.
        total = total + 2 * size * (layer.any_head + layer.any_intermediate)
    return total


def count_frames(config: Any, num_samples: int) -> int:
    """The frames that the convolutions make of a clip; below 1 for a clip that is too short."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        num_samples = (num_samples - kernel) // stride + 1
    return num_samples


def count_macs(config: Any, counts: UnitCounts, seconds: float = MAC_SECONDS) -> Any:
    """Multiply-accumulates of one forward pass over one clip: those of convolutions and matrix products.

    Args:
        config: A prunable configuration.
        counts: What is left of its widths.
        seconds: The clip's length.

    Raises:
        ValueError: If the clip is too short for one frame.
    """
    size = config.hidden_size
    total: Any = 0
    length, inputs = round(seconds * SAMPLING_RATE), 1
    for outputs, kernel, stride in zip(counts.conv_channels, config.conv_kernel, config.conv_stride, strict=True):
        length = (length - kernel) // stride + 1
        if length < 1:
            raise ValueError(f"A clip of {seconds} s is too short for one frame of this model; take a longer one.")
        total = total + length * inputs * outputs * kernel
        inputs = outputs
    frames = length
    total = total + frames * config.conv_dim[-1] * size
    kernel = config.num_conv_pos_embeddings
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


def _adapter_macs(config: Any, frames: int) -> int:
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
    """What size is counted in.

    Attributes:
        name: "parameters", all of the encoder's and not only the prunable ones, or "macs", the multiply-accumulates
            of one forward pass over one clip.
        mac_seconds: The clip's length in seconds; attention makes MACs grow faster than the clip.
    """

    name: MeasureName = "parameters"
    mac_seconds: float = MAC_SECONDS

    def __post_init__(self):
        if self.name not in get_args(MeasureName):
            raise ValueError(f"A measure's `name` must be one of {get_args(MeasureName)}, but is {self.name!r}.")

    def __str__(self) -> str:
        return "parameters" if self.name == "parameters" else f"multiply-accumulates of a {self.mac_seconds:g} s clip"

    @property
    def option(self) -> str:
        """The argument of `compact` that gives a target in this measure."""
        return {"parameters": "target_sparsity", "macs": "target_macs"}[self.name]

    def count(self, config: Any, counts: UnitCounts) -> Any:
        """The size of an encoder with these counts, which may be expected values.

        Args:
            config: A prunable configuration, which names the original widths.
            counts: What is left of them.

        Raises:
            ValueError: If the clip is too short for one frame.
        """
        if self.name == "parameters":
            return count_parameters(config, counts)
        return count_macs(config, counts, self.mac_seconds)

    def dense(self, config: Any) -> int:
        """The size of the original dense encoder, whatever was cut since: what sparsity is counted from."""
        return self.count(config, config.dense_counts)

    def sparsity(self, config: Any, counts: UnitCounts) -> Any:
        """The part of the original dense encoder's size that an encoder with these counts is without."""
        return 1 - self.count(config, counts) / self.dense(config)


PARAMETERS = Measure()


def choose_target(
    target_sparsity: float | None, target_macs: float | None, mac_seconds: float = MAC_SECONDS
) -> tuple[float | None, Measure]:
    """The one target that was given, if any, and what it is measured in.

    Args:
        target_sparsity: The part of the dense encoder's parameters to remove.
        target_macs: The part of its multiply-accumulates to remove.
        mac_seconds: Length of the clip that multiply-accumulates are counted for.

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
