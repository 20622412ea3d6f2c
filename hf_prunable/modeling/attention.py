"""Self-attention whose heads may differ in width or be gone, with gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .gated import GatedLinear, OutputBias
from .gates import HardConcreteGate
from .shape import AttentionShape, PrunedShape


@dataclass
class KeptHeads:
    """What stays of an attention block, as indices into what it has now.

    Attributes:
        shape: The block after the cut.
        positions: Places of the kept heads among the present ones.
        query_key: Kept rows of the query and key projections.
        value_output: Kept rows of the value projection.
    """

    shape: AttentionShape
    positions: torch.Tensor
    query_key: torch.Tensor
    value_output: torch.Tensor


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    position_bias: torch.Tensor | None = None,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention with its weights, in the form of transformers' attention interface."""
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if position_bias is not None:
        weights = weights + position_bias
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class PrunableAttention(nn.Module):
    """Multi-head self-attention over the heads of a shape.

    Queries, keys and values are padded to the widest of the block's heads, because one batched product over equal
    widths beats several over ragged ones; a padded dimension is 0 on both sides and changes no score. Scores are
    scaled for the original head size, which is what the weights were trained with.

    Args:
        config: A prunable configuration.
        shape: The whole model's shape. A block that is gone stays a module, so that `output_attentions` has one entry
            a layer.
        number: Of the layer.
    """

    is_causal = False
    # Set in models prepared for inference; for families that have a faster way to attend.
    may_go_head_by_head = False

    def __init__(self, config: Any, shape: PrunedShape, number: int):
        super().__init__()
        shape = shape.layers[number].attention
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.shape = shape
        self.heads = shape.heads if shape is not None else ()
        self._indices: dict[str, list[int] | None] = {}
        self.q_proj = self.k_proj = self.v_proj = self.out_proj = None
        if shape is None:
            return
        if not self.heads:
            self.out_proj = OutputBias(config.hidden_size)
            return
        self.width = max(*shape.query_key, *shape.value_output)
        if any(shape.query_key):
            self.q_proj = GatedLinear(config.hidden_size, sum(shape.query_key))
            self.k_proj = GatedLinear(config.hidden_size, sum(shape.query_key))
        self.v_proj = GatedLinear(config.hidden_size, sum(shape.value_output))
        self.out_proj = GatedLinear(sum(shape.value_output), config.hidden_size)
        self._register_index("query_key_places", self._places(shape.query_key))
        self._register_index("value_output_places", self._places(shape.value_output))

    def _places(self, widths: tuple[int, ...]) -> list[int] | None:
        """Where each dimension goes among heads padded to one width; `None` where nothing is to be padded."""
        if all(width == self.width for width in widths):
            return None
        return [number * self.width + offset for number, width in enumerate(widths) for offset in range(width)]

    def _register_index(self, name: str, index: list[int] | None) -> None:
        """Registers an index that follows from the shape and is not saved; `None` where everything stays in place."""
        self._indices[name] = index
        buffer = None if index is None else torch.tensor(index, dtype=torch.long)
        self.register_buffer(name, buffer, persistent=False)

    def init_weights(self) -> None:
        """Fills what no checkpoint holds: models are built without data, and the indices are not saved."""
        for name, index in self._indices.items():
            if index is not None:
                init.copy_(getattr(self, name), torch.tensor(index, dtype=torch.long))

    @property
    def reads_input(self) -> bool:
        """Whether the output depends on the input."""
        return bool(self.heads)

    def attach_gates(self, units: tuple[str, ...], make_gate: Callable[[int], HardConcreteGate]) -> None:
        """Puts gates on dimensions ("qk", "vo"), on heads ("head") and on the block ("mha")."""
        if "qk" in units and self.q_proj is not None:
            self.q_proj.add_gate("qk", make_gate(self.q_proj.out_features), "rows")
        if "vo" in units and self.reads_input:
            self.out_proj.add_gate("vo", make_gate(self.out_proj.in_features), "columns")
        if "head" in units and self.reads_input:
            self.out_proj.add_gate("head", make_gate(len(self.heads)), "columns", self.shape.value_output)
        if "mha" in units and self.shape is not None:
            self.out_proj.add_gate("mha", make_gate(1), "all")

    def cut(self, kept: KeptHeads | None, bias_columns: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parameters that stay, gates folded in.

        Args:
            kept: What stays of the block, or `None` for nothing.
            bias_columns: Columns of the layers' shared position bias table that stay, where there is one.
        """
        if kept is None:
            return {}
        weight, bias = self.out_proj.gated_parameters()
        parameters = {"out_proj.bias": bias}
        if not kept.shape.heads:
            return parameters
        parameters["out_proj.weight"] = weight[:, kept.value_output]
        projections = [("v_proj", kept.value_output)]
        if any(kept.shape.query_key):
            projections += [("q_proj", kept.query_key), ("k_proj", kept.query_key)]
        for name, rows in projections:
            weight, bias = getattr(self, name).gated_parameters()
            parameters[f"{name}.weight"], parameters[f"{name}.bias"] = weight[rows], bias[rows]
        return parameters

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Attends over the frames.

        Args:
            hidden_states: Of shape (batch, frames, hidden size).
            attention_mask: As transformers' mask functions make it for the attention implementation in use.
            position_bias: Added to the scores, of shape (batch, heads of this block, frames, frames).

        Returns:
            What the block adds to its input, or `None` for a removed block; from the eager implementation, the
            attention weights of the surviving heads, of shape (batch, heads, frames, frames); and the position bias
            that the next layer is to have.
        """
        if not self.reads_input:
            output = None if self.shape is None else self.out_proj().expand_as(hidden_states)
            batch_size, frames, _ = hidden_states.shape
            eager = self.config._attn_implementation == "eager"
            weights = hidden_states.new_zeros(batch_size, 0, frames, frames) if eager else None
            return output, weights, position_bias

        query, key, value = self._project(hidden_states)
        value = self._split_heads(value, self.value_output_places)
        if query is None:
            query = key = torch.zeros_like(value)
        else:
            query, key = (self._split_heads(states, self.query_key_places) for states in (query, key))
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        if position_bias is not None:
            kwargs["position_bias"] = position_bias
        output, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        output = output.flatten(2)
        if self.value_output_places is not None:
            output = output.index_select(-1, self.value_output_places)
        return self.out_proj(output), weights, position_bias

    def _project(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor]:
        """Queries, keys and values, of shape (batch, frames, dimensions of all heads); `None` for those without any."""
        value = self.v_proj(hidden_states)
        if self.q_proj is None:
            return None, None, value
        return self.q_proj(hidden_states), self.k_proj(hidden_states), value

    def _split_heads(self, states: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        """Maps (batch, frames, dimensions of all heads) to (batch, heads, frames, width)."""
        if places is not None:
            padded = states.new_zeros(*states.shape[:-1], len(self.heads) * self.width)
            states = padded.index_copy_(-1, places, states)
        return states.unflatten(-1, (len(self.heads), self.width)).transpose(1, 2)
