"""Smaller, faster WavLM, HuBERT and wav2vec 2.0, native to Hugging Face. Importing it registers the Auto classes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .modeling.auto import prunable_class, register_auto_classes
from .modeling.data2vec_audio import (
    PrunableData2VecAudioConfig,
    PrunableData2VecAudioForAudioFrameClassification,
    PrunableData2VecAudioForCTC,
    PrunableData2VecAudioForSequenceClassification,
    PrunableData2VecAudioForXVector,
    PrunableData2VecAudioModel,
)
from .modeling.hubert import (
    PrunableHubertConfig,
    PrunableHubertForCTC,
    PrunableHubertForSequenceClassification,
    PrunableHubertModel,
)
from .modeling.loading import load_prunable
from .modeling.shape import AttentionShape, LayerShape, PrunedShape
from .modeling.size import Measure
from .modeling.unispeech import (
    PrunableUniSpeechConfig,
    PrunableUniSpeechForCTC,
    PrunableUniSpeechForSequenceClassification,
    PrunableUniSpeechModel,
)
from .modeling.unispeech_sat import (
    PrunableUniSpeechSatConfig,
    PrunableUniSpeechSatForAudioFrameClassification,
    PrunableUniSpeechSatForCTC,
    PrunableUniSpeechSatForSequenceClassification,
    PrunableUniSpeechSatForXVector,
    PrunableUniSpeechSatModel,
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
from .one_shot.compaction import compact
from .one_shot.config import OneShotConfig
from .one_shot.head_rotation import rotate_heads_
from .one_shot.layerwise import refit_
from .one_shot.one_shot_prune import one_shot_prune
from .pruning.decisions import deterministic_sparsity, sparsity_ceiling
from .pruning.expected_size import expected_sparsity
from .truncation.truncated_model import truncate


if TYPE_CHECKING:
    from .export import OnnxExport, OnnxModel, export_onnx
    from .reporting.layer_pictures import convexity_curves, draw_layer_profiles
    from .truncation.convexity import GraphConvexity, graph_convexity
    from .truncation.convexity_config import ConvexityConfig
    from .truncation.layer_choice import LayerChoice, choose_layer
    from .truncation.layer_profile import LayerProfile, layer_convexity, profile_features

# Names that are imported when they are asked for: loading a model needs no datasets, scikit-learn, matplotlib and
# onnxruntime.
_MODULES = {
    "ConvexityConfig": "truncation.convexity_config",
    "GraphConvexity": "truncation.convexity",
    "LayerChoice": "truncation.layer_choice",
    "LayerProfile": "truncation.layer_profile",
    "OnnxExport": "export",
    "OnnxModel": "export",
    "choose_layer": "truncation.layer_choice",
    "convexity_curves": "reporting.layer_pictures",
    "draw_layer_profiles": "reporting.layer_pictures",
    "export_onnx": "export",
    "graph_convexity": "truncation.convexity",
    "layer_convexity": "truncation.layer_profile",
    "profile_features": "truncation.layer_profile",
}

__version__ = "0.1.0"

__all__ = [
    "AttentionShape",
    "ConvexityConfig",
    "GraphConvexity",
    "LayerChoice",
    "LayerProfile",
    "LayerShape",
    "Measure",
    "OneShotConfig",
    "OnnxExport",
    "OnnxModel",
    "PrunableData2VecAudioConfig",
    "PrunableData2VecAudioForAudioFrameClassification",
    "PrunableData2VecAudioForCTC",
    "PrunableData2VecAudioForSequenceClassification",
    "PrunableData2VecAudioForXVector",
    "PrunableData2VecAudioModel",
    "PrunableHubertConfig",
    "PrunableHubertForCTC",
    "PrunableHubertForSequenceClassification",
    "PrunableHubertModel",
    "PrunableUniSpeechConfig",
    "PrunableUniSpeechForCTC",
    "PrunableUniSpeechForSequenceClassification",
    "PrunableUniSpeechModel",
    "PrunableUniSpeechSatConfig",
    "PrunableUniSpeechSatForAudioFrameClassification",
    "PrunableUniSpeechSatForCTC",
    "PrunableUniSpeechSatForSequenceClassification",
    "PrunableUniSpeechSatForXVector",
    "PrunableUniSpeechSatModel",
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
    "one_shot_prune",
    "profile_features",
    "prunable_class",
    "refit_",
    "rotate_heads_",
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
