"""Encoders of families without prunable classes: their layers are found, truncated and scored, or an error says why not."""

import json

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from hf_prunable import layer_convexity, truncate
from hf_prunable.data.audio import audio_dataset
from hf_prunable.truncation.clip_batches import TOO_LONG, TOO_SHORT
from hf_prunable.truncation.encoder_layers import layers_name, run_layers
from hf_prunable.truncation.pooled_features import pool_clips
from tests.helpers.other_encoders import OTHER_ENCODERS, inputs_of, other_encoder, waveform, whisper_with_decoder
from tests.helpers.speech_files import write
from tests.helpers.tiny_models import tiny_stock


@torch.no_grad()
def outputs_of(model, inputs):
    return model(**inputs, output_hidden_states=True)


@pytest.mark.parametrize("name", OTHER_ENCODERS)
def test_a_truncated_encoder_is_a_stock_checkpoint_with_the_same_first_layers(name, tmp_path):
    model, feature_extractor = other_encoder(name)
    inputs = inputs_of(feature_extractor, waveform())
    truncate(model, 2, inputs).save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == model.config.model_type and "dense_num_hidden_layers" not in config
    assert loaded.config.num_hidden_layers == 2 and model.config.num_hidden_layers == 3
    whole, kept = outputs_of(model, inputs), outputs_of(loaded, inputs)
    assert len(kept.hidden_states) == 3
    for expected, found in zip(whole.hidden_states[:2], kept.hidden_states, strict=False):
        assert torch.equal(expected, found)
    states = run_layers(model, layers_name(model), inputs)
    assert len(states.states) == 4
    assert torch.equal(states.states[2], run_layers(loaded, layers_name(loaded), inputs).states[2])
    if states.final_norm is not None:
        last = loaded.base_model(**inputs).last_hidden_state if "last_hidden_state" in kept else None
        expected = states.final_norm(states.states[2].clone())
        assert last is None or torch.allclose(last, expected, atol=1e-6)
    if hasattr(model, "layer_weights"):
        assert torch.equal(loaded.layer_weights, model.layer_weights[:3])


@pytest.mark.parametrize("name", ["whisper", "wav2vec2-conformer", "wav2vec2-bert-classification"])
def test_pooled_features_are_those_of_the_truncated_model_for_each_clip_alone(name):
    model, feature_extractor = other_encoder(name)
    clips = [waveform(length, seed) for seed, length in enumerate((9_000, 9_000, 7_000, 9_000))]
    features, left_out = pool_clips(model, feature_extractor, list(map(len, clips)), clips.__getitem__)
    assert not left_out and features.layers.shape == (4, 4, 24)
    for clip_idx, clip in enumerate(clips):
        inputs = inputs_of(feature_extractor, clip)
        for num_layers in (1, 2, 3):
            output = outputs_of(truncate(model, num_layers, inputs).base_model, inputs).last_hidden_state[0]
            if name == "whisper":
                # A frame of the encoder stands for 320 samples; the rest is padding to the length of the model.
                output = output[: -(-len(clip) // 320)]
            elif "bert" in name:
                # An odd number of frames is padded to an even one.
                output = output[: int(inputs["attention_mask"].sum())]
            np.testing.assert_allclose(features.layers[num_layers, clip_idx], output.mean(0), atol=1e-5)


def test_layers_of_whisper_are_scored_from_files(tmp_path):
    model, feature_extractor = other_encoder("whisper-classification")
    for number in range(30):
        write(tmp_path / f"{number:02}.wav", waveform(6_000 + 200 * (number % 2), number))
    dataset = audio_dataset(
        sorted(tmp_path.glob("*.wav")), word=["yes" if number % 3 else "no" for number in range(30)]
    )
    profile = layer_convexity(model, dataset, feature_extractor, n_neighbors=3, num_permutations=2)
    assert profile.num_layers == 3 and profile.num_clips == 30
    assert len(profile.labels["word"].convexity.values) == 4


@pytest.mark.parametrize(
    "name, length, cause",
    [
        ("whisper", 32_001, TOO_LONG),
        ("whisper", 0, TOO_SHORT),
        ("wav2vec2-conformer", 20, TOO_SHORT),
        ("sew", 40, TOO_SHORT),
        ("wav2vec2-bert", 559, TOO_SHORT),
    ],
)
def test_clips_that_the_model_does_not_take_are_left_out_by_cause(name, length, cause):
    model, feature_extractor = other_encoder(name)
    clips = [waveform(9_000), waveform(length)]
    features, left_out = pool_clips(model, feature_extractor, [9_000, max(length, 1)], clips.__getitem__)
    assert left_out == {cause: [1]} and features.clips.tolist() == [0]
    assert np.isfinite(features.layers).all()


@pytest.mark.parametrize(
    "name, length", [("whisper", 32_000), ("wav2vec2-conformer", 70), ("sew", 90), ("wav2vec2-bert", 560)]
)
def test_the_longest_and_the_shortest_clips_have_features(name, length):
    model, feature_extractor = other_encoder(name)
    features, left_out = pool_clips(model, feature_extractor, [length], lambda clip_idx: waveform(length))
    assert not left_out and np.isfinite(features.layers).all()


def test_what_cannot_be_truncated_is_refused():
    model, feature_extractor = other_encoder("whisper")
    inputs = inputs_of(feature_extractor, waveform())
    with pytest.raises(ValueError, match=r"layers of a WhisperEncoder compute is compared on a clip. Give its inputs"):
        truncate(model, 2)
    with pytest.raises(TypeError, match="`inputs` is a Tensor; give what the feature extractor returns"):
        truncate(model, 2, inputs["input_features"])
    with pytest.raises(ValueError, match="num_layers is 4; the model has 3 layers"):
        truncate(model, 4, inputs)
    with pytest.raises(ValueError, match=r"WhisperModel has a decoder.*`model.get_encoder\(\)`"):
        truncate(whisper_with_decoder(), 2, inputs)
    assert truncate(whisper_with_decoder().get_encoder(), 2, inputs).config.num_hidden_layers == 2
    codec = transformers.DacModel(transformers.DacConfig(encoder_hidden_size=4, downsampling_ratios=[2, 2]))
    with pytest.raises(ValueError, match="of type 'dac' has no `num_hidden_layers`. Give a model with one stack"):
        truncate(codec, 1, {})


class TwoStacks(transformers.Wav2Vec2BertModel):
    def __init__(self, config):
        super().__init__(config)
        self.others = nn.ModuleList([nn.Linear(2, 2) for _ in range(config.num_hidden_layers)])


class Backwards(transformers.Wav2Vec2BertModel):
    def __init__(self, config):
        super().__init__(config)
        encoder, layers = self.encoder, list(self.encoder.layers)
        encoder.forward = lambda states, **options: transformers.modeling_outputs.BaseModelOutput(
            last_hidden_state=layers[0](layers[1](states))
        )


class Looking(transformers.Wav2Vec2BertModel):
    """Its features depend on the number of layers."""

    def forward(self, input_features, **options):
        return super().forward(input_features * self.config.num_hidden_layers, **options)


@pytest.mark.parametrize(
    "kind, error, message",
    [
        (
            TwoStacks,
            ValueError,
            r"has 2 lists of modules as long as `num_hidden_layers` says \(encoder.layers, others\)",
        ),
        (Backwards, ValueError, "does not run its 2 layers one after the other"),
        (Looking, RuntimeError, "Hidden state 0 of the truncated Looking is not that of the whole model"),
    ],
)
def test_other_structures_are_refused(kind, error, message):
    _, feature_extractor = other_encoder("wav2vec2-bert")
    config = transformers.Wav2Vec2BertConfig(
        hidden_size=24, num_attention_heads=4, num_hidden_layers=2, intermediate_size=40
    )
    with pytest.raises(error, match=message):
        truncate(kind(config), 1, inputs_of(feature_extractor, waveform()))


def test_inputs_prove_the_prefix_of_every_family():
    model = tiny_stock("wavlm")
    inputs = {"input_values": torch.from_numpy(waveform(800))[None]}
    small = truncate(model, 2, inputs)
    assert torch.equal(outputs_of(small, inputs).hidden_states[2], outputs_of(model, inputs).hidden_states[2])
