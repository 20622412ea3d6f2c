"""The shape: what config.json stores, and what is refused."""

import json
from dataclasses import replace

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError
from hypothesis import given

from hf_prunable import AttentionShape, LayerShape, PrunedShape
from hf_prunable.modeling.shape import FORMAT_VERSION
from tests.helpers.tiny_models import FAMILIES, pruned_shapes, tiny_config


CONFIG = tiny_config("wavlm", num_hidden_layers=4)
DENSE = PrunedShape.dense(CONFIG)


def with_layer(number, **changes):
    layers = list(DENSE.layers)
    layers[number] = replace(layers[number], **changes)
    return replace(DENSE, layers=tuple(layers))


def with_attention(heads, query_key, value_output):
    return with_layer(2, attention=AttentionShape(heads, query_key, value_output))


@given(pruned_shapes(CONFIG))
def test_round_trip_through_json(shape):
    shape.validate(CONFIG)
    values = json.loads(json.dumps(shape.to_dict()))
    assert values == shape.to_dict()
    read = PrunedShape.from_dict(values)
    assert read == shape and hash(read) == hash(shape)
    assert read.is_dense(CONFIG) == (shape == DENSE)


def test_stored_form():
    layers = (
        LayerShape(AttentionShape((1, 3), (0, 6), (2, 1)), 40),
        LayerShape(AttentionShape((), (), ()), 0),
        LayerShape(None, None),
    )
    assert PrunedShape((3, 16, 20), layers).to_dict() == {
        "format_version": 1,
        "conv_channels": [3, 16, 20],
        "layers": [
            {"attention": {"heads": [1, 3], "query_key": [0, 6], "value_output": [2, 1]}, "intermediate": 40},
            {"attention": {"heads": [], "query_key": [], "value_output": []}, "intermediate": 0},
            {"attention": None, "intermediate": None},
        ],
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_dense(family):
    config = tiny_config(family)
    shape = PrunedShape.dense(config)
    assert shape.conv_channels == (12, 16, 20)
    assert shape.layers == (LayerShape(AttentionShape((0, 1, 2, 3), (6,) * 4, (6,) * 4), 40),) * 3
    shape.validate(config)
    assert shape.is_dense(config)
    assert not shape.is_dense(tiny_config(family, num_hidden_layers=4))
    assert not shape.is_dense(tiny_config(family, intermediate_size=41))
    assert not shape.is_dense(tiny_config(family, conv_dim=(12, 17, 20)))


def test_first_layers():
    shape = with_layer(1, intermediate=7)
    assert shape.first_layers(2) == PrunedShape(shape.conv_channels, shape.layers[:2])
    assert shape.first_layers(4) == shape
    shape.first_layers(2).validate(tiny_config("wavlm", num_hidden_layers=2))


def test_position_bias_heads_live_in_any_layer():
    empty = LayerShape(AttentionShape((), (), ()), 3)
    gone = LayerShape(None, 3)

    def layer(*heads):
        return LayerShape(AttentionShape(heads, (0,) * len(heads), (1,) * len(heads)), 3)

    assert PrunedShape((1,), (gone, layer(3), empty, layer(1, 3))).position_bias_heads == (1, 3)
    assert PrunedShape((1,), (gone, empty)).position_bias_heads == ()
    assert DENSE.position_bias_heads == (0, 1, 2, 3)
    assert gone.heads == empty.heads == ()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (DENSE.first_layers(3), r"has 3 layers, but `num_hidden_layers` is 4"),
        (replace(DENSE, conv_channels=(12, 16)), r"between 1 and all of \[12, 16, 20\] channels, but are \[12, 16\]"),
        (replace(DENSE, conv_channels=(0, 16, 20)), r"between 1 and all of .*but are \[0, 16, 20\]"),
        (replace(DENSE, conv_channels=(12, 17, 20)), r"between 1 and all of .*but are \[12, 17, 20\]"),
        (replace(DENSE, conv_channels=()), r"between 1 and all of .*but are \[\]"),
        (replace(DENSE, conv_channels=(12, 16, 19)), r"last convolution cannot be pruned: it has 19 of 20"),
        (with_attention((0, 1), (6,), (6, 6)), r"Layer 2: .* have 2, 1 and 2 entries"),
        (with_attention((0, 1), (6, 6), (6, 6, 6)), r"Layer 2: .* have 2, 2 and 3 entries"),
        (with_attention((1, 0), (6, 6), (6, 6)), r"Layer 2: `heads` must be ascending numbers in 0\.\.3"),
        (with_attention((1, 1), (6, 6), (6, 6)), r"`heads` must be ascending .* but are \[1, 1\]"),
        (with_attention((3, 4), (6, 6), (6, 6)), r"`heads` must be ascending .* but are \[3, 4\]"),
        (with_attention((-1, 0), (6, 6), (6, 6)), r"`heads` must be ascending .* but are \[-1, 0\]"),
        (with_attention((0,), (7,), (6,)), r"Layer 2: `query_key` widths must be in 0\.\.6, but are \[7\]"),
        (with_attention((0,), (-1,), (6,)), r"`query_key` widths must be in 0\.\.6, but are \[-1\]"),
        (with_attention((0,), (6,), (7,)), r"Layer 2: `value_output` widths must be in 1\.\.6, but are \[7\]"),
        (with_attention((0,), (6,), (0,)), r"`value_output` widths .*leave it out of `heads`"),
        (with_layer(3, intermediate=41), r"Layer 3: `intermediate` must be in 0\.\.40 or null, but is 41"),
        (with_layer(3, intermediate=-1), r"Layer 3: `intermediate` must be in 0\.\.40 or null, but is -1"),
    ],
)
def test_impossible_shapes_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        shape.validate(CONFIG)
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        tiny_config("wavlm", prunable=True, num_hidden_layers=4, pruned_shape=shape.to_dict())


def dictionary(**changes):
    return {**DENSE.to_dict(), **changes}


def layer_dictionary(**attention):
    dense = DENSE.to_dict()["layers"][0]
    return dictionary(layers=[{**dense, "attention": {**dense["attention"], **attention}}])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, r"must be a mapping, but is NoneType"),
        ([1], r"must be a mapping, but is list"),
        ({}, r"needs a `format_version` of at least 1, but has None"),
        (dictionary(format_version="1"), r"needs a `format_version` of at least 1, but has '1'"),
        (dictionary(format_version=0), r"needs a `format_version` of at least 1, but has 0"),
        (dictionary(format_version=True), r"needs a `format_version` of at least 1, but has True"),
        (dictionary(format_version=1.0), r"needs a `format_version` of at least 1, but has 1\.0"),
        (dictionary(format_version=FORMAT_VERSION + 1), r"format version 2, .* reads up to 1\. Upgrade with `pip"),
        ({"format_version": 1, "layers": []}, r"cannot be read: KeyError\('conv_channels'\)"),
        ({"format_version": 1, "conv_channels": [1]}, r"cannot be read: KeyError\('layers'\)"),
        (dictionary(layers=[{"attention": None}]), r"cannot be read: KeyError\('intermediate'\)"),
        (dictionary(layers=[{"intermediate": None}]), r"cannot be read: KeyError\('attention'\)"),
        (dictionary(layers=[{"attention": {"heads": []}, "intermediate": 1}]), r"KeyError\('query_key'\)"),
        (dictionary(layers=None), r"cannot be read: TypeError"),
        (dictionary(layers=[None]), r"cannot be read: TypeError"),
        (dictionary(layers=[{"attention": 3, "intermediate": 1}]), r"cannot be read: TypeError"),
        (dictionary(conv_channels=3), r"cannot be read: TypeError"),
        (dictionary(conv_channels=[12, 16.0, 20]), r"expected whole numbers, got \[12, 16\.0, 20\]"),
        (dictionary(conv_channels=[True, 16, 20]), r"expected whole numbers, got \[True, 16, 20\]"),
        (dictionary(conv_channels="12"), r"expected whole numbers, got '12'"),
        (dictionary(layers=[{"attention": None, "intermediate": True}]), r"expected whole numbers, got \[True\]"),
        (dictionary(layers=[{"attention": None, "intermediate": 3.0}]), r"expected whole numbers, got \[3\.0\]"),
        (layer_dictionary(heads=[False, True, 2, 3]), r"expected whole numbers, got \[False, True, 2, 3\]"),
        (layer_dictionary(query_key=[6.0] * 4), r"expected whole numbers, got \[6\.0, 6\.0, 6\.0, 6\.0\]"),
        (layer_dictionary(value_output=[6, 6, 6, None]), r"expected whole numbers, got \[6, 6, 6, None\]"),
    ],
)
def test_unreadable_dictionaries_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PrunedShape.from_dict(values)
