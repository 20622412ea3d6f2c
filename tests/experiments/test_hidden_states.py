"""Hidden states of many clips."""

import numpy as np
from transformers import Wav2Vec2FeatureExtractor

from experiments.hidden_states import last_hidden_states, pooled_hidden_states
from tests.helpers.tiny_models import tiny_stock


def test_hidden_states_do_not_depend_on_the_batch():
    model = tiny_stock("wavlm")
    feature_extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=False)
    generator = np.random.default_rng(0)
    waveforms = [generator.standard_normal(size).astype(np.float32) for size in (800, 1200, 800, 1200, 1200)]
    pooled = pooled_hidden_states(model, feature_extractor, waveforms)
    frames = last_hidden_states(model, feature_extractor, waveforms)
    assert pooled.shape == (5, 4, 24)
    start = 0
    for number, waveform in enumerate(waveforms):
        alone = last_hidden_states(model, feature_extractor, [waveform])
        np.testing.assert_allclose(frames[start : start + len(alone)], alone, atol=1e-5)
        np.testing.assert_allclose(pooled[number, -1], alone.mean(0), atol=1e-5)
        start += len(alone)
    assert start == len(frames)
