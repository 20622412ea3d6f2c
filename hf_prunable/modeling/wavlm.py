"""WavLM: stock classes with prunable blocks, and the gated relative position bias."""

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
from .attention_functions import attention_implementation
from .configuration import PrunableConfigMixin
from .head_by_head import MIN_FRAMES, GatedPositionBias, attend_head_by_head
from .pretrained import PrunableHeadMixin, PrunableModelMixin
from .shape import PrunedShape
from .size import BIAS_GATE_SIZE


@strict
class PrunableWavLMConfig(PrunableConfigMixin, WavLMConfig):
    """A `WavLMConfig` with a shape.

    Args:
        pruned_shape: Shape as `PrunedShape.to_dict` returns it; `None` for a dense model.
        gates: Arguments of `attach_gates` for a model with gates; `None` for one without.
        dense_num_hidden_layers: Number of layers of the original model, if the model is truncated.
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
    """Attention whose scores get a relative position bias, multiplied with a gate that the block's input computes.

    The bias table belongs to the first layer and has a column for each head that survives in any layer. It stays there
    when the first layer's own attention is removed. The gate reads the input split into the original heads.

    Args:
        config: Configuration of the model.
        model_shape: Shape of the whole model.
        layer_idx: Index of the layer, from 0.
    """

    head_indices: torch.Tensor | None
    bias_columns: torch.Tensor | None

    def __init__(self, config: PrunableWavLMConfig, model_shape: PrunedShape, layer_idx: int):
        super().__init__(config, model_shape, layer_idx)
        self.num_heads = config.num_attention_heads
        self.num_buckets = config.num_buckets
        self.max_distance = config.max_bucket_distance
        num_columns = len(model_shape.position_bias_heads)
        self.rel_attn_embed = nn.Embedding(config.num_buckets, num_columns) if layer_idx == 0 and num_columns else None
        if self.reads_input:
            self.gru_rel_pos_const = nn.Parameter(torch.ones(1, len(self.heads), 1, 1))
            self.gru_rel_pos_linear = nn.Linear(self.head_dim, BIAS_GATE_SIZE)
            is_whole = len(self.heads) == self.num_heads
            self._register_index("head_indices", None if is_whole else list(self.heads))
            columns = model_shape.position_bias_columns(self.heads)
            self._register_index("bias_columns", None if is_whole else columns)

    def init_weights(self) -> None:
        super().init_weights()
        if self.reads_input:
            init.ones_(self.gru_rel_pos_const)

    def cut(self, kept: KeptHeads | None, bias_columns: list[int]) -> dict[str, torch.Tensor]:
        parameters = super().cut(kept, bias_columns)
        if kept is not None and kept.shape.heads:
            parameters["gru_rel_pos_const"] = self.gru_rel_pos_const[:, kept.positions]
            parameters["gru_rel_pos_linear.weight"] = self.gru_rel_pos_linear.weight
            parameters["gru_rel_pos_linear.bias"] = self.gru_rel_pos_linear.bias
        if self.rel_attn_embed is not None and bias_columns:
            parameters["rel_attn_embed.weight"] = self.rel_attn_embed.weight[:, bias_columns]
        return parameters

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Attends over the frames, as `PrunableAttention.forward` does.

        Here, `position_bias` is the bias before the gate. It is of shape (table columns, frames, frames), or by
        distance, of shape (table columns, 2 frames - 1), in a layer that attends head by head.
        """
        goes_head_by_head = self._goes_head_by_head(hidden_states, attention_mask, **kwargs)
        if position_bias is None and self.rel_attn_embed is not None:
            position_bias = self._bias_by_distance(self.rel_attn_embed, hidden_states)
            if not goes_head_by_head:
                position_bias = bias_of_pairs(position_bias)
        if not self.reads_input:
            output, weights, _ = super().forward(hidden_states, attention_mask, None, **kwargs)
            return output, weights, position_bias
        # Where any layer has heads, the first one has a table.
        assert position_bias is not None
        gated = self._gated_bias(hidden_states, position_bias)
        if goes_head_by_head and self.shape is not None:
            query, key, value = self._project(hidden_states)
            output = attend_head_by_head(query, key, value, self.shape, gated, self.scaling)
            return self.out_proj(output), None, position_bias
        output, weights, _ = super().forward(hidden_states, attention_mask, gated.gate * gated.bias, **kwargs)
        if output is not None and self.training and self.config.hidden_dropout > 0:
            # Dropout draws its numbers in memory order, and stock WavLM's attention puts the frames before the batch.
            output = output.transpose(0, 1).contiguous().transpose(0, 1)
        return output, weights, position_bias

    def _goes_head_by_head(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs: Any
    ) -> bool:
        return (
            self.may_go_head_by_head
            and not self.training
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and attention_implementation(self.config, **kwargs) == "sdpa"
            and attention_mask is None
            and hidden_states.device.type == "cpu"
            and hidden_states.shape[1] >= MIN_FRAMES
        )

    # The published mapping from a distance in frames to a row of the table.
    _relative_positions_bucket = WavLMAttention._relative_positions_bucket

    def _bias_by_distance(self, table: nn.Embedding, hidden_states: torch.Tensor) -> torch.Tensor:
        """Returns the bias of every distance from 1 - frames to frames - 1, of shape (columns, 2 frames - 1)."""
        num_frames = hidden_states.shape[1]
        # Not the table's device, where an offloaded table has no values before it is called.
        distances = torch.arange(1 - num_frames, num_frames, device=hidden_states.device)
        return table(self._relative_positions_bucket(distances)).t().contiguous()

    def _gated_bias(self, hidden_states: torch.Tensor, position_bias: torch.Tensor) -> GatedPositionBias:
        """Returns the position bias of the block's heads, in the form it comes in, and its gate."""
        heads = hidden_states.unflatten(-1, (self.num_heads, self.head_dim))
        if self.head_indices is not None and self.bias_columns is not None:
            heads = heads.index_select(2, self.head_indices)
            position_bias = position_bias.index_select(0, self.bias_columns)
        is_exporting = torch.compiler.is_exporting()
        # torch.export keeps a product of frames and heads apart only where the heads, whose number is fixed, come first.
        projected = self.gru_rel_pos_linear(heads.transpose(1, 2) if is_exporting else heads)
        projected = projected.unflatten(-1, (2, BIAS_GATE_SIZE // 2)).sum(-1)
        if not is_exporting:
            # In the memory layout of the scores, which the product with the bias then has too.
            projected = projected.transpose(1, 2).contiguous()
        reset, update = torch.sigmoid(projected).chunk(2, dim=-1)
        return GatedPositionBias(reset * (update * self.gru_rel_pos_const - 1.0) + 2.0, position_bias)


def bias_of_pairs(bias_by_distance: torch.Tensor) -> torch.Tensor:
    """Returns the bias of every pair of frames from that of every distance.

    Args:
        bias_by_distance: Bias of the distances 1 - frames to frames - 1, of shape (heads, 2 frames - 1).

    Returns:
        Bias of shape (heads, frames, frames).
    """
    frames = (bias_by_distance.shape[1] + 1) // 2
    if not torch.compiler.is_exporting():
        return bias_by_distance.unfold(-1, frames, 1).flip(1)
    # An exported graph has no windows of a length known only at run time.
    positions = torch.arange(frames, device=bias_by_distance.device)
    return bias_by_distance[:, positions - positions.unsqueeze(1) + frames - 1]


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
