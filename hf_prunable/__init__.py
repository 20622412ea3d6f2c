"""Smaller, faster WavLM, HuBERT and wav2vec 2.0, native to Hugging Face. Importing it registers the Auto classes."""

from .compaction import compact
from .convexity import GraphConvexity, graph_convexity
from .decisions import deterministic_sparsity, sparsity_ceiling
from .layer_choice import LayerChoice, choose_layer
from .layer_pictures import convexity_curves, draw_layer_profiles
from .layer_profile import LayerProfile, layer_convexity, profile_features
from .modeling.auto import load_prunable, prunable_class, register_auto_classes
from .modeling.hubert import (
    PrunableHubertConfig,
    PrunableHubertForCTC,
    PrunableHubertForSequenceClassification,
    PrunableHubertModel,
)
from .modeling.wav2vec2 import (
    PrunableWav2Vec2Config,
    PrunableWav2Vec2ForAudioFrameClassification,
    PrunableWav2Vec2ForCTC,
    PrunableWav2Vec2ForSequenceClassification,
    PrunableWav2Vec2ForXVector,
    PrunableWav2Vec2Model,
)
from .modeling.wavlm import (
    PrunableWavLMConfig,
    PrunableWavLMForAudioFrameClassification,
    PrunableWavLMForCTC,
    PrunableWavLMForSequenceClassification,
    PrunableWavLMForXVector,
    PrunableWavLMModel,
)
from .shape import AttentionShape, LayerShape, PrunedShape
from .sparsity import expected_sparsity
from .target import Measure
from .truncation import truncate


__version__ = "0.1.0"

__all__ = [
    "AttentionShape",
    "GraphConvexity",
    "LayerChoice",
    "LayerProfile",
    "LayerShape",
    "Measure",
    "PrunableHubertConfig",
    "PrunableHubertForCTC",
    "PrunableHubertForSequenceClassification",
    "PrunableHubertModel",
    "PrunableWav2Vec2Config",
    "PrunableWav2Vec2ForAudioFrameClassification",
    "PrunableWav2Vec2ForCTC",
    "PrunableWav2Vec2ForSequenceClassification",
    "PrunableWav2Vec2ForXVector",
    "PrunableWav2Vec2Model",
    "PrunableWavLMConfig",
    "PrunableWavLMForAudioFrameClassification",
    "PrunableWavLMForCTC",
    "PrunableWavLMForSequenceClassification",
    "PrunableWavLMForXVector",
    "PrunableWavLMModel",
    "PrunedShape",
    "choose_layer",
    "compact",
    "convexity_curves",
    "deterministic_sparsity",
    "draw_layer_profiles",
    "expected_sparsity",
    "graph_convexity",
    "layer_convexity",
    "load_prunable",
    "profile_features",
    "prunable_class",
    "sparsity_ceiling",
    "truncate",
]

register_auto_classes()
