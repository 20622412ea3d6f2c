"""UniSpeech: stock classes with prunable blocks."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import (
    UniSpeechConfig,
    UniSpeechForCTC,
    UniSpeechForSequenceClassification,
    UniSpeechModel,
)
from transformers.models.unispeech.modeling_unispeech import (
    UniSpeechAttnAdapterLayer,
    UniSpeechFeatureProjection,
    UniSpeechPositionalConvEmbedding,
)

from .attention import PrunableAttention
from .configuration import PrunableConfigMixin
from .pretrained import PrunableHeadMixin, PrunableModelMixin


@strict
class PrunableUniSpeechConfig(PrunableConfigMixin, UniSpeechConfig):
    """A `UniSpeechConfig` with a shape.

    Args:
        pruned_shape: Shape as `PrunedShape.to_dict` returns it; `None` for a dense model.
        gates: Arguments of `attach_gates` for a model with gates; `None` for one without.
        dense_num_hidden_layers: Number of layers of the original model, if the model is truncated.
    """

    model_type = "prunable_unispeech"
    stock_config_class: ClassVar = UniSpeechConfig
    auto_classes: ClassVar[dict[str, str]] = {
        "AutoModel": "PrunableUniSpeechModel",
        "AutoModelForCTC": "PrunableUniSpeechForCTC",
        "AutoModelForAudioClassification": "PrunableUniSpeechForSequenceClassification",
    }

    pruned_shape: dict | None = None
    gates: dict | None = None
    dense_num_hidden_layers: int | None = None


class PrunableUniSpeechModel(PrunableModelMixin, UniSpeechModel):
    """A `UniSpeechModel` of any shape."""

    config_class = PrunableUniSpeechConfig
    stock_class = UniSpeechModel

    def __init__(self, config: Any):
        # Not UniSpeechModel's own constructor, which would build the dense encoder.
        super(UniSpeechModel, self).__init__(self.config_class.from_stock(config))
        self._build_encoder(
            feature_projection=UniSpeechFeatureProjection(self.config),
            position_conv=UniSpeechPositionalConvEmbedding(self.config),
            make_attention=PrunableAttention,
            make_attention_adapter=UniSpeechAttnAdapterLayer,
        )
        self.post_init()


class PrunableUniSpeechForCTC(PrunableHeadMixin, UniSpeechForCTC):
    """A `UniSpeechForCTC` of any shape."""

    config_class = PrunableUniSpeechConfig
    stock_class = UniSpeechForCTC
    base_class = PrunableUniSpeechModel


class PrunableUniSpeechForSequenceClassification(PrunableHeadMixin, UniSpeechForSequenceClassification):
    """A `UniSpeechForSequenceClassification` of any shape."""

    config_class = PrunableUniSpeechConfig
    stock_class = UniSpeechForSequenceClassification
    base_class = PrunableUniSpeechModel
