"""UniSpeech, UniSpeech-SAT and data2vec-audio keep the promises that the other families keep."""

import copy

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel, AutoModelForCTC, Wav2Vec2FeatureExtractor

import hf_prunable
from hf_prunable import PrunedShape, compact, load_prunable, one_shot_prune, truncate
from hf_prunable.modeling.size import SAMPLING_RATE, UnitCounts, count_macs, count_parameters
from hf_prunable.modeling.units import DEFAULT_UNITS
from hf_prunable.truncation.pooled_features import pool_clips
from tests.helpers.gated_models import gated
from tests.helpers.one_shot_models import FAST, make_clips
from tests.helpers.tiny_models import (
    HEADS,
    MORE_FAMILIES,
    PRUNABLE_CLASSES,
    PRUNABLE_CONFIGS,
    pruned_shapes,
    randomize_,
    tiny_config,
    tiny_inputs,
    tiny_labels,
    tiny_prunable,
    tiny_stock,
)
from tests.truncation.test_truncated_model import LARGE


KINDS = [(family, order) for family in MORE_FAMILIES for order in ("post", "pre")][:-1]
EVERY_KIND = pytest.mark.parametrize(("family", "norm_order"), KINDS)
# Flags of published configurations that differ from the defaults of their class.
PUBLISHED = {
    "microsoft/unispeech-large-1500h-cv": ("unispeech", {**LARGE, "conv_bias": True}),
    "microsoft/unispeech-sat-base-plus": ("unispeech_sat", {"mask_time_prob": 0.05}),
    "microsoft/unispeech-sat-large": ("unispeech_sat", LARGE),
    # The entries of wav2vec 2.0 that its config.json has beside the fields of its class.
    "facebook/data2vec-audio-base": (
        "data2vec_audio",
        {"feat_extract_norm": "layer", "do_stable_layer_norm": False, "feat_proj_dropout": 0.1},
    ),
}


def hidden_states(model, inputs, **options):
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True, **options)


def assert_same(output, expected, tolerance):
    assert len(output.hidden_states) == len(expected.hidden_states)
    for one, other in zip(output.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=0)
    for name in ("last_hidden_state", "extract_features", "logits", "loss"):
        if name in expected:
            torch.testing.assert_close(output[name], expected[name], atol=tolerance, rtol=0)


@EVERY_KIND
def test_a_dense_model_is_the_stock_model(family, norm_order, tmp_path):
    for head in HEADS[family]:
        overrides = {} if head == "base" else {"num_labels": 5}
        stock = tiny_stock(family, norm_order, head, **overrides)
        stock.save_pretrained(tmp_path / head)
        model, info = PRUNABLE_CLASSES[family][head].from_pretrained(tmp_path / head, output_loading_info=True)
        assert not any(info.values()), info
        for padded in (True, False):
            inputs = tiny_inputs(padded=padded)
            inputs = inputs if padded else {"input_values": inputs["input_values"]}
            labels = {} if head == "base" else {"labels": tiny_labels(stock, head, inputs)}
            assert_same(hidden_states(model, inputs, **labels), hidden_states(stock, inputs, **labels), 1e-5)
        assert type(model.to_stock()) is type(stock)


@EVERY_KIND
def test_training_is_that_of_the_stock_model(family, norm_order, tmp_path):
    stock = tiny_stock(family, norm_order, "ctc", layerdrop=0.4, attention_dropout=0.2, hidden_dropout=0.1)
    stock.save_pretrained(tmp_path)
    model = load_prunable(tmp_path, "AutoModelForCTC")
    inputs, losses = tiny_inputs(), []
    for each in (stock, model):
        torch.manual_seed(0)
        # SpecAugment draws from it.
        np.random.seed(0)
        loss = each.train()(**inputs, labels=tiny_labels(stock, "ctc", inputs)).loss
        loss.backward()
        losses.append(loss)
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)
    name = "encoder.layers.0.attention.q_proj.weight"
    gradients = [each.base_model.get_parameter(name).grad for each in (stock, model)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@EVERY_KIND
def test_a_compacted_model_equals_the_one_with_gates(family, norm_order, tmp_path):
    model = gated(tiny_prunable(family, norm_order, "ctc"), DEFAULT_UNITS)
    randomize_(model, seed=3)
    inputs = tiny_inputs()
    small = compact(model)
    assert small.num_parameters() < 0.9 * model.num_parameters()
    assert_same(hidden_states(small, inputs), hidden_states(model, inputs), 1e-5)
    small.save_pretrained(tmp_path)
    loaded = AutoModelForCTC.from_pretrained(tmp_path)
    assert type(loaded) is type(small) and loaded.config.shape == small.config.shape
    assert_same(hidden_states(loaded, inputs), hidden_states(small, inputs), 0)
    assert type(AutoModel.from_pretrained(tmp_path)) is PRUNABLE_CLASSES[family]["base"]


@EVERY_KIND
@given(data=st.data())
def test_counted_sizes_are_measured_ones(family, norm_order, data):
    shape = data.draw(pruned_shapes(tiny_config(family)))
    masks = data.draw(st.sampled_from([{}, {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}]))
    config = tiny_config(family, norm_order, prunable=True, pruned_shape=shape.to_dict(), **masks)
    with torch.device("meta"):
        model = PRUNABLE_CLASSES[family]["base"](config)
    assert count_parameters(config, UnitCounts.of(shape)) == model.num_parameters()
    assert config.dense_num_parameters == count_parameters(config, UnitCounts.of(PrunedShape.dense(config)))


@EVERY_KIND
def test_counted_macs_are_measured_ones(family, norm_order):
    model = tiny_prunable(family, norm_order, attn_implementation="eager")
    clip = {"input_values": tiny_inputs(1, 1600, padded=False)["input_values"]}
    with FlopCounterMode(display=False) as meter:
        hidden_states(model, clip)
    counts = UnitCounts.of(model.config.shape)
    assert 2 * count_macs(model.config, counts, 1600 / SAMPLING_RATE) == meter.get_total_flops()


@EVERY_KIND
def test_one_shot_pruning_truncation_and_inference(family, norm_order, tmp_path):
    model, inputs = tiny_prunable(family, norm_order), {"input_values": make_clips(4, seed=7)}
    small = one_shot_prune(model, make_clips(), target_sparsity=0.2, config=FAST)
    dense_size = model.config.dense_num_parameters
    assert abs(1 - small.num_parameters() / dense_size - 0.2) < 0.02
    expected = hidden_states(model, inputs).last_hidden_state
    cosine = torch.nn.functional.cosine_similarity(hidden_states(small, inputs).last_hidden_state, expected, dim=-1)
    assert cosine.mean() > 0.9
    short = truncate(model, 2)
    if model.config.do_stable_layer_norm:
        assert short.config.num_hidden_layers == 2
    else:
        states = hidden_states(model, inputs).hidden_states[2]
        torch.testing.assert_close(hidden_states(short, inputs).last_hidden_state, states, atol=1e-5, rtol=0)
    short.save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is type(model).stock_class
    before = hidden_states(small, inputs)
    assert_same(hidden_states(copy.deepcopy(small).prepare_for_inference_(), inputs), before, 2e-5)


@EVERY_KIND
def test_layers_of_stock_models_are_pooled(family, norm_order):
    stock, feature_extractor = tiny_stock(family, norm_order), Wav2Vec2FeatureExtractor(return_attention_mask=True)
    clips = list(0.1 * np.random.default_rng(0).standard_normal((5, 900)).astype(np.float32))
    lengths = [900, 700, 900, 800, 600]
    features, left_out = pool_clips(stock, feature_extractor, lengths, lambda index: clips[index][: lengths[index]])
    assert features.layers.shape == (4, 5, 24) and not left_out
    alone, _ = pool_clips(stock, feature_extractor, [600], lambda index: clips[4][:600])
    np.testing.assert_allclose(features.layers[:, 4:], alone.layers, atol=1e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations(name, tmp_path):
    family, flags = PUBLISHED[name]
    stock_class = PRUNABLE_CONFIGS[family].stock_config_class
    stock = stock_class(**flags)
    stock.save_pretrained(tmp_path)
    config = PRUNABLE_CONFIGS[family].from_pretrained(tmp_path)
    model_class = PRUNABLE_CLASSES[family]["base"]
    with torch.device("meta"):
        dense, prunable = model_class.stock_class(AutoConfig.from_pretrained(tmp_path)), model_class(config)
    assert prunable.num_parameters() == dense.num_parameters() == config.dense_num_parameters


def test_every_class_is_exported():
    for family in MORE_FAMILIES:
        for model_class in PRUNABLE_CLASSES[family].values():
            assert model_class.__name__ in hf_prunable.__all__
            assert getattr(transformers, model_class.stock_class.__name__) is model_class.stock_class
