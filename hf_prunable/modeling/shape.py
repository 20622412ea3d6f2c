"""The shape of a speech encoder: the widths of all its prunable parts, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any


FORMAT_VERSION = 1


@dataclass(frozen=True)
class AttentionShape:
    """Shape of one attention block.

    A block without heads still adds its output bias; a removed block is `None` in `LayerShape`.

    Attributes:
        heads: Indices of the surviving heads in the original model, ascending.
        query_key: Number of query/key dimensions of each surviving head, 0 or more. A head with 0 attends uniformly, or
            by the position bias alone in families that have one.
        value_output: Number of value/output dimensions of each surviving head, 1 or more.
    """

    heads: tuple[int, ...]
    query_key: tuple[int, ...]
    value_output: tuple[int, ...]

    @classmethod
    def dense(cls, num_heads: int, head_dim: int) -> AttentionShape:
        """Returns the shape with all heads at full width.

        Args:
            num_heads: Number of heads of the original model.
            head_dim: Width of each head.
        """
        return cls(tuple(range(num_heads)), (head_dim,) * num_heads, (head_dim,) * num_heads)

    def validate(self, num_heads: int, head_dim: int, where: str) -> None:
        """Checks the block against the original model.

        Args:
            num_heads: Number of heads of the original model.
            head_dim: Width of each head in the original model.
            where: Name of the block in error messages.

        Raises:
            ValueError: If heads repeat, are not ascending or out of range, or a width is out of range.
        """
        if not len(self.heads) == len(self.query_key) == len(self.value_output):
            raise ValueError(
                f"{where}: `heads`, `query_key` and `value_output` must name the same heads, but have "
                f"{len(self.heads)}, {len(self.query_key)} and {len(self.value_output)} entries."
            )
        if any(a >= b for a, b in pairwise(self.heads)) or any(not 0 <= head < num_heads for head in self.heads):
            raise ValueError(
                f"{where}: `heads` must be ascending numbers in 0..{num_heads - 1}, but are {list(self.heads)}."
            )
        if any(not 0 <= width <= head_dim for width in self.query_key):
            raise ValueError(f"{where}: `query_key` widths must be in 0..{head_dim}, but are {list(self.query_key)}.")
        if any(not 1 <= width <= head_dim for width in self.value_output):
            raise ValueError(
                f"{where}: `value_output` widths must be in 1..{head_dim}, but are {list(self.value_output)}. "
                "A head without values contributes nothing: leave it out of `heads`."
            )


@dataclass(frozen=True)
class LayerShape:
    """Shape of one transformer layer.

    Attributes:
        attention: Shape of the attention block, or `None` if it is removed with its output bias.
        intermediate: Number of intermediate units of the feed-forward block; 0 leaves its output bias, `None` removes
            the block.
    """

    attention: AttentionShape | None
    intermediate: int | None

    @property
    def heads(self) -> tuple[int, ...]:
        """Indices of the surviving heads in the original model; empty for a removed block."""
        return self.attention.heads if self.attention is not None else ()


@dataclass(frozen=True)
class PrunedShape:
    """Shape of an encoder; a dense model has the full shape.

    Attributes:
        conv_channels: Number of output channels of each convolution of the feature encoder.
        layers: Shapes of the transformer layers. A layer that has lost all its units stays in the list, so that layer
            indices and the number of hidden states stay the same.
    """

    conv_channels: tuple[int, ...]
    layers: tuple[LayerShape, ...]

    @classmethod
    def dense(cls, config: Any) -> PrunedShape:
        """Returns the full shape of a model.

        Args:
            config: Stock or prunable configuration.
        """
        head_dim = config.hidden_size // config.num_attention_heads
        layer = LayerShape(AttentionShape.dense(config.num_attention_heads, head_dim), config.intermediate_size)
        return cls(tuple(config.conv_dim), (layer,) * config.num_hidden_layers)

    def is_dense(self, config: Any) -> bool:
        """Returns whether every layer and convolution has all its units.

        Args:
            config: Stock or prunable configuration.
        """
        return self == PrunedShape.dense(config)

    def stock_fields(self, config: Any) -> dict[str, Any] | None:
        """Returns the widths of a stock configuration that express this shape; `None` if there are none.

        A stock class has one feed-forward width for all layers and all heads at full width; its convolutions may have any
        number of channels.

        Args:
            config: Stock or prunable configuration.
        """
        attention = AttentionShape.dense(config.num_attention_heads, config.hidden_size // config.num_attention_heads)
        widths = {layer.intermediate for layer in self.layers}
        width = widths.pop() if len(widths) == 1 else config.intermediate_size
        if widths or not width or any(layer.attention != attention for layer in self.layers):
            return None
        return {"conv_dim": list(self.conv_channels), "intermediate_size": width}

    def first_layers(self, num_layers: int) -> PrunedShape:
        """Returns the shape of the model truncated after layer `num_layers`, counted from 1."""
        return replace(self, layers=self.layers[:num_layers])

    @cached_property
    def position_bias_heads(self) -> tuple[int, ...]:
        """Indices of the heads that survive in at least one layer: one column each of the shared position bias table."""
        return tuple(sorted({head for layer in self.layers for head in layer.heads}))

    def position_bias_columns(self, heads: Iterable[int]) -> list[int]:
        """Returns the columns of this shape's position bias table that belong to some heads.

        Args:
            heads: Indices of the heads in the original model, of `position_bias_heads`.
        """
        column_of = {head: column for column, head in enumerate(self.position_bias_heads)}
        return [column_of[head] for head in heads]

    def validate(self, config: Any) -> None:
        """Checks that the shape can be cut out of a model.

        Args:
            config: Stock or prunable configuration with the original widths.

        Raises:
            ValueError: If a number of layers, heads, channels or a width is out of range.
        """
        if len(self.layers) != config.num_hidden_layers:
            raise ValueError(
                f"The shape has {len(self.layers)} layers, but `num_hidden_layers` is {config.num_hidden_layers}."
            )
        if len(self.conv_channels) != len(config.conv_dim) or any(
            not 1 <= kept <= full for kept, full in zip(self.conv_channels, config.conv_dim, strict=True)
        ):
            raise ValueError(
                f"`conv_channels` must keep between 1 and all of {list(config.conv_dim)} channels, "
                f"but are {list(self.conv_channels)}."
            )
        if self.conv_channels[-1] != config.conv_dim[-1]:
            raise ValueError(
                f"The last convolution cannot be pruned: it has {self.conv_channels[-1]} of {config.conv_dim[-1]} "
                "channels, and the feature projection needs them all."
            )
        head_dim = config.hidden_size // config.num_attention_heads
        for layer_idx, layer in enumerate(self.layers):
            if layer.attention is not None:
                layer.attention.validate(config.num_attention_heads, head_dim, f"Layer {layer_idx}")
            if layer.intermediate is not None and not 0 <= layer.intermediate <= config.intermediate_size:
                raise ValueError(
                    f"Layer {layer_idx}: `intermediate` must be in 0..{config.intermediate_size} or null, "
                    f"but is {layer.intermediate}."
                )

    def to_dict(self) -> dict[str, Any]:
        """Returns the form that config.json stores."""
        layers = []
        for layer in self.layers:
            attention = layer.attention and {
                "heads": list(layer.attention.heads),
                "query_key": list(layer.attention.query_key),
                "value_output": list(layer.attention.value_output),
            }
            layers.append({"attention": attention, "intermediate": layer.intermediate})
        return {"format_version": FORMAT_VERSION, "conv_channels": list(self.conv_channels), "layers": layers}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PrunedShape:
        """Reads the form that config.json stores.

        Args:
            values: Mapping as `to_dict` returns it.

        Raises:
            ValueError: If the format version is unknown, or a field is missing or has the wrong type.
        """
        if not isinstance(values, dict):
            raise ValueError(f"A pruned shape must be a mapping, but is {type(values).__name__}: {values!r}.")
        version = values.get("format_version")
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise ValueError(f"A pruned shape needs a `format_version` of at least 1, but has {version!r}.")
        if version > FORMAT_VERSION:
            raise ValueError(
                f"This checkpoint's shape has format version {version}, and this hf_prunable reads up to "
                f"{FORMAT_VERSION}. Upgrade with `pip install --upgrade hf_prunable`."
            )
        try:
            layers = tuple(_layer_from_dict(layer) for layer in values["layers"])
            return cls(_integers(values["conv_channels"]), layers)
        except (KeyError, TypeError) as error:
            raise ValueError(f"The pruned shape cannot be read: {error!r}. Its fields: {sorted(values)}.") from error


def _layer_from_dict(values: dict[str, Any]) -> LayerShape:
    attention = values["attention"]
    if attention is not None:
        attention = AttentionShape(
            _integers(attention["heads"]), _integers(attention["query_key"]), _integers(attention["value_output"])
        )
    intermediate = values["intermediate"]
    return LayerShape(attention, None if intermediate is None else _integers([intermediate])[0])


def _integers(values: Any) -> tuple[int, ...]:
    if any(isinstance(value, bool) or not isinstance(value, int) for value in values):
        raise TypeError(f"expected whole numbers, got {values!r}")
    return tuple(values)
