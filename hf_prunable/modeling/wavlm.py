"""WavLM: stock classes with prunable blocks, and its gated relative position bias."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    WavLMConfig,
    WavLMForAudioFrameClassification,
    WavLMForCTC,
    WavLMForSequenceClassification,
    WavLMForXVector,
    WavLMModel,
)
from transformers import initialization as init
from transformers.models.wavlm.modeling_wavlm import (
    WavLMAdapter,
    WavLMAttention,
    WavLMFeatureProjection,
    WavLMPositionalConvEmbedding,
)

from .attention import KeptHeads, PrunableAttention
from .configuration import PrunableConfigMixin
from .head_by_head import LEAST_FRAMES, attend_head_by_head
from .pretrained import PrunableHeadMixin, PrunableModelMixin
from .shape import PrunedShape
from .size import BIAS_GATE_SIZE


@strict
class PrunableWavLMConfig(PrunableConfigMixin, WavLMConfig):
    """A `WavLMConfig` with a shape.

    Args:
        pruned_shape: See `PrunedShape.to_dict`; `None` for a dense model.
        gates: Arguments of `attach_gates` for a model with gates.
        dense_num_hidden_layers: Layers of the original model, where some were cut off.
    """

    model_type = "prunable_wavlm"
    stock_config_class: ClassVar = WavLMConfig
    has_relative_position_bias: ClassVar[bool] = True
    auto_classes: ClassVar[dict[str, str]] = {
        "AutoModel": "PrunableWavLMModel",
        "AutoModelForCTC": "PrunableWavLMForCTC",
        "AutoModelForAudioClassification": "PrunableWavLMForSequenceClassification",
        "AutoModelForAudioFrameClassification": "PrunableWavLMForAudioFrameClassification",
        "AutoModelForAudioXVector": "PrunableWavLMForXVector",
    }

    pruned_shape: dict | None = None
    gates: dict | None = None
    dense_num_hidden_layers: int | None = None


class PrunableWavLMAttention(PrunableAttention):
    """Attention whose scores get a relative position bias, gated by the block's input.

    The bias table belongs to the first layer, has a column for each head that lives in any layer, and stays there
    when the layer's own attention goes. The gate reads the input split into the original heads.

    Args:
        config: A prunable configuration.
        shape: The whole model's shape.
        number: Of the layer.
    """

    def __init__(self, config: PrunableWavLMConfig, shape: PrunedShape, number: int):
        super().__init__(config, shape, number)
        self.num_heads = config.num_attention_heads
        self.num_buckets = config.num_buckets
        self.max_distance = config.max_bucket_distance
        bias_heads = shape.position_bias_heads
        self.rel_attn_embed = nn.Embedding(config.num_buckets, len(bias_heads)) if number == 0 and bias_heads else None
        if self.reads_input:
            self.gru_rel_pos_const = nn.Parameter(torch.ones(1, len(self.heads), 1, 1))
            self.gru_rel_pos_linear = nn.Linear(self.head_dim, BIAS_GATE_SIZE)
            is_whole = len(self.heads) == self.num_heads
            self._register_index("head_numbers", None if is_whole else list(self.heads))
            self._register_index("bias_columns", None if is_whole else [bias_heads.index(head) for head in self.heads])

    def init_weights(self) -> None:
        super().init_weights()
        if self.reads_input:
            init.ones_(self.gru_rel_pos_const)

    def cut(self, kept: KeptHeads | None, bias_columns: torch.Tensor) -> dict[str, torch.Tensor]:
        parameters = super().cut(kept, bias_columns)
        if kept is not None and kept.shape.heads:
            parameters["gru_rel_pos_const"] = self.gru_rel_pos_const[:, kept.positions]
            parameters["gru_rel_pos_linear.weight"] = self.gru_rel_pos_linear.weight
            parameters["gru_rel_pos_linear.bias"] = self.gru_rel_pos_linear.bias
        if self.rel_attn_embed is not None and len(bias_columns):
            parameters["rel_attn_embed.weight"] = self.rel_attn_embed.weight[:, bias_columns]
        return parameters

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """As in `PrunableAttention`; `position_bias` is the ungated one, of shape (table columns, frames, frames).

        A layer that attends head by head makes and takes it by distance, of shape (table columns, 2 frames - 1).
        """
        goes_head_by_head = self._goes_head_by_head(hidden_states, attention_mask)
        if position_bias is None and self.rel_attn_embed is not None:
            position_bias = self.bias_by_distance(hidden_states.shape[1])
            if not goes_head_by_head:
                position_bias = bias_of_pairs(position_bias)
        if self.reads_input and goes_head_by_head:
            return self._attend_head_by_head(hidden_states, position_bias), None, position_bias
        gated_bias = None
        if self.reads_input:
            gate, own_bias = self._gate_and_bias(hidden_states, position_bias)
            gated_bias = gate * own_bias
        output, weights, _ = super().forward(hidden_states, attention_mask, gated_bias, **kwargs)
        if self.training and self.reads_input and self.config.hidden_dropout > 0:
            # Dropout draws its numbers in memory order, and stock WavLM's attention puts the frames before the batch.
            output = output.transpose(0, 1).contiguous().transpose(0, 1)
        return output, weights, position_bias

    def _goes_head_by_head(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None) -> bool:
        return (
            self.may_go_head_by_head
            and not self.training
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and self.config._attn_implementation == "sdpa"
            and attention_mask is None
            and hidden_states.device.type == "cpu"
            and hidden_states.shape[1] >= LEAST_FRAMES
        )

    def _attend_head_by_head(self, hidden_states: torch.Tensor, position_bias: torch.Tensor) -> torch.Tensor:
        query, key, value = self._project(hidden_states)
        gate, own_bias = self._gate_and_bias(hidden_states, position_bias)
        widths = self.shape.query_key, self.shape.value_output
        return self.out_proj(attend_head_by_head(query, key, value, *widths, gate, own_bias, self.scaling))

    # The published mapping from a distance in frames to a bucket of the table.
    _relative_positions_bucket = WavLMAttention._relative_positions_bucket

    def bias_by_distance(self, frames: int) -> torch.Tensor:
        """The bias of every distance from 1 - `frames` to `frames` - 1, of shape (table columns, 2 frames - 1)."""
        distances = torch.arange(1 - frames, frames, device=self.rel_attn_embed.weight.device)
        return self.rel_attn_embed(self._relative_positions_bucket(distances)).t().contiguous()

    def _gate_and_bias(
        self, hidden_states: torch.Tensor, position_bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The gate of each head and frame, (batch, heads, frames, 1), and the bias of the block's heads."""
        heads = hidden_states.unflatten(-1, (self.num_heads, self.head_dim))
        if self.head_numbers is not None:
            heads = heads.index_select(2, self.head_numbers)
            position_bias = position_bias.index_select(0, self.bias_columns)
        projected = self.gru_rel_pos_linear(heads).unflatten(-1, (2, BIAS_GATE_SIZE // 2)).sum(-1)
        # In the layout of the scores, which their product with the bias takes on.
        projected = projected.transpose(1, 2).contiguous()
        reset, update = torch.sigmoid(projected).chunk(2, dim=-1)
        return reset * (update * self.gru_rel_pos_const - 1.0) + 2.0, position_bias


def bias_of_pairs(bias_by_distance: torch.Tensor) -> torch.Tensor:
    """The bias of every pair of frames, (heads, frames, frames), from that of every distance, (heads, 2 frames - 1)."""
    frames = (bias_by_distance.shape[1] + 1) // 2
    if not torch.compiler.is_exporting():
        return bias_by_distance.unfold(-1, frames, 1).flip(1)
    # An exported graph has no windows of a length that is known only when it runs. A circle that begins with distance 0,
    # cut into rows of one less than all of it, gives the same: each row begins one before the last.
    circle = torch.cat(
        (bias_by_distance[:, frames - 1 :], bias_by_distance[:, :1], bias_by_distance[:, : frames - 1]), 1
    )
    rows = circle.unsqueeze(1).expand(-1, frames, -1).flatten(1)[:, : frames * (2 * frames - 1)]
    return rows.unflatten(1, (frames, 2 * frames - 1))[..., :frames]


class PrunableWavLMModel(PrunableModelMixin, WavLMModel):
    """A `WavLMModel` of any shape."""

    config_class = PrunableWavLMConfig
    stock_class = WavLMModel

    def __init__(self, config: Any):
        # Not WavLMModel's own constructor, which would build the dense encoder.
        super(WavLMModel, self).__init__(self.config_class.from_stock(config))
        self._build_encoder(
            feature_projection=WavLMFeatureProjection(self.config),
            position_conv=WavLMPositionalConvEmbedding(self.config),
            make_attention=PrunableWavLMAttention,
        )
        self.adapter = WavLMAdapter(self.config) if self.config.add_adapter else None
        self.post_init()


class PrunableWavLMForCTC(PrunableHeadMixin, WavLMForCTC):
    """A `WavLMForCTC` of any shape."""

    config_class = PrunableWavLMConfig
    stock_class = WavLMForCTC
    base_class = PrunableWavLMModel


class PrunableWavLMForSequenceClassification(PrunableHeadMixin, WavLMForSequenceClassification):
    """A `WavLMForSequenceClassification` of any shape."""

    config_class = PrunableWavLMConfig
    stock_class = WavLMForSequenceClassification
    base_class = PrunableWavLMModel


class PrunableWavLMForAudioFrameClassification(PrunableHeadMixin, WavLMForAudioFrameClassification):
    """A `WavLMForAudioFrameClassification` of any shape."""

    config_class = PrunableWavLMConfig
    stock_class = WavLMForAudioFrameClassification
    base_class = PrunableWavLMModel


class PrunableWavLMForXVector(PrunableHeadMixin, WavLMForXVector):
    """A `WavLMForXVector` of any shape."""

    config_class = PrunableWavLMConfig
    stock_class = WavLMForXVector
    base_class = PrunableWavLMModel
