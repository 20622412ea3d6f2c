"""What is left of a speech encoder, layer by layer: the one description that everything else is computed from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any


FORMAT_VERSION = 1


@dataclass(frozen=True)
class AttentionShape:
    """The heads of one attention block.

    Without heads, the block still adds its output bias; a block that is gone altogether is `None` in `LayerShape`.

    Attributes:
        heads: Surviving heads, by their number in the original model, in ascending order.
        query_key: For each surviving head, the dimensions its queries and keys are compared in. With 0, the head
            attends uniformly, or by position bias alone where the family has one.
        value_output: For each surviving head, the dimensions of its values, at least 1.
    """

    heads: tuple[int, ...]
    query_key: tuple[int, ...]
    value_output: tuple[int, ...]

    @classmethod
    def dense(cls, num_heads: int, head_dim: int) -> AttentionShape:
        """All heads at full width."""
        return cls(tuple(range(num_heads)), (head_dim,) * num_heads, (head_dim,) * num_heads)

    def validate(self, num_heads: int, head_dim: int, where: str) -> None:
        """Checks the block against the original model.

        Raises:
            ValueError: If heads repeat, are out of order or out of range, or a width is not possible.
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
    """One transformer layer.

    Attributes:
        attention: The attention block, or `None` where it is gone with its output bias.
        intermediate: The feed-forward's hidden units; 0 leaves its output bias, `None` removes the block.
    """

    attention: AttentionShape | None
    intermediate: int | None

    @property
    def heads(self) -> tuple[int, ...]:
        """Surviving heads by original number, empty where the block is gone."""
        return self.attention.heads if self.attention is not None else ()


@dataclass(frozen=True)
class PrunedShape:
    """The widths of every prunable part of an encoder; a dense model is the full shape.

    Attributes:
        conv_channels: Output channels of each convolution of the feature encoder.
        layers: The transformer layers that are kept. An emptied layer stays in the list, so that layer numbers and
            the number of hidden states do not move.
    """

    conv_channels: tuple[int, ...]
    layers: tuple[LayerShape, ...]

    @classmethod
    def dense(cls, config: Any) -> PrunedShape:
        """The full shape of a model with this configuration."""
        head_dim = config.hidden_size // config.num_attention_heads
        layer = LayerShape(AttentionShape.dense(config.num_attention_heads, head_dim), config.intermediate_size)
        return cls(tuple(config.conv_dim), (layer,) * config.num_hidden_layers)

    def is_dense(self, config: Any) -> bool:
        """Whether nothing is missing from the layers and convolutions that `config` describes."""
        return self == PrunedShape.dense(config)

    def first_layers(self, num_layers: int) -> PrunedShape:
        """The shape of layers 1 to `num_layers`."""
        return replace(self, layers=self.layers[:num_layers])

    @property
    def position_bias_heads(self) -> tuple[int, ...]:
        """Heads that live in at least one layer: those the shared relative position bias still has a column for."""
        return tuple(sorted({head for layer in self.layers for head in layer.heads}))

    def validate(self, config: Any) -> None:
        """Checks that the shape can be cut out of the model that `config` describes.

        Raises:
            ValueError: If a number of layers, heads, widths or channels is not possible.
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
        for number, layer in enumerate(self.layers):
            if layer.attention is not None:
                layer.attention.validate(config.num_attention_heads, head_dim, f"Layer {number}")
            if layer.intermediate is not None and not 0 <= layer.intermediate <= config.intermediate_size:
                raise ValueError(
                    f"Layer {number}: `intermediate` must be in 0..{config.intermediate_size} or null, "
                    f"but is {layer.intermediate}."
                )

    def to_dict(self) -> dict[str, Any]:
        """The form that config.json stores."""
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
        """Reads what `to_dict` wrote.

        Raises:
            ValueError: If the format is newer than this library knows, or a field is missing or of the wrong type.
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
