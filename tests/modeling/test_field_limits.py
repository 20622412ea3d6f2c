"""What a config.json may ask for, before anything is allocated by it."""

import json
import math

import pytest
from transformers import AutoConfig, AutoModel

from hf_prunable import load_prunable
from tests.helpers.limited_process import limited
from tests.helpers.tiny_models import FAMILIES, PRUNABLE_CONFIGS, tiny_config, tiny_emptied, tiny_stock


# Field, value, and what the message says.
REFUSED = [
    ("num_attention_heads", 10**9, "1 to 1024 are supported.*damaged"),
    ("num_attention_heads", 2048, "1 to 1024 are supported.*damaged"),
    ("num_attention_heads", 0, "`num_attention_heads` is 0"),
    ("num_attention_heads", -4, "`num_attention_heads` is -4"),
    ("num_attention_heads", 5, "`hidden_size` is 24, which is no multiple of `num_attention_heads`, 5"),
    ("num_conv_pos_embedding_groups", 7, "no multiple of `num_conv_pos_embedding_groups`, 7"),
    ("num_attention_heads", "x", "num_attention_heads"),
    ("num_attention_heads", True, "num_attention_heads"),
    ("num_attention_heads", 2.0, "num_attention_heads"),
    ("num_attention_heads", None, "num_attention_heads"),
    ("dense_num_hidden_layers", 10**12, "`dense_num_hidden_layers` is 1000000000000, and 1 to 960"),
    ("dense_num_hidden_layers", -1, "`dense_num_hidden_layers` is -1"),
    ("dense_num_hidden_layers", 1, "is 1, but `num_hidden_layers` is 3, and a truncated model has no more"),
    ("dense_num_hidden_layers", "x", "`dense_num_hidden_layers` is 'x', which is no int"),
    ("num_hidden_layers", 10**9, "0 to 960 are supported"),
    ("num_hidden_layers", -1, "`num_hidden_layers` is -1"),
    ("hidden_size", 10**9, "`hidden_size` is 1000000000"),
    ("intermediate_size", 10**8, "`intermediate_size` is 100000000"),
    ("intermediate_size", 0, "`intermediate_size` is 0"),
    ("conv_dim", [12, 16, 10**9], r"`conv_dim` is \[12, 16, 1000000000\]"),
    ("conv_dim", [1] * 2000, "`conv_dim` is"),
    ("conv_kernel", [10, 3, 10**9], "`conv_kernel`"),
    ("conv_stride", [5, 2, 0], "`conv_stride`"),
    ("conv_stride", [5, 2, -2], "`conv_stride`"),
    ("num_conv_pos_embeddings", 10**9, "`num_conv_pos_embeddings`"),
    ("num_labels", 10**9, "`num_labels` is 1000000000, and 0 to 262144"),
    ("vocab_size", 10**9, "`vocab_size`"),
    ("classifier_proj_size", 10**9, "`classifier_proj_size`"),
    ("hidden_dropout", math.nan, "`hidden_dropout` is nan, which is not a finite number"),
    ("layerdrop", 1.5, "`layerdrop` is 1.5, and 0 to 1"),
    ("mask_time_prob", -1, "`mask_time_prob` is -1"),
    ("layer_norm_eps", -1e-5, "`layer_norm_eps` is -1e-05"),
    ("layer_norm_eps", math.inf, "`layer_norm_eps` is inf"),
    ("layer_norm_eps", 1e30, "`layer_norm_eps` is 1e\\+30, and 0 to 1"),
    ("output_hidden_states", "x", "`output_hidden_states` is 'x', which is no bool"),
    ("output_attentions", 5, "`output_attentions` is 5, which is no bool"),
    ("return_dict", 1, "`return_dict` is 1, which is no bool"),
    ("self", 1, "config.json: .*'self'"),
    ("hidden_act", "x", "`hidden_act` is 'x', which is not an activation"),
    ("dtype", "nn", "`dtype` is 'nn'; it must be one of float64, float32"),
    ("gates", {"units": ["bad"]}, "`gates` must have the entries units, ste, initial_drop_rate"),
    ("gates", {"units": ["bad"], "ste": True, "initial_drop_rate": 0.1}, r"Unknown units \['bad'\]"),
    ("gates", {"units": [], "ste": True, "initial_drop_rate": 0.1}, "Unknown units"),
    ("gates", {"units": "qk", "ste": True, "initial_drop_rate": 0.1}, r"Unknown units \['qk'\]"),
    ("gates", {"units": [["qk"]], "ste": True, "initial_drop_rate": 0.1}, "Unknown units"),
    ("gates", {"units": ["qk"], "ste": 1, "initial_drop_rate": 0.1}, "`ste` must be true or false, but is 1"),
    ("gates", {"units": ["qk"], "ste": True, "initial_drop_rate": 1}, "`initial_drop_rate` must be between 0 and 1"),
    ("gates", {"units": ["qk"], "ste": True, "initial_drop_rate": "x"}, "`initial_drop_rate` must be between 0 and 1"),
    ("gates", ["qk"], r"`gates` is \['qk'\], which is no dict"),
    ("dtype", ["x"], r"`dtype` is \['x'\], which is no str"),
    ("num_labels", "x", "`num_labels` is 'x', which is no int"),
    ("id2label", ["a"], r"`id2label` is \['a'\], which is no dict"),
    ("quantization_config", 1, "`quantization_config` is 1, which is no dict"),
    ("attn_implementation", 1, "`attn_implementation` is 1, which is no str or dict"),
    # Entries that would stand in for methods and other attributes of the class, which saving and loading use.
    ("auto_classes", {"AutoModel": "os"}, "'auto_classes', which is the name of an attribute of Prunable"),
    ("to_dict", 1, "'to_dict', which is the name of an attribute"),
    ("attribute_map", {"hidden_size": "vocab_size"}, "'attribute_map', which is the name"),
]
WAVLM_ONLY = [
    ("num_buckets", 10**9, "`num_buckets`"),
    ("num_buckets", 2, "`num_buckets` is 2, and 4 to 65536"),
    ("max_bucket_distance", 8, "`max_bucket_distance` is 8, and must be above a quarter of `num_buckets`, 32"),
    ("tdnn_kernel", [3], "`tdnn_dim`, `tdnn_kernel`, `tdnn_dilation` must have one entry per layer each"),
    ("num_adapter_layers", 10**9, "`num_adapter_layers`"),
    ("output_hidden_size", 10**9, "`output_hidden_size`"),
]


def fields(family="wavlm"):
    return json.loads(tiny_config(family, prunable=True).to_json_string(use_diff=False))


def checked(family, values):
    PRUNABLE_CONFIGS[family].from_dict(values)


@pytest.mark.parametrize(
    ("family", "field", "value", "message"),
    [(family, *case) for case in REFUSED for family in FAMILIES] + [("wavlm", *case) for case in WAVLM_ONLY],
)
def test_values_that_no_model_has(family, field, value, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        checked(family, fields(family) | {field: value})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "values",
    (
        {},
        {"num_hidden_layers": 2, "dense_num_hidden_layers": 3},
        {"dense_num_hidden_layers": 3},
        {"num_hidden_layers": 0},
        {"num_labels": 1000, "id2label": None, "label2id": None},
        {"gates": {"units": ["qk", "conv"], "ste": False, "initial_drop_rate": 0.5}},
        {"torch_dtype": "bfloat16"},
        {"output_attentions": True, "name_or_path": "org/name", "_name_or_path": "org/name", "freeze": 1e9},
    ),
)
def test_values_that_models_have(family, values):
    config = PRUNABLE_CONFIGS[family].from_dict(fields(family) | values)
    assert PRUNABLE_CONFIGS[family].from_dict(config.to_dict()).to_dict() == config.to_dict()


def edit(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def load(road, folder):
    road(folder)


@pytest.mark.parametrize("road", (AutoConfig.from_pretrained, AutoModel.from_pretrained, load_prunable))
@pytest.mark.parametrize(
    ("field", "value"), [("num_attention_heads", 10**9), ("dense_num_hidden_layers", 10**12), ("num_labels", 10**9)]
)
def test_a_small_file_does_not_fill_the_memory(tmp_path, road, field, value):
    tiny_emptied("wavlm", "post").save_pretrained(tmp_path)
    edit(tmp_path, **{field: value})
    outcome = limited(load, road, tmp_path, memory=2**29)
    assert outcome["error"] == "ValueError" and field in outcome["message"]


@pytest.mark.parametrize("field", ("intermediate_size", "num_conv_pos_embeddings", "num_buckets", "hidden_size"))
@pytest.mark.parametrize("is_stock", (False, True))
def test_sizes_are_held_against_the_weights_before_memory_is_made(tmp_path, field, is_stock):
    """The values are within the limits; weights of 2 GiB and more would follow from them."""
    model = tiny_stock("wavlm") if is_stock else tiny_emptied("wavlm", "post")
    model.save_pretrained(tmp_path)
    edit(tmp_path, **{field: 60_000, "max_bucket_distance": 60_000})
    outcome = limited(load, load_prunable, tmp_path, memory=2**29)
    if field == "intermediate_size" and not is_stock:
        # The shape has the widths of each layer, and this field is the original's.
        assert outcome == {"result": None}
    else:
        assert outcome["error"] in ("ValueError", "RuntimeError") and "allocate" not in outcome["message"]


@pytest.mark.parametrize("text", ("[]", "5", '"x"', "{", "", "[" * 3000, "\udcff", '{"model_type": ["wavlm"]}'))
def test_files_that_hold_no_configuration(tmp_path, text):
    tiny_stock("wavlm").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises((ValueError, OSError), match=str(tmp_path)):
        load_prunable(tmp_path)


def load_with_labels(folder):
    load_prunable(folder, "AutoModelForAudioClassification", ignore_mismatched_sizes=True)


def test_a_new_head_may_be_large_but_not_as_large_as_a_machine(tmp_path):
    tiny_stock("wavlm").save_pretrained(tmp_path)
    edit(tmp_path, classifier_proj_size=60_000, num_labels=20_000)
    outcome = limited(load_with_labels, tmp_path, memory=2**30)
    assert outcome["error"] == "ValueError"
    assert "asks for 1,201,520,000 weights that are not in the checkpoint" in outcome["message"]
