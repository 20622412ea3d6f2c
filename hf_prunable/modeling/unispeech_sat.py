"""UniSpeech-SAT: stock classes with prunable blocks."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import (
    UniSpeechSatConfig,
    UniSpeechSatForAudioFrameClassification,
    UniSpeechSatForCTC,
    UniSpeechSatForSequenceClassification,
    UniSpeechSatForXVector,
    UniSpeechSatModel,
)
from transformers.models.unispeech_sat.modeling_unispeech_sat import (
    UniSpeechSatAttnAdapterLayer,
    UniSpeechSatFeatureProjection,
    UniSpeechSatPositionalConvEmbedding,
)

from .attention import PrunableAttention
from .configuration import PrunableConfigMixin
from .pretrained import PrunableHeadMixin, PrunableModelMixin


@strict
class PrunableUniSpeechSatConfig(PrunableConfigMixin, UniSpeechSatConfig):
    """A `UniSpeechSatConfig` with a shape.

    Args:
        pruned_shape: Shape as `PrunedShape.to_dict` returns it; `None` for a dense model.
        gates: Arguments of `attach_gates` for a model with gates; `None` for one without.
        dense_num_hidden_layers: Number of layers of the original model, if the model is truncated.
    """

    model_type = "prunable_unispeech_sat"
    stock_config_class: ClassVar = UniSpeechSatConfig
    auto_classes: ClassVar[dict[str, str]] = {
        "AutoModel": "PrunableUniSpeechSatModel",
        "AutoModelForCTC": "PrunableUniSpeechSatForCTC",
        "AutoModelForAudioClassification": "PrunableUniSpeechSatForSequenceClassification",
        "AutoModelForAudioFrameClassification": "PrunableUniSpeechSatForAudioFrameClassification",
        "AutoModelForAudioXVector": "PrunableUniSpeechSatForXVector",
    }
    # The stock model has it even if nothing is masked.
    has_mask_embedding: ClassVar[bool] = True

    pruned_shape: dict | None = None
    gates: dict | None = None
    dense_num_hidden_layers: int | None = None


class PrunableUniSpeechSatModel(PrunableModelMixin, UniSpeechSatModel):
    """A `UniSpeechSatModel` of any shape."""

    config_class = PrunableUniSpeechSatConfig
    stock_class = UniSpeechSatModel

    def __init__(self, config: Any):
        # Not UniSpeechSatModel's own constructor, which would build the dense encoder.
        super(UniSpeechSatModel, self).__init__(self.config_class.from_stock(config))
        self._build_encoder(
            feature_projection=UniSpeechSatFeatureProjection(self.config),
            position_conv=UniSpeechSatPositionalConvEmbedding(self.config),
            make_attention=PrunableAttention,
            make_attention_adapter=UniSpeechSatAttnAdapterLayer,
        )
        self.post_init()


class PrunableUniSpeechSatForCTC(PrunableHeadMixin, UniSpeechSatForCTC):
    """A `UniSpeechSatForCTC` of any shape."""

    config_class = PrunableUniSpeechSatConfig
    stock_class = UniSpeechSatForCTC
    base_class = PrunableUniSpeechSatModel


class PrunableUniSpeechSatForSequenceClassification(PrunableHeadMixin, UniSpeechSatForSequenceClassification):
    """A `UniSpeechSatForSequenceClassification` of any shape."""

    config_class = PrunableUniSpeechSatConfig
    stock_class = UniSpeechSatForSequenceClassification
    base_class = PrunableUniSpeechSatModel


class PrunableUniSpeechSatForAudioFrameClassification(PrunableHeadMixin, UniSpeechSatForAudioFrameClassification):
    """A `UniSpeechSatForAudioFrameClassification` of any shape."""

    config_class = PrunableUniSpeechSatConfig
    stock_class = UniSpeechSatForAudioFrameClassification
    base_class = PrunableUniSpeechSatModel


class PrunableUniSpeechSatForXVector(PrunableHeadMixin, UniSpeechSatForXVector):
    """A `UniSpeechSatForXVector` of any shape."""

    config_class = PrunableUniSpeechSatConfig
    stock_class = UniSpeechSatForXVector
    base_class = PrunableUniSpeechSatModel
