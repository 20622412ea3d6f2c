"""wav2vec 2.0: stock classes with prunable blocks."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2ForAudioFrameClassification,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2ForXVector,
    Wav2Vec2Model,
)
from transformers.models.wav2vec2.modeling_wav2vec2 import (
    Wav2Vec2Adapter,
    Wav2Vec2AttnAdapterLayer,
    Wav2Vec2FeatureProjection,
    Wav2Vec2PositionalConvEmbedding,
)

from .attention import PrunableAttention
from .configuration import PrunableConfigMixin
from .pretrained import PrunableHeadMixin, PrunableModelMixin


@strict
class PrunableWav2Vec2Config(PrunableConfigMixin, Wav2Vec2Config):
    """A `Wav2Vec2Config` with a shape.

    Args:
        pruned_shape: Shape as `PrunedShape.to_dict` returns it; `None` for a dense model.
        gates: Arguments of `attach_gates` for a model with gates; `None` for one without.
        dense_num_hidden_layers: Number of layers of the original model, if the model is truncated.
    """

    model_type = "prunable_wav2vec2"
    stock_config_class: ClassVar = Wav2Vec2Config
    auto_classes: ClassVar[dict[str, str]] = {
        "AutoModel": "PrunableWav2Vec2Model",
        "AutoModelForCTC": "PrunableWav2Vec2ForCTC",
        "AutoModelForAudioClassification": "PrunableWav2Vec2ForSequenceClassification",
        "AutoModelForAudioFrameClassification": "PrunableWav2Vec2ForAudioFrameClassification",
        "AutoModelForAudioXVector": "PrunableWav2Vec2ForXVector",
    }

    pruned_shape: dict | None = None
    gates: dict | None = None
    dense_num_hidden_layers: int | None = None


class PrunableWav2Vec2Model(PrunableModelMixin, Wav2Vec2Model):
    """A `Wav2Vec2Model` of any shape."""

    config_class = PrunableWav2Vec2Config
    stock_class = Wav2Vec2Model

    def __init__(self, config: Any):
        # Not Wav2Vec2Model's own constructor, which would build the dense encoder.
        super(Wav2Vec2Model, self).__init__(self.config_class.from_stock(config))
        self._build_encoder(
            feature_projection=Wav2Vec2FeatureProjection(self.config),
            position_conv=Wav2Vec2PositionalConvEmbedding(self.config),
            make_attention=PrunableAttention,
            make_attention_adapter=Wav2Vec2AttnAdapterLayer,
        )
        self.adapter = Wav2Vec2Adapter(self.config) if self.config.add_adapter else None
        self.post_init()


class PrunableWav2Vec2ForCTC(PrunableHeadMixin, Wav2Vec2ForCTC):
    """A `Wav2Vec2ForCTC` of any shape."""

    config_class = PrunableWav2Vec2Config
    stock_class = Wav2Vec2ForCTC
    base_class = PrunableWav2Vec2Model


class PrunableWav2Vec2ForSequenceClassification(PrunableHeadMixin, Wav2Vec2ForSequenceClassification):
    """A `Wav2Vec2ForSequenceClassification` of any shape."""

    config_class = PrunableWav2Vec2Config
    stock_class = Wav2Vec2ForSequenceClassification
    base_class = PrunableWav2Vec2Model


class PrunableWav2Vec2ForAudioFrameClassification(PrunableHeadMixin, Wav2Vec2ForAudioFrameClassification):
    """A `Wav2Vec2ForAudioFrameClassification` of any shape."""

    config_class = PrunableWav2Vec2Config
    stock_class = Wav2Vec2ForAudioFrameClassification
    base_class = PrunableWav2Vec2Model


class PrunableWav2Vec2ForXVector(PrunableHeadMixin, Wav2Vec2ForXVector):
    """A `Wav2Vec2ForXVector` of any shape."""

    config_class = PrunableWav2Vec2Config
    stock_class = Wav2Vec2ForXVector
    base_class = PrunableWav2Vec2Model
