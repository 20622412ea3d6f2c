"""The inference benchmark at tiny size: cases, ratios, and files."""

import json

import pytest
import torch
from matplotlib.image import imread

from benchmarks import inference
from benchmarks.compared_models import compared_models
from benchmarks.inference import Case, InferenceArguments, plan_cases, summarize
from tests.helpers.tiny_shapes import ROWS, TINY, tiny_shape


def test_a_run_writes_every_case_of_every_model(shapes_dir, tmp_path, command):
    options = ("--seconds", 0.1, 0.2, "--batch_sizes", 1, 3, "--threads", 1, "--repetitions", 2, "--padded")
    command("--output_dir", tmp_path, "--model", TINY, "--shapes_dir", shapes_dir, *options)
    inference.main()
    name = f"inference-{TINY}-cpu-float32"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.json", f"{name}.md", f"{name}.png"]
    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert shapes_dir not in json.dumps(result)
    assert (result["model"], result["dtype"], result["compile"], result["repetitions"]) == (TINY, "float32", False, 2)
    assert "1 thread" in result["cases"][0]["machine"] and "torch" in result["versions"]
    cases = {case["name"]: case for case in result["cases"]}
    batches = ("0.1 s", "0.2 s", "3 x 0.1 s", "3 x 0.2 s", "3 x 0.1 s, padded", "3 x 0.2 s, padded")
    assert list(cases) == [f"{batch}, 1 thread" for batch in batches]
    for case in cases.values():
        assert list(case["models"]) == ROWS
        for row in case["models"].values():
            assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0
            first, third = row["speedup_quartiles"]
            assert first <= row["speedup"] <= third
            assert row["speedup_per_mac_ratio"] == pytest.approx(row["speedup"] / row["mac_ratio"])
        assert case["models"]["stock"]["speedup"] == case["models"]["dense"]["mac_ratio"] == 1
    macs = [cases[f"{batch}, 1 thread"]["models"][ROWS[3]]["macs"] for batch in batches[1:4:2]]
    assert macs[1] == 3 * macs[0]
    table = (tmp_path / f"{name}.md").read_text()
    assert table.count("| stock | ") == 6 and "## 3 x 0.1 s, padded, 1 thread" in table
    assert f"| {ROWS[4]} | " in table and "Measured on: " in table
    assert imread(tmp_path / f"{name}.png").std() > 0.03


def test_ratios_are_taken_round_by_round():
    stock, dense, _, ragged, _ = compared_models([tiny_shape()])
    rounds = [{ROWS[0]: 4.0, ROWS[3]: 2.0}, {ROWS[0]: 40.0, ROWS[3]: 10.0}, {ROWS[0]: 4.0, ROWS[3]: 4.0}]
    rows = summarize([stock, ragged], Case(1.0, 2, 1), rounds)
    row = rows[ROWS[3]]
    assert (row["median_seconds"], row["speedup"], row["speedup_quartiles"]) == (4.0, 2.0, [1.5, 3.0])
    assert row["mac_ratio"] == dense.macs(1.0) / ragged.macs(1.0) > 1
    assert row["speedup_per_mac_ratio"] == pytest.approx(2 / row["mac_ratio"])
    assert summarize([stock], Case(1.0, 2, 1), rounds[:1])["stock"]["speedup_quartiles"] == [1.0, 1.0]


def test_cases():
    options = InferenceArguments("out", seconds=[1.0, 10.0], batch_sizes=[1, 4], threads=[1, 2], padded=True)
    names = [case.name for case in plan_cases(options)]
    of_one_thread = ["1 s", "10 s", "4 x 1 s", "4 x 10 s", "4 x 1 s, padded", "4 x 10 s, padded"]
    assert names == [f"{name}, {threads}" for threads in ("1 thread", "2 threads") for name in of_one_thread]
    options.device = "cuda"
    assert len(plan_cases(options)) == 6
    assert Case(10.0, 3, 1, padded=True).clip_seconds == [10.0, 7.5, 5.0]
    assert Case(10.0, 2, 1).clip_seconds == [10.0, 10.0]


def test_compiled_models_are_what_is_timed(shapes_dir, monkeypatch):
    compiled = []

    def compile_model(model, dynamic):
        compiled.append(type(model).__name__)
        return model

    monkeypatch.setattr(torch, "compile", compile_model)
    options = InferenceArguments(
        "out",
        model=TINY,
        shapes_dir=shapes_dir,
        seconds=[0.1],
        batch_sizes=[1],
        threads=[1],
        compile=True,
        repetitions=1,
    )
    (result,) = inference.measure(options)
    assert result["compile"] and compiled == ["WavLMModel"] + 4 * ["PrunableWavLMModel"]
