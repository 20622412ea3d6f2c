"""Smaller, faster WavLM, HuBERT and wav2vec 2.0, native to Hugging Face. Importing it registers the Auto classes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .compaction import compact
from .decisions import deterministic_sparsity, sparsity_ceiling
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


if TYPE_CHECKING:
    from .convexity import GraphConvexity, graph_convexity
    from .layer_choice import LayerChoice, choose_layer
    from .layer_pictures import convexity_curves, draw_layer_profiles
    from .layer_profile import LayerProfile, layer_convexity, profile_features

# Imported when asked for: who loads a model needs no datasets, scikit-learn and matplotlib.
_MODULES = {
    "GraphConvexity": "convexity",
    "LayerChoice": "layer_choice",
    "LayerProfile": "layer_profile",
    "choose_layer": "layer_choice",
    "convexity_curves": "layer_pictures",
    "draw_layer_profiles": "layer_pictures",
    "graph_convexity": "convexity",
    "layer_convexity": "layer_profile",
    "profile_features": "layer_profile",
}

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


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_auto_classes()
