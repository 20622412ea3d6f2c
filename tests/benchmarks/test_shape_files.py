"""Shape files of the benchmarks: how they are written, read and chosen."""

import json

import pytest

from benchmarks.shape_files import ShapeFile, load_shapes
from tests.helpers.tiny_shapes import TINY, tiny_shape


def test_shapes_are_chosen_by_name(tmp_path):
    for name in ("a", "b"):
        tiny_shape(name).save(tmp_path)
    tiny_shape("c", model="other").save(tmp_path)
    assert [shape.name for shape in load_shapes(TINY, folder=tmp_path)] == [f"a-{TINY}", f"b-{TINY}"]
    assert load_shapes(TINY, ["b", f"a-{TINY}"], tmp_path) == [tiny_shape("b"), tiny_shape("a")]
    with pytest.raises(ValueError, match=f"no shape c-{TINY} of {TINY}; choose from a-{TINY}, b-{TINY}"):
        load_shapes(TINY, ["c"], tmp_path)
    with pytest.raises(ValueError, match=f"'nothing' in .*; choose from other, {TINY}"):
        load_shapes("nothing", folder=tmp_path)


def test_what_is_no_shape_is_refused(tmp_path):
    path = tiny_shape().save(tmp_path)
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "conv_channels": [5, 99, 20]}))
    with pytest.raises(ValueError, match="between 1 and all"):
        ShapeFile.load(path)
    path.write_text(json.dumps({name: value for name, value in values.items() if name != "target"}))
    with pytest.raises(ValueError, match="no shape of a benchmark.*target.*make_shapes"):
        ShapeFile.load(path)
