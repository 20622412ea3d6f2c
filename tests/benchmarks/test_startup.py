"""The start-up benchmark at tiny size."""

import json

from benchmarks import process_memory, startup
from benchmarks.compared_models import ComparedModel, compared_models
from benchmarks.startup import StartupArguments
from tests.helpers.tiny_shapes import ROWS, TINY, tiny_shape


def test_startup_at_tiny_size(shapes_dir, tmp_path, monkeypatch, command):
    for statement in startup.import_statements().values():
        exec(statement, {})
    assert "WavLMForXVector" in startup.import_statements()["transformers"]
    # Fresh processes would import torch each time.
    monkeypatch.setattr(startup, "import_statements", lambda: {"a": "import json", "b": "import math"})
    monkeypatch.setattr(startup, "in_fresh_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(startup, "FIRST_SECONDS", 0.1)
    options = ("--memory_seconds", 0.2, "--repetitions", 2)
    command("--output_dir", tmp_path, "--model", TINY, "--shapes_dir", shapes_dir, *options)
    startup.main()
    result = json.loads((tmp_path / f"startup-{TINY}-cpu-float32.json").read_text())
    assert list(result["imports"]) == ["a", "b"] and len(result["imports"]["a"]["seconds"]) == 2
    assert list(result["loading"]) == [ROWS[0], ROWS[1], ROWS[3]] and list(result["memory"]) == ROWS
    assert all(len(row["runs"]) == 2 and row["median_seconds"] > 0 for row in result["loading"].values())
    weights = {name: row["weight_bytes"] for name, row in result["memory"].items()}
    assert weights["stock"] == weights["dense"] == 4 * compared_models([tiny_shape()])[0].num_parameters
    assert weights[ROWS[3]] < weights["dense"]
    table = (tmp_path / f"startup-{TINY}-cpu-float32.md").read_text()
    assert "| Model | Weights (MiB) | Forward pass, 0.2 s clip (MiB) |" in table and f"| {ROWS[4]} | " in table


def test_memory_of_a_forward_pass_grows_with_the_clip():
    # In a fresh process, because memory that other tests have freed would be reused.
    model = ComparedModel("dense", tiny_shape().prunable_config(dense=True))
    short, long = (
        process_memory.in_fresh_process(startup.forward_memory, model, StartupArguments("out", memory_seconds=seconds))
        for seconds in (0.1, 1.0)
    )
    # Four heads' position bias for every pair of 800 frames, in 4 bytes.
    assert long["forward_bytes"] > 4 * 800**2 * 4
    assert long["forward_bytes"] > short["forward_bytes"] >= 0
