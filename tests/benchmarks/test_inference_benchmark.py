"""The benchmarks of inference, training steps and start-up at tiny size: what is run, and what their results hold."""

import importlib
import json
import os
import sys
from types import ModuleType

import pytest
import torch
from matplotlib.image import imread

from benchmarks import __main__ as entry
from benchmarks import inference, process_memory, startup, training
from benchmarks.compared_models import ComparedModel, compared_models
from benchmarks.inference import Case, InferenceArguments, plan_cases, summarize
from benchmarks.startup import StartupArguments
from hf_prunable.modeling.gated import GatedLinear
from hf_prunable.pruning.training_arguments import PruningTrainingArguments
from tests.helpers.tiny_shapes import TINY, tiny_shape


ROWS = ["stock", "dense", "dense prepared", f"ragged-{TINY}", f"ragged-{TINY} prepared"]


@pytest.fixture(scope="module")
def shapes_dir(tmp_path_factory):
    """A folder with one shape of a tiny model."""
    folder = tmp_path_factory.mktemp("shapes")
    tiny_shape().save(folder)
    return str(folder)


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])


def test_stock_dense_and_shapes_in_both_modes():
    models = compared_models([tiny_shape()])
    assert [model.name for model in models] == ROWS
    stock, dense, prepared, ragged, _ = (model.build() for model in models)
    assert type(stock).__module__.startswith("transformers.") and type(dense).__name__ == "PrunableWavLMModel"
    assert not any(isinstance(module, GatedLinear) for module in prepared.modules())
    for built, model in zip((stock, dense, ragged), (models[0], models[1], models[3]), strict=True):
        assert built.num_parameters() == model.num_parameters and not built.training
    assert models[1].num_parameters > 1.5 * models[3].num_parameters
    assert models[1].macs(1.0, 4) == 4 * models[1].macs(1.0) > 4 * models[3].macs(1.0)
    state = torch.get_rng_state()
    again = models[3].build("bfloat16")
    assert torch.equal(torch.get_rng_state(), state) and again.dtype == torch.bfloat16
    assert torch.equal(
        again.feature_projection.projection.weight, ragged.feature_projection.projection.weight.bfloat16()
    )


def test_a_run_writes_every_case_of_every_model(shapes_dir, tmp_path, monkeypatch):
    options = ("--seconds", 0.1, 0.2, "--batch_sizes", 1, 3, "--threads", 1, "--repetitions", 2, "--padded")
    command(monkeypatch, "--output_dir", tmp_path, "--model", TINY, "--shapes_dir", shapes_dir, *options)
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
    with pytest.raises(ValueError, match="'int8'; choose from float32, bfloat16"):
        InferenceArguments("out", dtype="int8")


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


def test_startup_at_tiny_size(shapes_dir, tmp_path, monkeypatch):
    for statement in startup.import_statements().values():
        exec(statement, {})
    assert "WavLMForXVector" in startup.import_statements()["transformers"]
    # Each process would import torch anew.
    monkeypatch.setattr(startup, "import_statements", lambda: {"a": "import json", "b": "import math"})
    monkeypatch.setattr(startup, "in_fresh_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(startup, "FIRST_SECONDS", 0.1)
    options = ("--memory_seconds", 0.2, "--repetitions", 2)
    command(monkeypatch, "--output_dir", tmp_path, "--model", TINY, "--shapes_dir", shapes_dir, *options)
    startup.main()
    result = json.loads((tmp_path / f"startup-{TINY}-cpu-float32.json").read_text())
    assert list(result["imports"]) == ["a", "b"] and len(result["imports"]["a"]["seconds"]) == 2
    assert list(result["loading"]) == [ROWS[0], ROWS[1], ROWS[3]] and list(result["memory"]) == ROWS
    assert all(len(row["runs"]) == 2 and row["median_seconds"] > 0 for row in result["loading"].values())
    weights = {name: row["weight_bytes"] for name, row in result["memory"].items()}
    assert weights["stock"] == weights["dense"] == 4 * compared_models([tiny_shape()])[0].num_parameters
    assert weights[ROWS[3]] < weights["dense"]
    table = (tmp_path / f"startup-{TINY}-cpu-float32.md").read_text()
    assert "| model | weights, MiB | forward pass, 0.2 s clip, MiB |" in table and f"| {ROWS[4]} | " in table


def test_memory_of_a_forward_pass_grows_with_the_clip():
    # Here, memory that other tests have freed would be used again.
    model = ComparedModel("dense", tiny_shape().prunable_config(dense=True))
    short, long = (
        process_memory.in_fresh_process(startup.forward_memory, model, StartupArguments("out", memory_seconds=seconds))
        for seconds in (0.1, 1.0)
    )
    # Four heads' position bias for every pair of 800 frames, in 4 bytes.
    assert long["forward_bytes"] > 4 * 800**2 * 4
    assert long["forward_bytes"] > short["forward_bytes"] >= 0


def test_a_fresh_process_is_another_one():
    environment = dict(os.environ)
    assert process_memory.in_fresh_process(os.getpid) != os.getpid()
    found = process_memory.in_fresh_process(os.getenv, process_memory.MMAP_VARIABLE)
    assert found == process_memory.MMAP_THRESHOLD and os.environ == environment


def test_training_steps_of_stock_dense_and_shapes(shapes_dir, tmp_path, monkeypatch):
    gates = {"units": ["qk"], "family": "wavlm", "overhead": 0.1, "pairs": 2, "machine": ""}
    gates |= {"median_seconds_with_gates": 1.1, "median_seconds_without_gates": 1.0}
    asked = []
    monkeypatch.setattr(training, "measure_gates", lambda options, _: asked.append(options) or gates)
    options = ("--batch_size", 2, "--seconds", 0.1, "--rounds", 2, "--learning_rate", 0.1, "--report_to", "none")
    command(monkeypatch, "--output_dir", tmp_path, "--model", TINY, "--shapes_dir", shapes_dir, *options)
    training.main()
    assert (asked[0].family, asked[0].batch_size, asked[0].seconds, asked[0].pairs) == ("wavlm", 2, 0.1, 2)
    result = json.loads((tmp_path / f"training-{TINY}-cpu.json").read_text())
    assert list(result["fine_tuning"]) == [ROWS[0], ROWS[1], ROWS[3]]
    for row in result["fine_tuning"].values():
        assert len(row["seconds"]) == 2 and row["median_seconds"] > 0 and row["speedup"] > 0
    assert result["fine_tuning"]["stock"]["speedup"] == 1
    table = (tmp_path / f"training-{TINY}-cpu.md").read_text()
    assert f"| {ROWS[3]} | " in table and "1.100 s, 1.000 s without, +10.0% (median of 2 pairs)" in table


def test_a_training_step_trains(tmp_path):
    arguments = PruningTrainingArguments(output_dir=str(tmp_path), learning_rate=0.1)
    model = ComparedModel("ragged", tiny_shape().prunable_config())
    step = training.FineTuningStep(model, training.StepArguments(batch_size=2, seconds=0.1), arguments)
    before = step.model.encoder.layers[0].attention.v_proj.weight.clone()
    assert step() > 0
    assert not torch.equal(step.model.encoder.layers[0].attention.v_proj.weight, before)
    assert all(parameter.grad is None for parameter in step.model.parameters())


def test_benchmarks_by_name(monkeypatch, capsys):
    called = []
    fake = ModuleType("benchmarks.inference")
    fake.main = lambda: called.append(sys.argv)
    monkeypatch.setitem(sys.modules, "benchmarks.inference", fake)
    command(monkeypatch, "inference", "--seconds", 1)
    entry.main()
    assert called == [["python -m benchmarks inference", "--seconds", "1"]]
    for arguments, message in (((), "Give the name"), (("speed",), "no benchmark 'speed'")):
        command(monkeypatch, *arguments)
        with pytest.raises(SystemExit, match=f"{message}.*inference, training, startup, convexity"):
            entry.main()
    command(monkeypatch, "--help")
    entry.main()
    assert "inference, training, startup, convexity" in capsys.readouterr().out
    for module in entry.BENCHMARKS.values():
        assert callable(importlib.import_module(f"benchmarks.{module}").main)
