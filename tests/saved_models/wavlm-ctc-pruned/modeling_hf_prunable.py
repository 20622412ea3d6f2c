from hf_prunable import (  # noqa: F401
    PrunableWavLMConfig,
    PrunableWavLMForAudioFrameClassification,
    PrunableWavLMForCTC,
    PrunableWavLMForSequenceClassification,
    PrunableWavLMForXVector,
    PrunableWavLMModel,
)
