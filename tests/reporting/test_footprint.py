"""Size of models on disk and in memory."""

import json
import sys

import pytest
from safetensors.torch import load_file, save_file

from hf_prunable.reporting import footprint
from hf_prunable.reporting.footprint import (
    Footprint,
    WeightFiles,
    footprint_rows,
    memory_note,
    peak_memory,
    weight_files,
)
from tests.helpers.tiny_models import tiny_prunable


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_prunable("wavlm").save_pretrained(folder)
    return folder


def test_files_of_a_checkpoint(folder, tmp_path):
    file = folder / "model.safetensors"
    assert weight_files(str(folder)) == WeightFiles(file.stat().st_size, "float32")
    assert weight_files(str(tmp_path)) is None
    # Two files, one of them in half precision.
    tensors = load_file(file)
    first, *others = tensors
    save_file({first: tensors[first].half()}, tmp_path / "model-00001-of-00002.safetensors")
    index = {first: "model-00001-of-00002.safetensors"} | dict.fromkeys(others, "model-00002-of-00002.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert weight_files(str(tmp_path)) is None
    save_file({name: tensors[name] for name in others}, tmp_path / "model-00002-of-00002.safetensors")
    num_bytes = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert weight_files(str(tmp_path)) == WeightFiles(num_bytes, "float16 and float32")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux")
def test_memory_grows_with_the_clip(folder):
    source = str(folder)
    short, long = (peak_memory([source], num_samples)[source] for num_samples in (800, 320_000))
    # Four heads' position bias for every pair of 1,000 frames, in 4 bytes.
    assert long - short > 4 * 999**2 * 4 > 0


def test_what_cannot_be_measured_is_left_out(folder, monkeypatch):
    def refuse():
        raise OSError("no such file")

    monkeypatch.setattr(footprint, "reset_peak", refuse)
    assert peak_memory([str(folder)], 800) == {}


def test_rows_and_note():
    whole = Footprint(WeightFiles(1_234_567_890, "float16"), 2_000_000, 10.0)
    assert footprint_rows([None, None]) == [] and memory_note([None]) == ""
    assert footprint_rows([None, whole]) == [
        ("Weights, safetensors", "", "1,234.6 MB, float16"),
        ("Peak memory, 10 s clip", "", "2.0 MB"),
    ]
    assert memory_note([None, whole]).startswith("Peak memory is ")
    unmeasured = Footprint(WeightFiles(1, "float32"), None, 10.0)
    assert footprint_rows([unmeasured]) == [("Weights, safetensors", "0.0 MB, float32")]
    assert memory_note([unmeasured]) == ""
