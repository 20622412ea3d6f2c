"""Pooled hidden states equal the truncated model's output in any batch; unreadable clips and the cache."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Audio, Dataset
from transformers import AutoModel, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from hf_prunable.data.audio import audio_dataset
from hf_prunable.data.speech_commands import load_speech_commands
from hf_prunable.modeling.size import count_frames
from hf_prunable.truncation import pooled_features as module
from hf_prunable.truncation.pooled_features import pool_clips, pooled_features
from tests.helpers.speech_files import RATE, wav_bytes, write, write_truncated_flac
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, tiny_prunable, tiny_stock


LENGTHS = (800, 613, 800, 1200, 45, 1200, 613, 800)


@pytest.fixture(scope="module")
def waveforms():
    generator = np.random.default_rng(0)
    return [generator.standard_normal(length).astype(np.float32) + 0.3 for length in LENGTHS]


def extractor(norm_order="post", **settings):
    """The feature extractor that goes with the norm order in published models."""
    return Wav2Vec2FeatureExtractor(
        **({"return_attention_mask": norm_order == "pre", "do_normalize": True} | settings)
    )


def pool(model, feature_extractor, waveforms, **options):
    features, left_out = pool_clips(
        model, feature_extractor, [len(waveform) for waveform in waveforms], waveforms.__getitem__, **options
    )
    assert left_out == {} and features.clips.tolist() == list(range(len(waveforms)))
    return features.layers


def truncated_outputs(model, num_layers, inputs):
    """The output of the model with its first layers only, averaged over frames."""
    model = copy.deepcopy(model)
    model.encoder.layers = model.encoder.layers[:num_layers]
    with torch.no_grad():
        return model(**inputs).last_hidden_state.mean(1)[0].numpy()


@pytest.mark.parametrize("make", [tiny_stock, tiny_prunable])
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_is_what_the_truncated_model_outputs(family, norm_order, make, waveforms):
    model = make(family, norm_order)
    feature_extractor = extractor(norm_order)
    layers = pool(model, feature_extractor, waveforms)
    assert layers.shape == (4, len(LENGTHS), 24) and layers.dtype == np.float32
    for number in (0, 3, 4):
        inputs = feature_extractor(waveforms[number], sampling_rate=RATE, return_tensors="pt")
        for layer in range(4):
            expected = truncated_outputs(model, layer, inputs)
            np.testing.assert_allclose(layers[layer, number], expected, atol=1e-5)


@pytest.mark.parametrize("feature_norm", ["group", "layer"])
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_batch_does_not_matter(family, norm_order, feature_norm, waveforms):
    model = tiny_stock(family, norm_order, feature_norm=feature_norm)
    feature_extractor = extractor("pre" if feature_norm == "layer" else "post")
    alone = pool(model, feature_extractor, waveforms, batch_size=1)
    sizes = []
    model.register_forward_pre_hook(
        lambda module, arguments, inputs: sizes.append(tuple(inputs["input_values"].shape)), with_kwargs=True
    )
    np.testing.assert_allclose(pool(model, feature_extractor, waveforms, batch_size=32), alone, atol=1e-5)
    assert sizes == ([(8, 1200)] if feature_norm == "layer" else [(1, 45), (2, 613), (3, 800), (2, 1200)])


@pytest.mark.parametrize(
    "settings, config",
    [
        ({"return_attention_mask": False}, {"feature_norm": "layer"}),
        ({"return_attention_mask": True}, {"feature_norm": "layer", "conv_pos_batch_norm": True}),
        ({"return_attention_mask": True}, {"feature_norm": "group"}),
    ],
)
def test_clips_are_not_padded_where_that_would_change_them(settings, config, waveforms):
    model, feature_extractor = tiny_stock("hubert", "pre", **config), extractor(**settings)
    alone = pool(model, feature_extractor, waveforms, batch_size=1)
    np.testing.assert_allclose(pool(model, feature_extractor, waveforms, batch_size=32), alone, atol=1e-5)


@pytest.mark.parametrize("do_normalize", [False, True])
def test_do_normalize_is_obeyed(do_normalize, waveforms):
    model, feature_extractor = tiny_stock("wavlm", "pre"), extractor("pre", do_normalize=do_normalize)
    waveform = waveforms[0]
    if do_normalize:
        waveform = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
    expected = truncated_outputs(model, 3, {"input_values": torch.from_numpy(waveform)[None]})
    np.testing.assert_allclose(pool(model, feature_extractor, waveforms)[3, 0], expected, atol=1e-5)


def test_a_head_does_not_matter_and_every_mode_is_as_before(waveforms):
    model = tiny_stock("wav2vec2", head="classification").train()
    model.wav2vec2.encoder.layers[1].eval()
    modes = [module.training for module in model.modules()]
    layers = pool(model, extractor(), waveforms)
    assert [module.training for module in model.modules()] == modes
    np.testing.assert_array_equal(layers, pool(model.wav2vec2, extractor(), waveforms))


def test_frames_are_counted_as_the_models_count_them():
    model = tiny_stock("wavlm", add_adapter=False)
    for samples in (30, 45, 613, 800):
        assert count_frames(model.config, samples) == model._get_feat_extract_output_lengths(torch.tensor(samples))


@pytest.fixture
def clips(tmp_path, waveforms):
    for number, waveform in enumerate(waveforms):
        write(tmp_path / "clips" / f"{number}.flac", 0.1 * waveform)
    return audio_dataset(sorted((tmp_path / "clips").iterdir()))


def test_clips_that_cannot_be_used_are_left_out_and_counted(clips, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(module.logger, "warning", warnings.append)
    bad = tmp_path / "bad"
    bad.mkdir()
    write_truncated_flac(bad / "cut.flac")
    write(bad / "short.wav", np.zeros(20))
    (bad / "empty.wav").write_bytes(b"")
    (bad / "text.wav").write_text("no audio")
    mixed = audio_dataset(
        [bad / "cut.flac", clips[0]["audio"]["path"], bad / "short.wav", bad / "empty.wav"]
        + [clips[3]["audio"]["path"], bad / "text.wav"]
    )
    model = tiny_stock("wavlm")
    features = pooled_features(model, extractor(), mixed)
    assert features.clips.tolist() == [1, 4]
    np.testing.assert_allclose(
        features.layers, pooled_features(model, extractor(), clips).layers[:, [0, 3]], atol=1e-6
    )
    assert len(warnings) == 1 and warnings[0].startswith("4 of 6 clips cannot be used")
    for part in ("2 unreadable", "cut.flac", "1 too short for one frame (", "short.wav", "1 empty", "the other 2"):
        assert part in warnings[0]
    with pytest.raises(ValueError, match="No clip is left: 2 of 2"):
        pooled_features(model, extractor(), mixed.select([2, 3]))


def test_batches_below_one_are_refused(waveforms):
    with pytest.raises(ValueError, match="batch_size is 0; it must be 1 or more"):
        pool(tiny_stock("wavlm"), extractor(), waveforms, batch_size=0)


def test_the_feature_extractor_of_another_model_is_refused(waveforms):
    message = "WavLMModel takes 'input_values', and WhisperFeatureExtractor gives 'input_features'. Give the feature"
    with pytest.raises(ValueError, match=message):
        pool(tiny_stock("wavlm"), WhisperFeatureExtractor(), waveforms)


def test_cached_features_are_read(clips, tmp_path, monkeypatch):
    model, cache = tiny_stock("wavlm"), tmp_path / "new" / "cache"
    first = pooled_features(model, extractor(), clips, cache_dir=cache)
    assert len(os.listdir(cache)) == 1
    monkeypatch.setattr(module, "pool_clips", None)
    again = pooled_features(copy.deepcopy(model).train(), extractor(), clips, cache_dir=cache, batch_size=3)
    np.testing.assert_array_equal(again.layers, first.layers)
    np.testing.assert_array_equal(again.clips, first.clips)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match="damaged.*Delete this file"):
        pooled_features(model, extractor(), clips, cache_dir=cache)


def embedded(audio):
    return Dataset.from_dict({"audio": [audio]}).cast_column("audio", Audio(decode=False))


def test_other_weights_settings_and_clips_have_other_features(clips, tmp_path):
    model, cache = tiny_stock("wavlm"), tmp_path / "cache"
    pooled_features(model, extractor(), clips, cache_dir=cache)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.encoder.layers[2].final_layer_norm.bias[0] += 0.1
    path = clips[1]["audio"]["path"]
    content = {"path": path, "bytes": Path(path).read_bytes()}
    other = {"path": path, "bytes": wav_bytes(0.1 * np.ones(613))}
    for number, arguments in enumerate(
        [
            (changed, extractor(), clips),
            (model, extractor(do_normalize=False), clips),
            (model, extractor(), clips.select([1, 0, *range(2, 8)])),
            (model, extractor(), clips.select(range(7))),
            (model, extractor(), embedded(other)),
        ],
        start=2,
    ):
        pooled_features(*arguments, cache_dir=cache)
        assert len(os.listdir(cache)) == number
    # The content of the audio counts, not where it is stored.
    pooled_features(model, extractor(), clips.select([1]), cache_dir=cache)
    pooled_features(model, extractor(), embedded(content), cache_dir=cache)
    assert len(os.listdir(cache)) == number + 1


def test_a_real_model_on_recorded_speech(shared_models, shared_data):
    folder = shared_models / "wavlm-mini"
    model = AutoModel.from_pretrained(folder)
    feature_extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    clips = load_speech_commands(shared_data / "speech_commands", "test", words=["yes", "five"]).select(range(12))
    one, many = (pooled_features(model, feature_extractor, clips, batch_size=size) for size in (1, 32))
    assert one.layers.shape == (13, 12, 192)
    np.testing.assert_allclose(one.layers, many.layers, atol=1e-5)
