"""The training benchmark at tiny size."""

import json

import torch

from benchmarks import training
from benchmarks.compared_models import ComparedModel
from hf_prunable.pruning.arguments import PruningTrainingArguments
from tests.helpers.tiny_shapes import ROWS, TINY, tiny_shape


def test_training_steps_of_stock_dense_and_shapes(shapes_dir, tmp_path, monkeypatch, command):
    gates = {"units": ["qk"], "family": "wavlm", "overhead": 0.1, "pairs": 2, "machine": ""}
    gates |= {"median_seconds_with_gates": 1.1, "median_seconds_without_gates": 1.0}
    asked = []
    monkeypatch.setattr(training, "measure_gates", lambda options, _: asked.append(options) or gates)
    options = ("--batch_size", 2, "--seconds", 0.1, "--rounds", 2, "--learning_rate", 0.1, "--report_to", "none")
    command("--output_dir", tmp_path, "--model", TINY, "--shapes_dir", shapes_dir, *options)
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
