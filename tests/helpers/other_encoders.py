"""Tiny encoders of families without prunable classes, with their feature extractors."""

import numpy as np
import transformers
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .tiny_models import randomize_


_SIZES = {"hidden_size": 24, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 40}
_CONVOLUTIONS = {
    "conv_dim": (12, 16, 20),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
_WHISPER = {
    "d_model": 24,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "vocab_size": 60,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "max_source_positions": 100,
    "use_weighted_layer_sum": True,
    "classifier_proj_size": 18,
}
# Name to class, configuration and feature extractor. Whisper hears two seconds here.
_WAVEFORMS = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
_MELS = transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=2)
_FILTERBANK = transformers.SeamlessM4TFeatureExtractor()
_BERT = transformers.Wav2Vec2BertConfig(**_SIZES, use_weighted_layer_sum=True, num_labels=5, classifier_proj_size=18)
_ENCODERS = {
    "whisper": (WhisperEncoder, transformers.WhisperConfig(**_WHISPER), _MELS),
    "whisper-classification": (
        transformers.WhisperForAudioClassification,
        transformers.WhisperConfig(**_WHISPER, num_labels=5),
        _MELS,
    ),
    "wav2vec2-conformer": (
        transformers.Wav2Vec2ConformerModel,
        transformers.Wav2Vec2ConformerConfig(**_SIZES, **_CONVOLUTIONS),
        _WAVEFORMS,
    ),
    "wav2vec2-conformer-ctc": (
        transformers.Wav2Vec2ConformerForCTC,
        transformers.Wav2Vec2ConformerConfig(
            **_SIZES, **_CONVOLUTIONS, vocab_size=11, position_embeddings_type="rotary"
        ),
        _WAVEFORMS,
    ),
    "wav2vec2-bert": (
        transformers.Wav2Vec2BertModel,
        transformers.Wav2Vec2BertConfig(**_SIZES, add_adapter=True, num_adapter_layers=1, output_hidden_size=24),
        _FILTERBANK,
    ),
    "wav2vec2-bert-classification": (transformers.Wav2Vec2BertForSequenceClassification, _BERT, _FILTERBANK),
    # As many convolutions as layers, all alike.
    "sew": (
        transformers.SEWModel,
        transformers.SEWConfig(**_SIZES, **_CONVOLUTIONS, feat_extract_norm="layer"),
        _WAVEFORMS,
    ),
    "sew-d": (
        transformers.SEWDModel,
        transformers.SEWDConfig(**_SIZES, **_CONVOLUTIONS, pos_att_type=("p2c", "c2p")),
        _WAVEFORMS,
    ),
}
OTHER_ENCODERS = tuple(_ENCODERS)


def other_encoder(name):
    """A model of three layers in evaluation mode with random values everywhere, and its feature extractor."""
    model_class, config, feature_extractor = _ENCODERS[name]
    return randomize_(model_class(config)).eval(), feature_extractor


def whisper_with_decoder():
    """A Whisper model with encoder and decoder."""
    return randomize_(transformers.WhisperModel(transformers.WhisperConfig(**_WHISPER))).eval()


def waveform(num_samples=9_000, seed=0):
    """A clip of noise."""
    return 0.1 * np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32)


def inputs_of(feature_extractor, clip):
    """The inputs of a model for one clip."""
    return feature_extractor(clip, sampling_rate=16_000, return_tensors="pt")
