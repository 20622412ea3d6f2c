"""The prunable classes of each family, and their registration with transformers' Auto classes."""

from __future__ import annotations

from types import ModuleType

import transformers
from transformers import AutoConfig, AutoFeatureExtractor, PreTrainedConfig, Wav2Vec2FeatureExtractor

from . import data2vec_audio, hubert, unispeech, unispeech_sat, wav2vec2, wavlm
from .configuration import PrunableConfigMixin
from .pretrained import PrunableModelMixin


FAMILIES: dict[type[PrunableConfigMixin], ModuleType] = {
    wavlm.PrunableWavLMConfig: wavlm,
    hubert.PrunableHubertConfig: hubert,
    wav2vec2.PrunableWav2Vec2Config: wav2vec2,
    unispeech.PrunableUniSpeechConfig: unispeech,
    unispeech_sat.PrunableUniSpeechSatConfig: unispeech_sat,
    data2vec_audio.PrunableData2VecAudioConfig: data2vec_audio,
}


def register_auto_classes() -> None:
    """Registers the prunable models with `AutoConfig`, `AutoModel`, its heads and `AutoFeatureExtractor`."""
    for config_class, module in FAMILIES.items():
        AutoConfig.register(config_class.model_type, config_class)
        # No AutoProcessor: it would raise for every checkpoint without a tokenizer.
        AutoFeatureExtractor.register(config_class, Wav2Vec2FeatureExtractor)
        for auto_class, name in config_class.auto_classes.items():
            getattr(transformers, auto_class).register(config_class, getattr(module, name))


def prunable_class(config: PreTrainedConfig, auto_class: str = "AutoModel") -> type[PrunableModelMixin]:
    """Returns the prunable class for a stock or prunable configuration.

    Args:
        config: Configuration of the checkpoint.
        auto_class: Name of the Auto class that stands for the kind of head, such as "AutoModelForCTC".

    Raises:
        ValueError: If the family is not supported, or has no such head.
    """
    for config_class, module in FAMILIES.items():
        if config.model_type in (config_class.model_type, config_class.stock_config_class.model_type):
            if auto_class not in config_class.auto_classes:
                raise ValueError(
                    f"{config.model_type} has no {auto_class}; it has {', '.join(config_class.auto_classes)}."
                )
            return getattr(module, config_class.auto_classes[auto_class])
    supported = ", ".join(repr(config_class.stock_config_class.model_type) for config_class in FAMILIES)
    raise ValueError(
        f"Model type {config.model_type!r} cannot be pruned here. Supported are {supported} and pruned models of these "
        "families. `truncate` and `layer_convexity`, in Python, take other encoders too."
    )
