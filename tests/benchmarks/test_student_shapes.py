"""Shape files of checkpoints: ragged and stock shapes side by side."""

import pytest

from benchmarks import student_shapes
from benchmarks.compared_models import compared_models
from benchmarks.shape_files import load_shapes
from hf_prunable import compact
from hf_prunable.pruning.magnitude import keep_largest_weights
from tests.helpers.fresh_processes import ragged
from tests.helpers.tiny_models import FAMILIES, tiny_prunable


@pytest.mark.parametrize("family", FAMILIES)
def test_ragged_and_stock_checkpoints_become_rows_of_a_benchmark(family, tmp_path, command):
    dense = tiny_prunable(family)
    students = {"ragged": ragged(family), "stock": keep_largest_weights(dense, 0.1, stock_shape=True)}
    for name, model in {"tiny": dense, **students}.items():
        model.save_pretrained(tmp_path / name)
    folders = [tmp_path / name for name in students]
    command("--dense", tmp_path / "tiny", "--students", *folders, "--output_dir", tmp_path / "shapes")
    student_shapes.main()
    shapes = {shape.name: shape for shape in load_shapes("tiny", folder=tmp_path / "shapes")}
    assert list(shapes) == ["ragged-tiny", "stock-tiny"]
    assert shapes["stock-tiny"].units == ["int"] and 0.1 <= shapes["stock-tiny"].target < 0.11
    assert shapes["ragged-tiny"].units == ["qk", "vo", "int", "conv"]
    assert str(tmp_path) not in (tmp_path / "shapes" / "stock-tiny.json").read_text()
    rows = {model.name: model for model in compared_models(list(shapes.values()))}
    for name, model in students.items():
        assert rows[f"{name}-tiny"].num_parameters == model.num_parameters()
        built = (rows[f"{name}-tiny"].build(), rows[f"{name}-tiny prepared"].build())
        classes = [type(each).__name__ for each in built]
        prunable, stock = type(model).__name__, model.stock_class.__name__
        assert classes == [stock if name == "stock" else prunable, prunable]
        assert built[0].num_parameters() == model.num_parameters()
    assert rows["stock"].num_parameters == rows["dense"].num_parameters == dense.num_parameters()


def test_students_of_another_model_are_refused(tmp_path):
    tiny_prunable("wavlm", intermediate_size=39).save_pretrained(tmp_path / "dense")
    compact_model = tiny_prunable("wavlm")
    compact_model.attach_gates(("vo",))
    compact(compact_model).save_pretrained(tmp_path / "student")
    with pytest.raises(ValueError, match="`intermediate` must be in 0..39"):
        student_shapes.student_shape(str(tmp_path / "student"), str(tmp_path / "dense"))
