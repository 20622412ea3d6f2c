"""Saving and loading: what a fresh process loads is bitwise what was saved, by every road that leads there."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModel, WhisperConfig, WhisperModel

import hf_prunable
from hf_prunable import compact, load_prunable
from tests.helpers.fresh_processes import (
    FAMILY_HEADS,
    FreshProcesses,
    plan_checkpoints,
    ragged,
)
from tests.helpers.installed_versions import skip_uninitialized_loss
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, PRUNABLE_CLASSES, STOCK_CLASSES, tiny_prunable, tiny_stock


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return FreshProcesses(plan_checkpoints(tmp_path_factory.mktemp("checkpoints")))


def assert_bitwise(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name


def assert_loads_what_was_saved(fresh, mode, name, like):
    result = fresh(mode, name)
    assert not any(result["info"].values()), result["info"]
    assert not [line for line in result["logs"] if "initialized" in line or "MISSING" in line or "UNEXPECTED" in line]
    assert result["training"] is False
    model = fresh.checkpoints.models[like]
    assert_bitwise(fresh.state(mode, name), model.state_dict())
    assert_bitwise(fresh.output(mode, name), fresh.checkpoints.expected(like))
    return result


BOTH_ROADS = pytest.mark.parametrize("mode", ("import", "trust"))
ALL_FAMILIES = pytest.mark.parametrize("family", FAMILIES)


@BOTH_ROADS
@pytest.mark.parametrize(("family", "head"), FAMILY_HEADS)
def test_pruned_checkpoints_load_bitwise(fresh, mode, family, head):
    name = f"{family}-{head}"
    result = assert_loads_what_was_saved(fresh, mode, name, name)
    assert result["class"] == PRUNABLE_CLASSES[family][head].__name__
    assert result["imported"] == [mode == "import", True]


@BOTH_ROADS
@ALL_FAMILIES
@pytest.mark.parametrize(
    ("name", "like"),
    (
        ("pre", "pre"),
        ("sharded", "sharded"),
        ("as-bfloat16", "bfloat16"),
        ("bfloat16", "bfloat16"),
        ("device-map", "base"),
    ),
)
def test_variants_dtypes_shards_and_device_maps_load_bitwise(fresh, mode, family, name, like):
    assert_loads_what_was_saved(fresh, mode, f"{family}-{name}", f"{family}-{like}")


@BOTH_ROADS
@ALL_FAMILIES
@pytest.mark.parametrize("name", ("gated", "gated-dense", "gated-bfloat16"))
def test_gates_survive_in_float32(fresh, mode, family, name):
    name = f"{family}-{name}"
    assert_loads_what_was_saved(fresh, mode, name, name)
    state = fresh.state(mode, name)
    gates = {key: tensor for key, tensor in state.items() if key.endswith("log_alpha")}
    assert gates and all(tensor.dtype is torch.float32 for tensor in gates.values())
    dtype = torch.bfloat16 if name.endswith("bfloat16") else torch.float32
    assert {tensor.dtype for key, tensor in state.items() if key not in gates} == {dtype}


@ALL_FAMILIES
def test_gate_settings_survive(fresh, family):
    reloaded = AutoModel.from_pretrained(fresh.root / f"{family}-gated")
    settings = {"units": ["mha", "qk", "vo", "int", "conv"], "ste": False, "initial_drop_rate": 0.2}
    assert reloaded.config.gates == settings
    saved = fresh.checkpoints.models[f"{family}-gated"]
    for (name, gate), (saved_name, saved_gate) in zip(reloaded.named_gates(), saved.named_gates(), strict=True):
        assert name == saved_name
        assert gate.ste is False and gate.initial_log_alpha == saved_gate.initial_log_alpha
    # Compaction sees no difference.
    assert_bitwise(compact(reloaded).state_dict(), compact(saved).state_dict())


@ALL_FAMILIES
def test_loading_in_bfloat16_keeps_the_gates_of_a_float32_checkpoint(fresh, family):
    reloaded = AutoModel.from_pretrained(fresh.root / f"{family}-gated", dtype=torch.bfloat16)
    saved = dict(fresh.checkpoints.models[f"{family}-gated"].named_gates())
    for name, gate in reloaded.named_gates():
        assert gate.log_alpha.dtype is torch.float32
        assert torch.equal(gate.log_alpha, saved[name].log_alpha)
    assert reloaded.dtype is torch.bfloat16


@BOTH_ROADS
@pytest.mark.parametrize(("family", "head"), [pair for pair in FAMILY_HEADS if pair[1] != "base"])
def test_head_and_base_checkpoints_load_into_each_other(fresh, mode, family, head):
    models = fresh.checkpoints.models
    prefix = models[f"{family}-{head}"].base_model_prefix + "."
    # Head into base: the head's own keys are left over, nothing is missing.
    name = f"{family}-{head}-to-base"
    result = fresh(mode, name)
    own_keys = {key for key in models[f"{family}-{head}"].state_dict() if not key.startswith(prefix)}
    assert own_keys and set(result["info"]["unexpected_keys"]) <= own_keys
    assert not result["info"]["missing_keys"] and not result["info"]["mismatched_keys"]
    assert_bitwise(fresh.state(mode, name), models[f"{family}-{head}"].base_model.state_dict())
    # Base into head: the head's own keys are missing, nothing is left over.
    name = f"{family}-{head}-from-base"
    result = fresh(mode, name)
    assert any("MISSING" in line for line in result["logs"]), "the report that other tests look for in vain"
    assert result["class"] == PRUNABLE_CLASSES[family][head].__name__
    state = fresh.state(mode, name)
    assert set(result["info"]["missing_keys"]) == {key for key in state if not key.startswith(prefix)}
    assert not result["info"]["unexpected_keys"] and not result["info"]["mismatched_keys"]
    base_state = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    assert_bitwise(base_state, models[f"{family}-base"].state_dict())


@pytest.fixture
def poisoned_memory():
    """New memory is NaN until somebody writes to it."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("family", "head"), [(family, head) for family, head in FAMILY_HEADS if head != "base"])
def test_a_new_head_leaves_nothing_uninitialized(tmp_path, poisoned_memory, family, head):
    skip_uninitialized_loss(head)
    tiny_stock(family).save_pretrained(tmp_path)
    options = {"use_weighted_layer_sum": head != "ctc", "num_labels": 5}
    model = PRUNABLE_CLASSES[family][head].from_pretrained(tmp_path, **options)
    assert not [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if head != "ctc":
        torch.testing.assert_close(model.layer_weights.detach(), torch.full((4,), 0.25))


@BOTH_ROADS
@ALL_FAMILIES
def test_config_and_feature_extractor_load(fresh, mode, family):
    config = fresh(mode, f"{family}-config")["config"]
    saved = fresh.checkpoints.models[f"{family}-base"].config
    assert config["model_type"] == f"prunable_{family}"
    assert config["pruned_shape"] == saved.pruned_shape and config["gates"] is None
    assert fresh(mode, f"{family}-extractor")["class"] == "Wav2Vec2FeatureExtractor"


@ALL_FAMILIES
@pytest.mark.parametrize("head", ("base", "ctc"))
def test_a_model_from_trust_remote_code_can_be_saved_again(fresh, family, head):
    name = f"{family}-{head}"
    assert_loads_what_was_saved(fresh, "trust", f"{name}-saved-again", name)
    assert_loads_what_was_saved(fresh, "again", f"{name}-again", name)
    first, again = ({p.name: p for p in (fresh.root / folder).iterdir()} for folder in (name, f"{name}-again"))
    assert again.keys() == first.keys() - {"preprocessor_config.json"}
    for file in ("config.json", "modeling_hf_prunable.py", "model.safetensors"):
        assert again[file].read_bytes() == first[file].read_bytes(), file


@pytest.mark.parametrize("kind", ("stock", "short"))
@pytest.mark.parametrize(("family", "head"), FAMILY_HEADS)
def test_dense_and_shortened_models_are_stock_checkpoints(fresh, kind, family, head):
    name = f"{family}-{kind}-{head}"
    result = assert_loads_what_was_saved(fresh, "stock", name, name)
    assert result["class"] == STOCK_CLASSES[family][head].__name__
    assert result["imported"] == [False, False]
    config = json.loads((fresh.root / name / "config.json").read_text())
    assert config["model_type"] == family and not {"pruned_shape", "gates", "auto_map"} & config.keys()
    assert config["architectures"] == [STOCK_CLASSES[family][head].__name__]
    assert not list((fresh.root / name).glob("*.py"))


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@ALL_FAMILIES
def test_narrow_models_need_nothing_of_this_package(fresh, family, norm_order):
    """Where the package cannot be imported, plain transformers computes what it computes with the package, to the bit."""
    name = f"{family}-narrow-{norm_order}"
    result = assert_loads_what_was_saved(fresh, "stock", name, name)
    assert result["class"] == STOCK_CLASSES[family]["base"].__name__ and result["imported"] == [False, False]
    with_package = fresh("import", name)
    assert with_package["class"] == result["class"] and with_package["imported"] == [True, True]
    assert_bitwise(fresh.output("stock", name), fresh.output("import", name))
    config = json.loads((fresh.root / name / "config.json").read_text())
    assert config["intermediate_size"] < 40 and not {"pruned_shape", "gates", "auto_map"} & config.keys()
    assert not list((fresh.root / name).glob("*.py"))
    # The prunable class computes the same, and attention of WavLM in another order of operations.
    prunable = load_prunable(fresh.root / name).eval()
    assert_bitwise(prunable.state_dict(), fresh.state("stock", name))
    with torch.no_grad():
        states = prunable(**fresh.checkpoints.inputs, output_hidden_states=True).hidden_states
    found = {f"hidden_{index}": state for index, state in enumerate(states)}
    expected = {key: state for key, state in fresh.output("stock", name).items() if key != "first"}
    if family == "wavlm":
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    else:
        assert_bitwise(found, expected)


@ALL_FAMILIES
def test_a_shortened_checkpoint_remembers_its_original_size(fresh, family):
    folder = fresh.root / f"{family}-short-base"
    model = load_prunable(folder)
    assert model.config.num_hidden_layers == 2 and model.config.dense_num_hidden_layers == 3
    assert model.config.dense_num_parameters == tiny_prunable(family).num_parameters()
    assert_bitwise(model.state_dict(), fresh.checkpoints.models[f"{family}-short-base"].state_dict())


@ALL_FAMILIES
def test_a_missing_package_is_named(fresh, family):
    result = fresh("blocked", f"{family}-base")
    assert result["error"] == "ImportError"
    assert "pip install hf_prunable" in result["message"]


def test_the_shim_is_one_line(fresh):
    shim = (fresh.root / "wavlm-base" / "modeling_hf_prunable.py").read_text()
    assert shim.startswith("from hf_prunable import PrunableWavLMConfig, PrunableWavLMModel, ")
    assert shim.count("\n") == 1


@ALL_FAMILIES
def test_index_buffers_are_right_after_loading(fresh, family):
    saved = fresh.checkpoints.models[f"{family}-base"]
    reloaded = AutoModel.from_pretrained(fresh.root / f"{family}-base")
    buffers = dict(saved.named_buffers())
    assert_bitwise(dict(reloaded.named_buffers()), buffers)
    names = {name.rsplit(".", 1)[1] for name in buffers}
    assert {"query_key_places", "value_output_places"} <= names
    assert ({"head_indices", "bias_columns"} <= names) == (family == "wavlm")
    # They belong to the shape and never to a checkpoint.
    assert not any("places" in key or "bias_columns" in key for key in saved.state_dict())


def test_config_holds_a_readable_shape(tmp_path):
    pruned_shape = {
        "format_version": 1,
        "conv_channels": [10, 16, 20],
        "layers": [
            {"attention": {"heads": [0, 2], "query_key": [3, 0], "value_output": [6, 1]}, "intermediate": 17},
            {"attention": None, "intermediate": 0},
            {"attention": {"heads": [], "query_key": [], "value_output": []}, "intermediate": None},
        ],
    }
    model = tiny_prunable("wavlm", pruned_shape=pruned_shape)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["pruned_shape"] == pruned_shape
    assert config["model_type"] == "prunable_wavlm" and config["gates"] is None
    assert config["auto_map"] == {
        "AutoConfig": "modeling_hf_prunable.PrunableWavLMConfig",
        "AutoModel": "modeling_hf_prunable.PrunableWavLMModel",
        "AutoModelForCTC": "modeling_hf_prunable.PrunableWavLMForCTC",
        "AutoModelForAudioClassification": "modeling_hf_prunable.PrunableWavLMForSequenceClassification",
        "AutoModelForAudioFrameClassification": "modeling_hf_prunable.PrunableWavLMForAudioFrameClassification",
        "AutoModelForAudioXVector": "modeling_hf_prunable.PrunableWavLMForXVector",
    }
    # The stock fields keep the original widths, so that the checkpoint can be pruned again and compared.
    assert (config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]) == (24, 4, 40)
    assert config["conv_dim"] == [12, 16, 20]
    assert_bitwise(AutoModel.from_pretrained(tmp_path).state_dict(), model.state_dict())


@pytest.mark.parametrize(("family", "head"), FAMILY_HEADS)
def test_training_knobs_of_the_original_survive(family, head, tmp_path):
    knobs = {"layerdrop": 0.07, "hidden_dropout": 0.03, "mask_time_prob": 0.06, "apply_spec_augment": False}
    model = ragged(family, head, **knobs)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert {name: getattr(config, name) for name in knobs} == knobs


# What does not fit together


@pytest.fixture
def edited(fresh, tmp_path):
    """Copies a checkpoint and changes its configuration."""

    def edit(change, name="wavlm-base"):
        folder = tmp_path / "edited"
        shutil.copytree(fresh.root / name, folder)
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return edit


def _layer(config, number):
    return config["pruned_shape"]["layers"][number]


def _wider(config):
    _layer(config, 0)["intermediate"] += 1


def _head_more(config):
    attention = _layer(config, 2)["attention"]
    for name, value in (("heads", 1), ("query_key", 2), ("value_output", 2)):
        attention[name].insert(1, value)


def _dense(config):
    config["pruned_shape"] = None


def _channels(config):
    config["pruned_shape"]["conv_channels"][0] -= 1


@pytest.mark.parametrize("change", (_wider, _head_more, _dense, _channels))
def test_shape_of_other_sizes_than_the_weights_is_an_error(edited, change):
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModel.from_pretrained(edited(change))


def _attention_back(config):
    _layer(config, 1)["attention"] = {"heads": [0], "query_key": [2], "value_output": [2]}


def _attention_gone(config):
    # Of the last layer: its heads live in the first one too, so that the position bias keeps its size.
    _layer(config, 2)["attention"] = None


def _queries_gone(config):
    attention = _layer(config, 0)["attention"]
    attention["query_key"] = [0] * len(attention["heads"])


def _layer_more(config):
    config["num_hidden_layers"] += 1
    config["pruned_shape"]["layers"].append(config["pruned_shape"]["layers"][0])


def _layer_less(config):
    config["num_hidden_layers"] -= 1
    config["pruned_shape"]["layers"].pop()


@pytest.mark.parametrize("change", (_attention_back, _attention_gone, _queries_gone, _layer_more, _layer_less))
@pytest.mark.parametrize("auto_class", ("AutoModel", "AutoModelForCTC"))
def test_shape_with_other_parts_than_the_weights_is_an_error(edited, change, auto_class):
    with pytest.raises(ValueError, match="encoder.layers"):
        load_prunable(edited(change), auto_class)


def _layers_without_their_number(config):
    config["pruned_shape"]["layers"].pop()


def _head_out_of_range(config):
    _layer(config, 0)["attention"]["heads"][-1] = 4


def _no_layers(config):
    del config["pruned_shape"]["layers"]


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (_layers_without_their_number, "2 layers, but `num_hidden_layers` is 3"),
        (_head_out_of_range, r"Layer 0: `heads` must be ascending numbers in 0\.\.3"),
        (_no_layers, "cannot be read.*layers"),
    ),
)
def test_impossible_shapes_are_refused(edited, change, message):
    with pytest.raises(Exception, match=message):
        AutoModel.from_pretrained(edited(change))


@pytest.mark.parametrize("road", (AutoModel, AutoConfig, hf_prunable.PrunableWavLMForCTC))
def test_a_future_format_asks_for_an_upgrade(edited, road):
    def change(config):
        config["pruned_shape"]["format_version"] = 2

    with pytest.raises(Exception, match="format version 2.*pip install --upgrade hf_prunable"):
        road.from_pretrained(edited(change))


@pytest.mark.parametrize("name", ("wavlm-base", "wavlm-stock-base"))
def test_another_family_is_refused(fresh, name):
    model_type = "wavlm" if "stock" in name else "prunable_wavlm"
    with pytest.raises(
        ValueError, match=rf"'{model_type}', and PrunableHubertConfig reads 'hubert' and 'prunable_hubert'"
    ):
        hf_prunable.PrunableHubertModel.from_pretrained(fresh.root / name)


def test_an_unsupported_model_type_is_refused(tmp_path):
    config = WhisperConfig(
        d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1, decoder_attention_heads=1,
        encoder_ffn_dim=8, decoder_ffn_dim=8, vocab_size=10, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    WhisperModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'whisper' cannot be pruned here.*'wavlm', 'hubert', 'wav2vec2'.*`truncate`"):
        load_prunable(tmp_path)


def test_a_head_that_the_family_lacks_is_refused(fresh):
    with pytest.raises(ValueError, match="prunable_hubert has no AutoModelForAudioXVector; it has AutoModel, "):
        load_prunable(fresh.root / "hubert-base", "AutoModelForAudioXVector")


def test_saving_leaves_the_model_usable(tmp_path):
    model = ragged("wavlm")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "two")
    assert_bitwise(model.state_dict(), state)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [
        "config.json",
        "model.safetensors",
        "modeling_hf_prunable.py",
    ]
    # And one that became dense again, or was dense from the start, brings no traces of a shim.
    dense = tiny_prunable("wavlm")
    dense.attach_gates()
    dense.save_pretrained(tmp_path / "gated")
    dense.detach_gates()
    dense.save_pretrained(tmp_path / "dense")
    config = json.loads((tmp_path / "dense" / "config.json").read_text())
    assert config["model_type"] == "wavlm" and "auto_map" not in config
