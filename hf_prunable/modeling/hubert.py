"""HuBERT: stock classes with prunable blocks."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import HubertConfig, HubertForCTC, HubertForSequenceClassification, HubertModel
from transformers.models.hubert.modeling_hubert import (
    HubertAttnAdapterLayer,
    HubertFeatureProjection,
    HubertPositionalConvEmbedding,
)

from .attention import PrunableAttention
from .configuration import PrunableConfigMixin
from .pretrained import PrunableHeadMixin, PrunableModelMixin


@strict
class PrunableHubertConfig(PrunableConfigMixin, HubertConfig):
    """A `HubertConfig` with a shape.

    Args:
        pruned_shape: Shape as `PrunedShape.to_dict` returns it; `None` for a dense model.
        gates: Arguments of `attach_gates` for a model with gates; `None` for one without.
        dense_num_hidden_layers: Number of layers of the original model, if the model is truncated.
    """

    model_type = "prunable_hubert"
    stock_config_class: ClassVar = HubertConfig
    auto_classes: ClassVar[dict[str, str]] = {
        "AutoModel": "PrunableHubertModel",
        "AutoModelForCTC": "PrunableHubertForCTC",
        "AutoModelForAudioClassification": "PrunableHubertForSequenceClassification",
    }

    pruned_shape: dict | None = None
    gates: dict | None = None
    dense_num_hidden_layers: int | None = None


class PrunableHubertModel(PrunableModelMixin, HubertModel):
    """A `HubertModel` of any shape."""

    config_class = PrunableHubertConfig
    stock_class = HubertModel

    def __init__(self, config: Any):
        # Not HubertModel's own constructor, which would build the dense encoder.
        super(HubertModel, self).__init__(self.config_class.from_stock(config))
        self._build_encoder(
            feature_projection=HubertFeatureProjection(self.config),
            position_conv=HubertPositionalConvEmbedding(self.config),
            make_attention=PrunableAttention,
            make_attention_adapter=HubertAttnAdapterLayer,
        )
        self.post_init()


class PrunableHubertForCTC(PrunableHeadMixin, HubertForCTC):
    """A `HubertForCTC` of any shape."""

    config_class = PrunableHubertConfig
    stock_class = HubertForCTC
    base_class = PrunableHubertModel


class PrunableHubertForSequenceClassification(PrunableHeadMixin, HubertForSequenceClassification):
    """A `HubertForSequenceClassification` of any shape."""

    config_class = PrunableHubertConfig
    stock_class = HubertForSequenceClassification
    base_class = PrunableHubertModel
