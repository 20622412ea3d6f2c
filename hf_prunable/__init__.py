"""Smaller, faster WavLM, HuBERT and wav2vec 2.0, native to Hugging Face. Importing it registers the Auto classes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .runtime.startup import needs_models


if TYPE_CHECKING:
    from .export import OnnxExport, OnnxModel, export_onnx
    from .modeling.auto import prunable_class
    from .modeling.hubert import (
        PrunableHubertConfig,
        PrunableHubertForCTC,
        PrunableHubertForSequenceClassification,
        PrunableHubertModel,
    )
    from .modeling.loading import load_prunable
    from .modeling.shape import AttentionShape, LayerShape, PrunedShape
    from .modeling.size import Measure
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
    from .pruning.compaction import compact
    from .pruning.decisions import deterministic_sparsity, sparsity_ceiling
    from .pruning.expected_size import expected_sparsity
    from .reporting.layer_pictures import convexity_curves, draw_layer_profiles
    from .truncation.convexity import GraphConvexity, graph_convexity
    from .truncation.convexity_config import ConvexityConfig
    from .truncation.layer_choice import LayerChoice, choose_layer
    from .truncation.layer_profile import LayerProfile, layer_convexity, profile_features
    from .truncation.truncated_model import truncate

# Public names by their module, which is imported when a name is asked for.
_NAMES = {
    "export": (
        "OnnxExport",
        "OnnxModel",
        "export_onnx",
    ),
    "modeling.auto": ("prunable_class",),
    "modeling.hubert": (
        "PrunableHubertConfig",
        "PrunableHubertForCTC",
        "PrunableHubertForSequenceClassification",
        "PrunableHubertModel",
    ),
    "modeling.loading": ("load_prunable",),
    "modeling.shape": (
        "AttentionShape",
        "LayerShape",
        "PrunedShape",
    ),
    "modeling.size": ("Measure",),
    "modeling.wav2vec2": (
        "PrunableWav2Vec2Config",
        "PrunableWav2Vec2ForAudioFrameClassification",
        "PrunableWav2Vec2ForCTC",
        "PrunableWav2Vec2ForSequenceClassification",
        "PrunableWav2Vec2ForXVector",
        "PrunableWav2Vec2Model",
    ),
    "modeling.wavlm": (
        "PrunableWavLMConfig",
        "PrunableWavLMForAudioFrameClassification",
        "PrunableWavLMForCTC",
        "PrunableWavLMForSequenceClassification",
        "PrunableWavLMForXVector",
        "PrunableWavLMModel",
    ),
    "pruning.compaction": ("compact",),
    "pruning.decisions": (
        "deterministic_sparsity",
        "sparsity_ceiling",
    ),
    "pruning.expected_size": ("expected_sparsity",),
    "reporting.layer_pictures": (
        "convexity_curves",
        "draw_layer_profiles",
    ),
    "truncation.convexity": (
        "GraphConvexity",
        "graph_convexity",
    ),
    "truncation.convexity_config": ("ConvexityConfig",),
    "truncation.layer_choice": (
        "LayerChoice",
        "choose_layer",
    ),
    "truncation.layer_profile": (
        "LayerProfile",
        "layer_convexity",
        "profile_features",
    ),
    "truncation.truncated_model": ("truncate",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__version__ = "0.1.0"

__all__ = [
    "AttentionShape",
    "ConvexityConfig",
    "GraphConvexity",
    "LayerChoice",
    "LayerProfile",
    "LayerShape",
    "Measure",
    "OnnxExport",
    "OnnxModel",
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
    "export_onnx",
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


if needs_models():
    import_module(".modeling.auto", __name__).register_auto_classes()
