"""Promise 1: a dense prunable model is the stock model, from loading through training to saving."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, Wav2Vec2ForPreTraining

from hf_prunable import load_prunable
from tests.helpers.installed_versions import has_transformers
from tests.helpers.tiny_models import (
    FAMILIES,
    FEATURE_NORMS,
    HEADS,
    NORM_ORDERS,
    NUM_LABELS,
    PRUNABLE_CLASSES,
    STOCK_CLASSES,
    STOCK_CONFIGS,
    randomize_,
    tiny_config,
    tiny_inputs,
    tiny_labels,
    tiny_prunable,
    tiny_stock,
)


TOLERANCE = {"atol": 1e-5, "rtol": 0}
# Heads with the kinds that may sum the layers with learned weights.
HEAD_CASES = [
    (family, head, weighted)
    for family in FAMILIES
    for head in HEADS[family]
    for weighted in ((False, True) if head in ("classification", "frames", "xvector") else (False,))
]
# Everything random that training does.
NOISY = {
    "layerdrop": 0.4,
    "hidden_dropout": 0.15,
    "attention_dropout": 0.25,
    "activation_dropout": 0.2,
    "feat_proj_dropout": 0.1,
    "final_dropout": 0.3,
}


def loaded(stock, folder, head="base", **kwargs):
    """The stock model's checkpoint, loaded as a prunable model without a missing or left-over key."""
    stock.save_pretrained(folder)
    family = stock.config.model_type
    model, info = PRUNABLE_CLASSES[family][head].from_pretrained(folder, output_loading_info=True, **kwargs)
    assert not any(info.values()), info
    return model


def run(model, inputs, head="base", seed=0, **kwargs):
    torch.manual_seed(seed)
    np.random.seed(seed)
    if head != "base":
        kwargs["labels"] = tiny_labels(model, head, inputs)
    return model(**inputs, output_hidden_states=True, **kwargs)


def assert_same(output, expected, tolerance=1e-5):
    """Compares all that a model returns."""
    assert output.keys() == expected.keys()
    for name, value in expected.items():
        values, others = (value, output[name]) if isinstance(value, tuple) else ((value,), (output[name],))
        assert len(values) == len(others), name
        for number, (one, other) in enumerate(zip(values, others, strict=True)):
            torch.testing.assert_close(
                other, one, atol=tolerance, rtol=0, msg=lambda text, at=(name, number): f"{at}: {text}"
            )


def both_paddings(dtype=torch.float32):
    padded = tiny_inputs()
    padded["input_values"] = padded["input_values"].to(dtype)
    return [padded, {"input_values": tiny_inputs(seed=1, padded=False)["input_values"].to(dtype)}]


def assert_equal_in_evaluation(stock, model, head="base", **kwargs):
    stock.eval()
    model.eval()
    for inputs in both_paddings():
        with torch.no_grad():
            assert_same(run(model, inputs, head, **kwargs), run(stock, inputs, head, **kwargs))


def draw_unused_numbers_(model):
    """Makes a model draw the random numbers that stock models draw before transformers 5.23 and do not use.

    They draw one for each layer even without layer drop, and WavLM one for its first layer, which it never drops.
    """
    if has_transformers("5.23"):
        return

    def draw(module, args):
        torch.rand([])

    layers = model.base_model.encoder.layers
    if model.config.layerdrop > 0:
        layers = layers[:1] if model.config.has_relative_position_bias else []
    for layer in layers:
        layer.register_forward_pre_hook(draw)


def assert_equal_in_training(stock, model, head="base", seeds=range(2), tolerance=1e-5, gradient_tolerance=1e-4):
    """Outputs, losses and gradients (as parts of each parameter's largest) under the same random numbers."""
    stock.train()
    model.train()
    draw_unused_numbers_(model)
    for inputs in both_paddings(stock.dtype):
        for seed in seeds:
            gradients = []
            outputs = []
            for each in (stock, model):
                each.zero_grad()
                output = run(each, inputs, head, seed)
                loss = output.last_hidden_state.square().mean() if head == "base" else output.loss
                loss.backward()
                outputs.append(output)
                gradients.append({name: p.grad for name, p in each.named_parameters() if p.grad is not None})
                # The last random number drawn is the same only if all before it were.
                gradients[-1]["random state"] = torch.rand(()) + np.random.random()
            assert_same(outputs[1], outputs[0], tolerance)
            assert gradients[0].keys() == gradients[1].keys()
            for name, gradient in gradients[0].items():
                scale = gradient.abs().max().clamp(min=1)
                deviation = ((gradients[1][name] - gradient).abs().max() / scale).item()
                assert deviation <= gradient_tolerance, f"{name}: {deviation}"


@pytest.mark.parametrize("feature_norm", FEATURE_NORMS)
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize(("family", "head", "weighted"), HEAD_CASES)
def test_every_head_in_evaluation_and_training(tmp_path, family, head, weighted, norm_order, feature_norm):
    fields = {"feature_norm": feature_norm, **NOISY}
    if weighted:
        # Stock models cannot weight the layers of a pass that dropped some.
        fields |= {"use_weighted_layer_sum": True, "layerdrop": 0.0}
    stock = tiny_stock(family, norm_order, head, num_labels=NUM_LABELS, **fields)
    model = loaded(stock, tmp_path, head)
    assert not model.training and model.is_stock
    assert_equal_in_evaluation(stock, model, head)
    assert_equal_in_training(stock, model, head)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_dropped_in_training(family):
    """The comparison above means something only where it happens."""
    inputs = tiny_inputs()
    model = tiny_prunable(family, layerdrop=0.4).train()
    lengths = {len(run(model, inputs, seed=seed).hidden_states) for seed in range(10)}
    assert len(lengths) > 1 and max(lengths) == 4


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_training_in_double_precision(tmp_path, family, norm_order):
    """Where rounding cannot hide a difference."""
    stock = tiny_stock(family, norm_order, "ctc", **NOISY).double()
    model = loaded(stock, tmp_path, "ctc", dtype=torch.float64)
    assert_equal_in_training(stock, model, "ctc", range(4), tolerance=1e-11, gradient_tolerance=1e-11)


ADAPTER = {"add_adapter": True, "num_adapter_layers": 2}
VARIANTS = [
    *[(family, {"conv_bias": True}) for family in FAMILIES],
    *[(family, {"mask_time_prob": 0.0}) for family in FAMILIES],
    *[(family, {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}) for family in FAMILIES],
    *[(family, {"apply_spec_augment": False}) for family in FAMILIES],
    *[(family, {"num_conv_pos_embeddings": 9, "num_conv_pos_embedding_groups": 1}) for family in FAMILIES],
    *[(family, {"hidden_act": "relu", "feat_extract_activation": "silu"}) for family in FAMILIES],
    *[(family, {"layer_norm_eps": 0.1}) for family in FAMILIES],
    *[(family, {"num_hidden_layers": 1}) for family in FAMILIES],
    *[(family, {"conv_dim": (9,), "conv_kernel": (10,), "conv_stride": (20,)}) for family in FAMILIES],
    ("wavlm", {"num_buckets": 8, "max_bucket_distance": 10}),
    ("hubert", {"conv_pos_batch_norm": True}),
    ("hubert", {"feat_proj_layer_norm": False}),
    ("hubert", {"adapter_attn_dim": 5}),
    ("wav2vec2", {"adapter_attn_dim": 5}),
    *[(family, ADAPTER) for family in ("wavlm", "wav2vec2")],
    *[(family, {**ADAPTER, "output_hidden_size": 14}) for family in ("wavlm", "wav2vec2")],
]


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize(("family", "fields"), VARIANTS, ids=str)
def test_variants(tmp_path, family, norm_order, fields):
    stock = tiny_stock(family, norm_order, "ctc", **{**NOISY, **fields})
    model = loaded(stock, tmp_path, "ctc")
    assert_equal_in_evaluation(stock, model, "ctc")
    assert_equal_in_training(stock, model, "ctc", seeds=[4])


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
def test_running_statistics_of_batch_norm_move_alike(tmp_path, norm_order):
    stock = tiny_stock("hubert", norm_order, conv_pos_batch_norm=True)
    model = loaded(stock, tmp_path)
    assert_equal_in_training(stock, model, seeds=[0])
    statistics = [dict(each.named_buffers()) for each in (stock, model)]
    assert statistics[0]["encoder.pos_conv_embed.batch_norm.num_batches_tracked"] == 2
    for name, value in statistics[0].items():
        torch.testing.assert_close(statistics[1][name], value, **TOLERANCE)


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_given_mask_indices(tmp_path, family, norm_order):
    stock = tiny_stock(family, norm_order)
    model = loaded(stock, tmp_path)
    mask = torch.rand(3, 39, generator=torch.Generator().manual_seed(0)) < 0.3
    assert_equal_in_evaluation(stock, model, mask_time_indices=mask)
    inputs = tiny_inputs()
    with torch.no_grad():
        masked = run(model, inputs, mask_time_indices=mask).last_hidden_state
        assert not torch.allclose(masked, run(model, inputs).last_hidden_state, atol=1e-3)


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_weights(tmp_path, family, norm_order):
    """Of every head; stock WavLM can only tell their mean over heads."""
    stock = tiny_stock(family, norm_order, attn_implementation="eager")
    model = loaded(stock, tmp_path, attn_implementation="eager")
    assert_equal_in_evaluation(stock, model)
    for inputs in both_paddings():
        with torch.no_grad():
            expected = stock(**inputs, output_attentions=True).attentions
            attentions = model(**inputs, output_attentions=True).attentions
        assert len(attentions) == len(expected) == 3
        for weights, others in zip(attentions, expected, strict=True):
            assert weights.shape == others.shape == (3, 4, 39, 39)
            if family == "wavlm":
                assert not torch.allclose(weights[:, 0], weights[:, 1], atol=1e-3)
                weights = weights.mean(dim=1, keepdim=True).expand_as(weights)
            torch.testing.assert_close(weights, others, **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_weights_without_asking_for_the_eager_implementation(tmp_path, family):
    """Stock WavLM has no other implementation; the other stock families return nothing."""
    model = loaded(tiny_stock(family), tmp_path)
    for head in ("base", "ctc"):
        model = PRUNABLE_CLASSES[family][head].from_pretrained(tmp_path).eval()
        assert model.config._attn_implementation == "sdpa"
        eager = PRUNABLE_CLASSES[family][head].from_pretrained(tmp_path, attn_implementation="eager").eval()
        eager.load_state_dict(model.state_dict())
        for inputs in both_paddings():
            with torch.no_grad():
                output, expected = (each(**inputs, output_attentions=True) for each in (model, eager))
                without = model(**inputs)
            assert len(output.attentions) == 3 and "attentions" not in without
            for weights, others in zip(output.attentions, expected.attentions, strict=True):
                torch.testing.assert_close(weights, others, **TOLERANCE)
            torch.testing.assert_close(output[0], without[0], **TOLERANCE)
    # A configuration that was saved with the request holds for "sdpa" too.
    model.config._output_attentions = True
    with torch.no_grad():
        assert len(model(**tiny_inputs()).attentions) == 3


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_eager_attention_in_training(tmp_path, family, norm_order):
    stock = tiny_stock(family, norm_order, attn_implementation="eager", **NOISY)
    model = loaded(stock, tmp_path, attn_implementation="eager")
    assert model.config._attn_implementation == "eager"
    assert_equal_in_training(stock, model)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_implementation_can_be_switched(tmp_path, family):
    stock = tiny_stock(family)
    for head in ("base", "ctc"):
        model = PRUNABLE_CLASSES[family][head](tiny_config(family, prunable=True))
        assert model.config._attn_implementation == model.base_model.config._attn_implementation == "sdpa"
    model = loaded(stock, tmp_path)
    model.set_attn_implementation("eager")
    assert_equal_in_evaluation(stock, model)
    assert model(**tiny_inputs(), output_attentions=True).attentions[2].shape == (3, 4, 39, 39)


@pytest.mark.skipif(not has_transformers("5.23"), reason="transformers picks hidden states by index from 5.23 on")
@pytest.mark.parametrize("head", ["base", "classification"])
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_picked_hidden_states(tmp_path, family, norm_order, head):
    stock = tiny_stock(family, norm_order, head)
    model = loaded(stock, tmp_path, head)
    inputs = tiny_inputs()
    with torch.no_grad():
        every = model(**inputs, output_hidden_states=True).hidden_states
        picked = model(**inputs, output_hidden_states=[0, -1]).hidden_states
        expected = stock(**inputs, output_hidden_states=[0, -1]).hidden_states
    chosen = [state for state in picked if state is not None]
    chosen_by_stock = [state for state in expected if state is not None]
    assert len(every) == 4 and len(picked) == len(expected) and len(chosen) == len(chosen_by_stock) == 2
    for state, other, full in zip(chosen, chosen_by_stock, (every[0], every[-1]), strict=True):
        assert torch.equal(state, full)
        torch.testing.assert_close(state, other, **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_base_and_head_checkpoints_load_into_each_other(tmp_path, family):
    base, ctc = tiny_stock(family), tiny_stock(family, head="ctc", seed=1)
    base.save_pretrained(tmp_path / "base")
    ctc.save_pretrained(tmp_path / "ctc")
    model, info = PRUNABLE_CLASSES[family]["ctc"].from_pretrained(tmp_path / "base", output_loading_info=True)
    assert info["missing_keys"] == {"lm_head.weight", "lm_head.bias"} and not info["unexpected_keys"]
    assert_equal_in_evaluation(base, model.base_model)
    model, info = PRUNABLE_CLASSES[family]["base"].from_pretrained(tmp_path / "ctc", output_loading_info=True)
    assert info["unexpected_keys"] == {"lm_head.weight", "lm_head.bias"} and not info["missing_keys"]
    assert_equal_in_evaluation(ctc.base_model, model)
    assert isinstance(load_prunable(tmp_path / "ctc", "AutoModelForCTC"), PRUNABLE_CLASSES[family]["ctc"])


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
def test_pretraining_checkpoint_of_wav2vec2(tmp_path, norm_order):
    stock = randomize_(Wav2Vec2ForPreTraining(tiny_config("wav2vec2", norm_order)))
    stock.save_pretrained(tmp_path)
    model, info = PRUNABLE_CLASSES["wav2vec2"]["base"].from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    dropped = {name for name, _ in stock.named_parameters() if not name.startswith("wav2vec2.")}
    assert {name.split(".")[0] for name in dropped} == {"quantizer", "project_hid", "project_q"}
    assert info["unexpected_keys"] == dropped
    assert_equal_in_evaluation(stock.wav2vec2, model)


@pytest.mark.parametrize("old_names", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_old_and_new_key_names_of_weight_norm(tmp_path, family, old_names):
    stock = tiny_stock(family)
    stock.save_pretrained(tmp_path, save_original_format=False)
    new = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
    old = "encoder.pos_conv_embed.conv.weight_"
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    assert {f"{new}0", f"{new}1"} < tensors.keys()
    if old_names:
        tensors = {name.replace(f"{new}0", f"{old}g").replace(f"{new}1", f"{old}v"): tensors[name] for name in tensors}
        assert {f"{old}g", f"{old}v"} < tensors.keys()
        save_file(tensors, file, metadata={"format": "pt"})
    model, info = PRUNABLE_CLASSES[family]["base"].from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert_equal_in_evaluation(stock, model)


@pytest.mark.parametrize("at_loading", [True, False])
def test_language_adapter(tmp_path, at_loading):
    """MMS: the adapters and the vocabulary of a language, put into a loaded model."""
    stock = tiny_stock("wav2vec2", "pre", "ctc", adapter_attn_dim=5)
    stock.save_pretrained(tmp_path)
    other = tiny_stock("wav2vec2", "pre", "ctc", seed=1, adapter_attn_dim=5, vocab_size=13)
    adapters = {name: weight.detach().clone() for name, weight in other._get_adapters().items()}
    assert len(adapters) == 3 * 6 + 2
    save_file(adapters, tmp_path / "adapter.deu.safetensors", metadata={"format": "pt"})
    models = []
    for model_class in (STOCK_CLASSES["wav2vec2"]["ctc"], PRUNABLE_CLASSES["wav2vec2"]["ctc"]):
        if at_loading:
            model = model_class.from_pretrained(tmp_path, target_lang="deu", ignore_mismatched_sizes=True)
        else:
            model = model_class.from_pretrained(tmp_path)
            model.load_adapter("deu")
        assert model.target_lang == "deu" and model.config.vocab_size == 13
        models.append(model)
    assert set(models[1]._get_adapters()) == set(adapters)
    for name, weight in models[1]._get_adapters().items():
        assert torch.equal(weight, adapters[name]), name
    assert_equal_in_evaluation(*models, "ctc")


def test_wavlm_mini(shared_models):
    """A trained model, on a second of noise and half of one."""
    folder = shared_models / "wavlm-mini"
    stock = STOCK_CLASSES["wavlm"]["base"].from_pretrained(folder)
    model, info = PRUNABLE_CLASSES["wavlm"]["base"].from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    inputs = tiny_inputs(2, 16000)
    for given in (inputs, {"input_values": inputs["input_values"]}):
        with torch.no_grad():
            assert_same(run(model, given), run(stock, given))


@pytest.mark.slow
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_base_size(tmp_path, family, norm_order):
    """Untrained weights at the published size, in both norm orders."""
    config = STOCK_CONFIGS[family](
        do_stable_layer_norm=norm_order == "pre", feat_extract_norm="group" if norm_order == "post" else "layer"
    )
    torch.manual_seed(0)
    stock = STOCK_CLASSES[family]["base"](config).eval()
    model = loaded(stock, tmp_path)
    inputs = tiny_inputs(2, 24000)
    with torch.no_grad():
        assert_same(run(model, inputs), run(stock, inputs))
        stock.train()
        model.train()
        assert_same(run(model, inputs), run(stock, inputs))


def without_origin(config):
    values = config.to_dict()
    return {name: values[name] for name in values if name not in ("_name_or_path", "transformers_version")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize(("family", "head"), [(family, head) for family in FAMILIES for head in HEADS[family]])
def test_saved_dense_model_is_a_stock_checkpoint(tmp_path, family, head, norm_order, dtype):
    stock = tiny_stock(family, norm_order, head, num_labels=NUM_LABELS, conv_bias=True, **NOISY).to(dtype)
    model = loaded(stock, tmp_path / "stock", head, dtype=dtype)
    model.save_pretrained(tmp_path / "dense")
    files = {path.name for path in (tmp_path / "dense").iterdir()}
    assert files == {"config.json", "model.safetensors"}
    written = json.loads((tmp_path / "dense" / "config.json").read_text())
    assert written["architectures"] == [STOCK_CLASSES[family][head].__name__] and written["model_type"] == family
    assert not written.keys() & {"auto_map", "pruned_shape", "gates", "dense_num_hidden_layers"}

    again, info = STOCK_CLASSES[family][head].from_pretrained(
        tmp_path / "dense", output_loading_info=True, dtype=dtype
    )
    assert not any(info.values()), info
    from_stock = STOCK_CLASSES[family][head].from_pretrained(tmp_path / "stock", dtype=dtype)
    assert without_origin(again.config) == without_origin(from_stock.config)
    expected = stock.state_dict()
    assert again.state_dict().keys() == expected.keys()
    for name, tensor in again.state_dict().items():
        assert tensor.dtype == expected[name].dtype and torch.equal(tensor, expected[name]), name
    # The model that was saved is what it was.
    assert type(model) is PRUNABLE_CLASSES[family][head] and model.config.model_type == f"prunable_{family}"


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_dense_model_needs_nothing_of_ours(tmp_path, family):
    model = tiny_prunable(family)
    model.save_pretrained(tmp_path)
    stock = AutoModel.from_pretrained(tmp_path)
    assert type(stock) is STOCK_CLASSES[family]["base"]
    assert_equal_in_evaluation(stock, model)
    shared = model.to_stock()
    assert type(shared) is STOCK_CLASSES[family]["base"] and not shared.training
    pointers = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert {tensor.data_ptr() for tensor in shared.state_dict().values()} == pointers
    assert_equal_in_evaluation(shared, model)


@pytest.mark.parametrize("family", FAMILIES)
def test_prunable_model_from_a_stock_configuration(family):
    for head in HEADS[family]:
        config = tiny_config(family, num_labels=NUM_LABELS)
        model = PRUNABLE_CLASSES[family][head](config)
        assert config.model_type == family and model.config.model_type == f"prunable_{family}"
        assert without_origin(model.config.to_stock()) == without_origin(config)
        with torch.device("meta"):
            stock = STOCK_CLASSES[family][head](config)
        assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
            name: tensor.shape for name, tensor in stock.state_dict().items()
        }


@pytest.mark.parametrize("family", FAMILIES)
def test_configuration_of_another_family_is_refused(tmp_path, family):
    other = FAMILIES[(FAMILIES.index(family) + 1) % 3]
    tiny_stock(other).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"has model type '{other}', and Prunable\w+Config reads '{family}'"):
        PRUNABLE_CLASSES[family]["base"].from_pretrained(tmp_path)
