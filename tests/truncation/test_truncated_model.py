"""Truncation keeps the first hidden states unchanged; a stock model stays stock and loads without this package."""

import json

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable import load_prunable, truncate
from hf_prunable.modeling.size import UnitCounts, count_parameters
from hf_prunable.truncation.truncated_model import truncated_config
from tests.helpers.fresh_processes import AUTO_CLASSES, VARIANTS, Checkpoints, FreshProcesses, ragged
from tests.helpers.tiny_models import (
    FAMILIES,
    HEADS,
    NORM_ORDERS,
    STOCK_CLASSES,
    STOCK_CONFIGS,
    pruned_shapes,
    tiny_config,
    tiny_inputs,
    tiny_prunable,
    tiny_stock,
)


KEPT = 2
WEIGHTED = ("classification", "frames", "xvector")
# The published sizes of the three families.
BASE = {"mask_time_prob": 0.05}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "mask_time_prob": 0.05,
}
EVERY_MODEL = [(family, norm, head) for family in FAMILIES for norm in NORM_ORDERS for head in HEADS[family]]


def stock(family, norm_order, head):
    # A stock model that drops a layer in training has too few hidden states for a weighted sum.
    options = {"use_weighted_layer_sum": head in WEIGHTED, "num_labels": 4, "layerdrop": 0.0}
    if head in ("base", "ctc") and norm_order == "pre":
        options |= VARIANTS[family]
    return tiny_stock(family, norm_order, head=head, **options)


@torch.no_grad()
def outputs_of(model, **inputs):
    return model(**(inputs or tiny_inputs(batch_size=2, samples=600)), output_hidden_states=True)


def assert_same_prefix(whole, truncated, num_layers):
    assert len(truncated) == num_layers + 1
    for one, other in zip(whole, truncated, strict=False):
        torch.testing.assert_close(other, one, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    checkpoints = Checkpoints(tmp_path_factory.mktemp("truncated"))
    for family, norm_order, head in EVERY_MODEL:
        name = f"{family}-{norm_order}-{head}"
        checkpoints.save(name, truncate(stock(family, norm_order, head), KEPT))
        checkpoints.job("stock", name, AUTO_CLASSES[head])
    for family in FAMILIES:
        checkpoints.save(f"{family}-dense", truncate(tiny_prunable(family), KEPT))
        checkpoints.job("stock", f"{family}-dense")
    return FreshProcesses(checkpoints)


@pytest.mark.parametrize(("family", "norm_order", "head"), EVERY_MODEL)
def test_a_process_without_this_package_loads_the_first_layers(fresh, family, norm_order, head):
    name = f"{family}-{norm_order}-{head}"
    result = fresh("stock", name)
    assert result["class"] == STOCK_CLASSES[family][head].__name__ and result["imported"] == [False, False]
    assert not any(result["info"].values()), result["info"]
    config = json.loads((fresh.root / name / "config.json").read_text())
    assert config["model_type"] == family and config["num_hidden_layers"] == KEPT
    assert config["dense_num_hidden_layers"] == 3
    assert not {"pruned_shape", "gates", "auto_map"} & config.keys()
    whole = outputs_of(stock(family, norm_order, head), **fresh.checkpoints.inputs)
    output = fresh.output("stock", name)
    states = [output[f"hidden_{number}"] for number in range(KEPT + 1)]
    assert f"hidden_{KEPT + 1}" not in output
    assert_same_prefix(whole.hidden_states, states, KEPT)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_truncated_dense_prunable_model_is_a_stock_checkpoint(fresh, family):
    result = fresh("stock", f"{family}-dense")
    assert result["class"] == STOCK_CLASSES[family]["base"].__name__ and not any(result["info"].values())
    output = fresh.output("stock", f"{family}-dense")
    whole = outputs_of(tiny_prunable(family).to_stock(), **fresh.checkpoints.inputs)
    assert_same_prefix(whole.hidden_states, [output[f"hidden_{number}"] for number in range(KEPT + 1)], KEPT)
    again = load_prunable(fresh.root / f"{family}-dense")
    assert again.config.dense_num_parameters == tiny_prunable(family).num_parameters()


@pytest.mark.parametrize(("family", "norm_order", "head"), EVERY_MODEL)
def test_heads_work_and_read_the_last_layer_that_is_left(family, norm_order, head):
    model = stock(family, norm_order, head)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    for num_layers in (1, 3):
        truncated = truncate(model, num_layers)
        assert type(truncated) is type(model) and type(truncated.config) is type(model.config)
        whole, output = outputs_of(model), outputs_of(truncated)
        assert_same_prefix(whole.hidden_states, output.hidden_states, num_layers)
        if num_layers == 3:
            first = "last_hidden_state" if head == "base" else "logits"
            assert torch.equal(output[first], whole[first])
        if head == "base" and getattr(truncated, "adapter", None) is None:
            last = whole.hidden_states[num_layers]
            expected = model.encoder.layer_norm(last) if norm_order == "pre" else last
            torch.testing.assert_close(output.last_hidden_state, expected, atol=1e-6, rtol=0)
        shared = {tensor.data_ptr() for tensor in model.parameters()}
        assert not shared & {tensor.data_ptr() for tensor in truncated.parameters()}
        labels = {
            "ctc": torch.tensor([[1, 2], [3, 4]]),
            "classification": torch.tensor([0, 3]),
            "xvector": torch.tensor([0, 3]),
            "frames": torch.nn.functional.one_hot(torch.arange(output.hidden_states[0].shape[1]) % 4, 4).repeat(
                2, 1, 1
            ),
        }
        if head != "base":
            loss = truncated.train()(**tiny_inputs(batch_size=2, samples=600), labels=labels[head]).loss
            loss.backward()
            assert torch.isfinite(loss)
    assert model.config.to_dict() == config and model.config.num_hidden_layers == 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("prunable", (False, True))
@pytest.mark.parametrize("family", FAMILIES)
def test_layer_weights_keep_their_ratios(family, prunable):
    make = tiny_prunable if prunable else tiny_stock
    model = make(family, head="classification", use_weighted_layer_sum=True)
    truncated = truncate(model, KEPT)
    assert torch.equal(truncated.layer_weights, model.layer_weights[: KEPT + 1])
    shares = model.layer_weights.softmax(-1)[: KEPT + 1]
    torch.testing.assert_close(truncated.layer_weights.softmax(-1), shares / shares.sum())
    output = outputs_of(truncated, input_values=tiny_inputs(padded=False)["input_values"])
    mean = sum(share * state for share, state in zip(shares / shares.sum(), output.hidden_states, strict=True))
    expected = truncated.classifier(truncated.projector(mean).mean(1))
    torch.testing.assert_close(output.logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
def test_a_pruned_model_of_any_shape_is_cut_to_the_shape_of_its_first_layers(family, norm_order, data):
    # Group norm, because pruning channels changes the statistics of layer norm.
    config = tiny_config(family, norm_order, "group", prunable=True)
    shape, num_layers = data.draw(pruned_shapes(config)), data.draw(st.integers(1, 3))
    model = tiny_prunable(family, norm_order, feature_norm="group", pruned_shape=shape.to_dict())
    truncated = truncate(model, num_layers)
    assert type(truncated) is type(model)
    assert truncated.config.shape == shape.first_layers(num_layers)
    assert truncated.config.dense_num_parameters == model.config.dense_num_parameters
    counts = UnitCounts.of(shape.first_layers(num_layers))
    assert truncated.num_parameters() == count_parameters(truncated.config, counts)
    assert_same_prefix(outputs_of(model).hidden_states, outputs_of(truncated).hidden_states, num_layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_truncated_pruned_models_reload_and_are_pruned_and_truncated_again(tmp_path, family):
    model = ragged(family, "classification", use_weighted_layer_sum=True)
    truncated = truncate(model, KEPT)
    truncated.save_pretrained(tmp_path)
    again = transformers.AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert type(again) is type(model) and torch.equal(outputs_of(again).logits, outputs_of(truncated).logits)
    once = truncate(again, 1)
    assert once.config.dense_num_hidden_layers == 3 and len(once.config.shape.layers) == 1
    once.attach_gates()
    with pytest.raises(ValueError, match=r"has gates.*Call `compact\(model\)` or `detach_gates\(\)` first"):
        truncate(once, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_mode_dtype_attention_and_frozen_parameters_stay(family):
    model = tiny_stock(family, head="classification").to(torch.bfloat16).train()
    model.set_attn_implementation("eager")
    model.freeze_base_model()
    truncated = truncate(model, np.int64(1))
    assert truncated.training and truncated.dtype is torch.bfloat16
    assert truncated.config._attn_implementation == "eager" and type(truncated.config.num_hidden_layers) is int
    trainable = {name for name, parameter in truncated.named_parameters() if parameter.requires_grad}
    assert trainable == {f"{part}.{kind}" for part in ("projector", "classifier") for kind in ("weight", "bias")}


@pytest.mark.parametrize("num_layers", (0, -1, 4))
@pytest.mark.parametrize("make", (tiny_stock, tiny_prunable))
def test_other_numbers_of_layers_are_refused(make, num_layers):
    with pytest.raises(ValueError, match=rf"num_layers is {num_layers}; the model has 3 layers.*keep, 1 to 3"):
        truncate(make("wavlm"), num_layers)


def test_what_is_not_supported_is_refused():
    with pytest.raises(ValueError, match="of type 'encodec' has no `num_hidden_layers`. Give a model with one stack"):
        truncated_config(transformers.EncodecConfig(), 1)
    with pytest.raises(TypeError, match="DataParallel cannot be truncated. Give the transformers model inside"):
        truncate(torch.nn.DataParallel(tiny_stock("hubert")), 1)
    for number, kind in ((1.5, "float"), ("2", "str"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"`num_layers` is {number!r}, a {kind}; give the number of layers"):
            truncate(tiny_stock("hubert"), number)
    model = tiny_stock("hubert")
    model.encoder.layers[0].attention.q_proj.lora = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match=r"unexpected_keys.*lora.*adapters, merge them"):
        truncate(model, 1)


@pytest.mark.parametrize(
    ("size", "num_layers", "percent"),
    [(BASE, 9, 22.5), (BASE, 8, 30.0), (BASE, 3, 67.6), (BASE, 2, 75.1)]
    + [(LARGE, 20, 16.0), (LARGE, 19, 20.0), (LARGE, 5, 75.9)],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_removed_of_the_published_sizes(family, size, num_layers, percent):
    config = STOCK_CONFIGS[family](**size)
    with torch.device("meta"):
        whole, left = (
            STOCK_CLASSES[family]["base"](config).num_parameters()
            for config in (config, truncated_config(config, num_layers))
        )
    assert round(100 * (1 - left / whole), 1) == percent
