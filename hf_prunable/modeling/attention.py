"""Self-attention whose heads may differ in width or be removed, with gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention_functions import attention_implementation, eager_attention_forward
from .configuration import PrunableConfigMixin
from .gated import GatedLinear, OutputBias
from .gates import HardConcreteGate
from .shape import AttentionShape, PrunedShape
from .units import AttentionUnits, GatedWidth, GateValues


@dataclass
class KeptHeads:
    """What stays of an attention block, as indices into what it has now.

    Attributes:
        shape: Shape of the block after the cut.
        positions: Positions of the kept heads among the present ones, of shape (kept heads,).
        query_key: Indices of the kept rows of the query and key projections.
        value_output: Indices of the kept rows of the value projection.
    """

    shape: AttentionShape
    positions: torch.Tensor
    query_key: torch.Tensor
    value_output: torch.Tensor


class PrunableAttention(nn.Module):
    """Multi-head self-attention with the heads of a shape.

    Queries, keys and values are padded to the width of the block's widest head, because one batched product over equal
    widths is faster than several over different ones. Padded dimensions are 0 on both sides and change no score. Scores
    are scaled for the original head size, which the weights were trained with.

    Args:
        config: Configuration of the model.
        model_shape: Shape of the whole model. A removed block stays a module, so that `output_attentions` has one entry
            per layer.
        layer_idx: Index of the layer, from 0.
    """

    is_causal = False
    # Set by `prepare_for_inference_`, in families that can attend head by head.
    may_go_head_by_head = False

    q_proj: GatedLinear | None
    k_proj: GatedLinear | None
    v_proj: GatedLinear
    out_proj: GatedLinear | OutputBias
    query_key_places: torch.Tensor | None
    value_output_places: torch.Tensor | None

    def __init__(self, config: PrunableConfigMixin, model_shape: PrunedShape, layer_idx: int):
        super().__init__()
        shape = model_shape.layers[layer_idx].attention
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.shape = shape
        self.heads = shape.heads if shape is not None else ()
        self._indices: dict[str, list[int] | None] = {}
        self.q_proj = self.k_proj = None
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
        self._register_index("query_key_places", self._padded_places(shape.query_key))
        self._register_index("value_output_places", self._padded_places(shape.value_output))

    def _padded_places(self, widths: tuple[int, ...]) -> list[int] | None:
        """Returns the index of each dimension after padding all heads to one width; `None` if nothing is padded."""
        if all(width == self.width for width in widths):
            return None
        return [position * self.width + offset for position, width in enumerate(widths) for offset in range(width)]

    def _register_index(self, name: str, index: list[int] | None) -> None:
        """Registers an index that follows from the shape and is not saved; `None` where everything stays in place."""
        self._indices[name] = index
        buffer = None if index is None else torch.tensor(index, dtype=torch.long)
        self.register_buffer(name, buffer, persistent=False)

    def init_weights(self) -> None:
        """Fills the indices, which no checkpoint holds: models are built without memory before they are loaded."""
        for name, index in self._present_indices():
            init.copy_(getattr(self, name), index)

    def _present_indices(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields names and values of the indices that are not `None`."""
        for name, index in self._indices.items():
            if index is not None:
                yield name, torch.tensor(index, dtype=torch.long, device="cpu")

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> PrunableAttention:
        # Indices on the meta device have no values to move, and those that `to_empty` makes have none yet.
        for name, index in self._present_indices():
            if getattr(self, name).is_meta:
                setattr(self, name, index)
        super()._apply(fn, recurse)
        for name, index in self._present_indices():
            setattr(self, name, index.to(getattr(self, name).device))
        return self

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        # With `assign=True`, weights leave the meta device without `_apply`.
        value = state_dict.get(f"{prefix}v_proj.weight")
        for name, index in self._present_indices():
            if value is not None and getattr(self, name).is_meta and not value.is_meta:
                setattr(self, name, index.to(value.device))

    @property
    def reads_input(self) -> bool:
        """Whether the output depends on the input."""
        return bool(self.heads)

    def attach_gates(self, units: tuple[str, ...], make_gate: Callable[[int], HardConcreteGate]) -> None:
        """Puts gates on dimensions ("qk", "vo"), on heads ("head") and on the block ("mha").

        Args:
            units: Kinds of units, of `hf_prunable.modeling.units.UNITS`.
            make_gate: Function from a number of gates to a gate module.
        """
        if self.shape is None:
            return
        if "qk" in units and self.q_proj is not None:
            self.q_proj.add_gate("qk", make_gate(self.q_proj.out_features), "rows")
        if isinstance(self.out_proj, GatedLinear):
            if "vo" in units:
                self.out_proj.add_gate("vo", make_gate(self.out_proj.in_features), "columns")
            if "head" in units:
                self.out_proj.add_gate("head", make_gate(len(self.heads)), "columns", self.shape.value_output)
        if "mha" in units:
            self.out_proj.add_gate("mha", make_gate(1), "all")

    def units(self, of_gate: GateValues) -> AttentionUnits | None:
        """Returns a value for every unit of the block, or `None` if the block is removed.

        Args:
            of_gate: Function from a gate to one value per unit. A unit without a gate has 1.
        """
        if self.shape is None:
            return None
        shape, out_proj = self.shape, self.out_proj
        if self.q_proj is not None:
            query_key = self.q_proj.unit_values("qk", of_gate, self.q_proj.out_features)
        else:
            query_key = torch.ones(0, device=out_proj.bias.device)
        return AttentionUnits(
            out_proj.unit_values("mha", of_gate, 1)[0],
            out_proj.unit_values("head", of_gate, len(self.heads)),
            query_key.split(shape.query_key),
            out_proj.unit_values("vo", of_gate, sum(shape.value_output)).split(shape.value_output),
        )

    def kept_heads(self, is_open: AttentionUnits | None) -> KeptHeads | None:
        """Returns what stays of the block when its closed units are removed, or `None` if nothing stays.

        A head without value/output dimensions is removed with its query/key dimensions.

        Args:
            is_open: Value of each unit as `units` returns it; a unit is closed where it is 0.
        """
        if is_open is None or not is_open.block:
            return None
        value_output = [values.bool().cpu() for values in is_open.value_output]
        is_alive = [bool(head) and bool(dims.any()) for head, dims in zip(is_open.head, value_output, strict=True)]
        value_output = [dims & alive for dims, alive in zip(value_output, is_alive, strict=True)]
        query_key = [dims.bool().cpu() & alive for dims, alive in zip(is_open.query_key, is_alive, strict=True)]
        positions = [position for position, alive in enumerate(is_alive) if alive]
        shape = AttentionShape(
            tuple(self.heads[position] for position in positions),
            tuple(int(query_key[position].sum()) for position in positions),
            tuple(int(value_output[position].sum()) for position in positions),
        )
        return KeptHeads(
            shape,
            torch.tensor(positions, dtype=torch.long),
            torch.cat([torch.zeros(0, dtype=torch.bool), *query_key]).nonzero().squeeze(1),
            torch.cat([torch.zeros(0, dtype=torch.bool), *value_output]).nonzero().squeeze(1),
        )

    def gated_widths(self, kept: KeptHeads | None) -> Iterator[GatedWidth]:
        """Yields the widths of the kept heads that gates decide and that are not 0.

        Args:
            kept: What stays of the block.
        """
        if kept is None or self.shape is None or not kept.shape.heads:
            return
        for unit, projection, present, kept_widths in (
            ("qk", self.q_proj, self.shape.query_key, kept.shape.query_key),
            ("vo", self.out_proj, self.shape.value_output, kept.shape.value_output),
        ):
            gate = None if projection is None else projection.gates_by_unit().get(unit)
            if gate is None:
                continue
            for position, width in zip(kept.positions.tolist(), kept_widths, strict=True):
                start = sum(present[:position])
                if width:
                    yield GatedWidth(gate, start, start + present[position])

    def cut(self, kept: KeptHeads | None, bias_columns: list[int]) -> dict[str, torch.Tensor]:
        """Returns the parameters that stay, with the gates folded in, by their names in the block.

        Args:
            kept: What stays of the block, or `None` if nothing stays.
            bias_columns: Columns of the position bias table, which all layers share, that stay; for families with one.
        """
        if kept is None:
            return {}
        if isinstance(self.out_proj, OutputBias):
            return {"out_proj.bias": self.out_proj()}
        weight, bias = self.out_proj.gated_parameters()
        if not kept.shape.heads:
            return {"out_proj.bias": bias}
        parameters = {"out_proj.weight": weight[:, kept.value_output], "out_proj.bias": bias}
        projections = [("v_proj", self.v_proj, kept.value_output)]
        if any(kept.shape.query_key) and self.q_proj is not None and self.k_proj is not None:
            projections += [("q_proj", self.q_proj, kept.query_key), ("k_proj", self.k_proj, kept.query_key)]
        for name, projection, rows in projections:
            weight, bias = projection.gated_parameters()
            parameters |= {f"{name}.weight": weight[rows], f"{name}.bias": bias[rows]}
        return parameters

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Attends over the frames.

        Args:
            hidden_states: Input, of shape (batch, frames, hidden size).
            attention_mask: Mask in the form that transformers' mask functions give it for the attention implementation.
            position_bias: Added to the scores, of shape (batch, heads of this block, frames, frames).
            **kwargs: Passed to the attention function.

        Returns:
            What the block adds to its input, or `None` for a removed block; the attention weights of the surviving
            heads, of shape (batch, heads, frames, frames), from the eager implementation only; and the position bias for
            the next layer.
        """
        implementation = attention_implementation(self.config, **kwargs)
        if not self.reads_input:
            output = None if self.shape is None else self.out_proj().expand_as(hidden_states)
            batch_size, frames, _ = hidden_states.shape
            is_eager = implementation == "eager"
            weights = hidden_states.new_zeros(batch_size, 0, frames, frames) if is_eager else None
            return output, weights, position_bias

        query, key, value = self._project(hidden_states)
        value = self._split_heads(value, self.value_output_places)
        if query is None or key is None:
            query = key = torch.zeros_like(value)
        else:
            query = self._split_heads(query, self.query_key_places)
            key = self._split_heads(key, self.query_key_places)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
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
        """Returns queries, keys and values, of shape (batch, frames, dimensions of all heads); `None` without any."""
        value = self.v_proj(hidden_states)
        if self.q_proj is None or self.k_proj is None:
            return None, None, value
        return self.q_proj(hidden_states), self.k_proj(hidden_states), value

    def _split_heads(self, states: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        """Maps (batch, frames, dimensions of all heads) to (batch, heads, frames, width)."""
        if places is not None:
            padded = states.new_zeros(*states.shape[:-1], len(self.heads) * self.width)
            states = padded.index_copy_(-1, places, states)
        return states.unflatten(-1, (len(self.heads), self.width)).transpose(1, 2)
