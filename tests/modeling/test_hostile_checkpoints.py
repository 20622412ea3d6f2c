"""Damaged config.json files and headers of weights: no load fills the memory, hangs, or gives other outputs.

Each load is a process of its own with a limit of memory and time.
"""

import copy
import json
import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel

from hf_prunable import load_prunable
from tests.helpers.fresh_processes import ragged
from tests.helpers.limited_process import is_out_of_bounds, limited
from tests.helpers.tiny_models import tiny_inputs, tiny_stock


# What a value is replaced by.
VALUES = [
    *(-(10**9), -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 24, 41, 1000, 10**5, 10**6, 10**8, 10**9, 10**12, 2**63, 10**30),
    *(0.5, -0.5, 1.5, 1e30, math.nan, math.inf, True, False, None, "", "x", "1", "nn", "../x"),
    *([], [0], [-1], [1], [10**9], [1] * 1000, ["x"], [None], [[]], {}, {"x": 1}, {"units": ["bad"]}),
]
# Entries that the stock classes, transformers or this library read where they are present.
MORE_ENTRIES = (
    *(
        "num_labels",
        "torch_dtype",
        "attn_implementation",
        "output_attentions",
        "return_dict",
        "auto_classes",
        "to_dict",
    ),
    *(
        "attribute_map",
        "stock_config_class",
        "has_relative_position_bias",
        "shape",
        "quantization_config",
        "model_type",
    ),
    *("per_layer_config", "fusion_config", "transformers_weights", "adapter_attn_dim", "conv_pos_batch_norm"),
)
# Fields that no weight depends on. Another value that is possible describes another model, whose outputs differ; or, with
# `output_attentions`, asks for an attention implementation that rounds in another order.
FREE = {
    "output_attentions",
    *("layer_norm_eps", "hidden_act", "feat_extract_activation", "conv_stride", "do_stable_layer_norm"),
    *("max_bucket_distance", "num_attention_heads", "heads", "query_key", "value_output"),
}
# Larger than any file here, so that the remainder is any place in it.
POSITIONS = st.integers(0, 2**32 - 1)
ROADS = {"pruned": AutoModel.from_pretrained, "gated": AutoModel.from_pretrained, "stock": load_prunable}


def places(values, path=()):
    """The paths of all values in nested dictionaries and lists, themselves included."""
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from places(value, (*path, key))


def outputs(model):
    with torch.no_grad():
        return model.eval()(**tiny_inputs(batch_size=2, samples=600)).last_hidden_state


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folders of three checkpoints, with the content of their files and their outputs."""
    root = tmp_path_factory.mktemp("original")
    gated = ragged("wavlm")
    gated.attach_gates(("qk", "vo", "int"))
    models = {"pruned": ragged("wavlm"), "gated": gated, "stock": tiny_stock("wavlm")}
    found = {}
    for name, model in models.items():
        model.save_pretrained(root / name)
        found[name] = (root / name, outputs(ROADS[name](root / name)))
    return found


def compare(road, folder, expected):
    """Whether the checkpoint's outputs are the expected ones, in a process of its own."""
    found = outputs(road(folder))
    return found.shape == expected.shape and bool(torch.equal(found, expected))


def try_to_load(kind, checkpoints, folder):
    outcome = limited(compare, ROADS[kind], folder, checkpoints[kind][1])
    assert not is_out_of_bounds(outcome), outcome
    return outcome


@st.composite
def changes(draw):
    """The kind of a checkpoint, and the changes of its config.json as functions of its content."""
    kind = draw(st.sampled_from(sorted(ROADS)))
    positions = draw(st.lists(POSITIONS, min_size=1, max_size=2))
    values = [draw(st.sampled_from(range(len(VALUES)))) for _ in positions]
    actions = [draw(st.sampled_from(("replace", "replace", "replace", "delete", "add"))) for _ in positions]
    entries = [draw(st.sampled_from(MORE_ENTRIES)) for _ in positions]
    return kind, list(zip(positions, values, actions, entries, strict=True))


def changed(config, steps):
    """Applies changes in place and returns the names of the fields that they touched."""
    touched = set()
    for position, value, action, entry in steps:
        if action == "add":
            config[entry] = copy.deepcopy(VALUES[value])
            touched.add(entry)
            continue
        paths = list(places(config))
        if not paths:
            continue
        *path, last = paths[position % len(paths)]
        owner = config
        for key in path:
            owner = owner[key]
        touched |= {key for key in (*path, last) if isinstance(key, str)}
        if action == "delete":
            del owner[last]
        else:
            owner[last] = copy.deepcopy(VALUES[value])
    return touched


def check_config(checkpoints, tmp_path_factory, change):
    kind, steps = change
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(checkpoints[kind][0], folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    touched = changed(config, steps)
    (folder / "config.json").write_text(json.dumps(config))
    outcome = try_to_load(kind, checkpoints, folder)
    if "result" in outcome:
        assert outcome["result"] or touched & FREE, (kind, touched, "other outputs")
    shutil.rmtree(folder)


@given(change=changes())
def test_changed_configurations(checkpoints, tmp_path_factory, change):
    check_config(checkpoints, tmp_path_factory, change)


@pytest.mark.slow
@settings(max_examples=1000)
@given(change=changes())
def test_a_thousand_changed_configurations(checkpoints, tmp_path_factory, change):
    check_config(checkpoints, tmp_path_factory, change)


def check_header(checkpoints, tmp_path_factory, kind, position, value):
    folder = tmp_path_factory.mktemp("flipped")
    shutil.copytree(checkpoints[kind][0], folder, dirs_exist_ok=True)
    content = bytearray((folder / "model.safetensors").read_bytes())
    end = 8 + int.from_bytes(content[:8], "little")
    place = position % end
    content[place] ^= value
    (folder / "model.safetensors").write_bytes(content)
    outcome = try_to_load(kind, checkpoints, folder)
    assert outcome.get("result", True), (kind, place, "other outputs")
    if "error" in outcome:
        assert outcome["error"] in ("ValueError", "OSError", "RuntimeError"), outcome
    shutil.rmtree(folder)


HEADERS = {
    "kind": st.sampled_from(sorted(ROADS)),
    "position": POSITIONS,
    # One bit mostly, and any other byte.
    "value": st.sampled_from([1 << bit for bit in range(8)]) | st.integers(1, 255),
}


@given(**HEADERS)
def test_changed_headers(checkpoints, tmp_path_factory, kind, position, value):
    check_header(checkpoints, tmp_path_factory, kind, position, value)


@pytest.mark.slow
@settings(max_examples=300)
@given(**HEADERS)
def test_three_hundred_changed_headers(checkpoints, tmp_path_factory, kind, position, value):
    check_header(checkpoints, tmp_path_factory, kind, position, value)
