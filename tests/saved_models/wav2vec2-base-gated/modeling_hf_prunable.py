from hf_prunable import (  # noqa: F401
    PrunableWav2Vec2Config,
    PrunableWav2Vec2ForAudioFrameClassification,
    PrunableWav2Vec2ForCTC,
    PrunableWav2Vec2ForSequenceClassification,
    PrunableWav2Vec2ForXVector,
    PrunableWav2Vec2Model,
)
