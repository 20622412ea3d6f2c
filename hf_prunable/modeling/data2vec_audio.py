"""data2vec-audio: stock classes with prunable blocks."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioForAudioFrameClassification,
    Data2VecAudioForCTC,
    Data2VecAudioForSequenceClassification,
    Data2VecAudioForXVector,
    Data2VecAudioModel,
)
from transformers.models.data2vec.modeling_data2vec_audio import (
    Data2VecAudioAdapter,
    Data2VecAudioFeatureProjection,
    Data2VecAudioPositionalConvEmbedding,
)

from .attention import PrunableAttention
from .configuration import PrunableConfigMixin
from .pretrained import PrunableHeadMixin, PrunableModelMixin


@strict
class PrunableData2VecAudioConfig(PrunableConfigMixin, Data2VecAudioConfig):
    """A `Data2VecAudioConfig` with a shape.

    Args:
        pruned_shape: Shape as `PrunedShape.to_dict` returns it; `None` for a dense model.
        gates: Arguments of `attach_gates` for a model with gates; `None` for one without.
        dense_num_hidden_layers: Number of layers of the original model, if the model is truncated.
    """

    model_type = "prunable_data2vec_audio"
    stock_config_class: ClassVar = Data2VecAudioConfig
    auto_classes: ClassVar[dict[str, str]] = {
        "AutoModel": "PrunableData2VecAudioModel",
        "AutoModelForCTC": "PrunableData2VecAudioForCTC",
        "AutoModelForAudioClassification": "PrunableData2VecAudioForSequenceClassification",
        "AutoModelForAudioFrameClassification": "PrunableData2VecAudioForAudioFrameClassification",
        "AutoModelForAudioXVector": "PrunableData2VecAudioForXVector",
    }
    # What other families have as fields.
    do_stable_layer_norm: ClassVar[bool] = False
    feat_extract_norm: ClassVar[str] = "layer"
    position_weight_norm: ClassVar[bool] = False

    pruned_shape: dict | None = None
    gates: dict | None = None
    dense_num_hidden_layers: int | None = None

    @property
    def position_conv_kernels(self) -> tuple[int, ...]:
        """Widths of the kernels of the position convolutions, one after the other."""
        return (self.conv_pos_kernel_size,) * self.num_conv_pos_embeddings


class PrunableData2VecAudioModel(PrunableModelMixin, Data2VecAudioModel):
    """A `Data2VecAudioModel` of any shape."""

    config_class = PrunableData2VecAudioConfig
    stock_class = Data2VecAudioModel

    def __init__(self, config: Any):
        # Not Data2VecAudioModel's own constructor, which would build the dense encoder.
        super(Data2VecAudioModel, self).__init__(self.config_class.from_stock(config))
        self._build_encoder(
            feature_projection=Data2VecAudioFeatureProjection(self.config),
            position_conv=Data2VecAudioPositionalConvEmbedding(self.config),
            make_attention=PrunableAttention,
        )
        self.adapter = Data2VecAudioAdapter(self.config) if self.config.add_adapter else None
        self.post_init()


class PrunableData2VecAudioForCTC(PrunableHeadMixin, Data2VecAudioForCTC):
    """A `Data2VecAudioForCTC` of any shape."""

    config_class = PrunableData2VecAudioConfig
    stock_class = Data2VecAudioForCTC
    base_class = PrunableData2VecAudioModel


class PrunableData2VecAudioForSequenceClassification(PrunableHeadMixin, Data2VecAudioForSequenceClassification):
    """A `Data2VecAudioForSequenceClassification` of any shape."""

    config_class = PrunableData2VecAudioConfig
    stock_class = Data2VecAudioForSequenceClassification
    base_class = PrunableData2VecAudioModel


class PrunableData2VecAudioForAudioFrameClassification(PrunableHeadMixin, Data2VecAudioForAudioFrameClassification):
    """A `Data2VecAudioForAudioFrameClassification` of any shape."""

    config_class = PrunableData2VecAudioConfig
    stock_class = Data2VecAudioForAudioFrameClassification
    base_class = PrunableData2VecAudioModel


class PrunableData2VecAudioForXVector(PrunableHeadMixin, Data2VecAudioForXVector):
    """A `Data2VecAudioForXVector` of any shape."""

    config_class = PrunableData2VecAudioConfig
    stock_class = Data2VecAudioForXVector
    base_class = PrunableData2VecAudioModel
