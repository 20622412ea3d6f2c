"""The benchmark of gates at tiny size."""

import json

import pytest

from benchmarks import step_overhead
from benchmarks.step_overhead import OverheadArguments, Step
from hf_prunable.pruning.arguments import PruningTrainingArguments
from tests.helpers.tiny_shapes import tiny_fields


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch):
    fields = {name: value for name, value in tiny_fields().items() if name != "model_type"}
    monkeypatch.setattr(step_overhead, "NOISE_OFF", fields | step_overhead.NOISE_OFF)


def test_steps_train_with_and_without_gates(tmp_path):
    training = PruningTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    options = OverheadArguments(batch_size=2, seconds=0.1)
    gated, ungated = Step(options, training, options.units), Step(options, training, [])
    assert {name.split(".")[-1] for name, _ in gated.student.named_gates()} == {*options.units}
    assert not list(ungated.student.named_gates())
    gates = {name: gate.log_alpha.detach().clone() for name, gate in gated.student.named_gates()}
    weight = ungated.student.encoder.layers[0].attention.v_proj.weight.detach().clone()
    for step in (gated, ungated, gated, ungated):
        assert step() > 0
    assert any(not gate.log_alpha.equal(gates[name]) for name, gate in gated.student.named_gates())
    assert not ungated.student.encoder.layers[0].attention.v_proj.weight.equal(weight)


def test_a_run_writes_the_overhead(tmp_path, command):
    command(*f"--output_dir {tmp_path} --batch_size 1 --seconds 0.1 --pairs 2 --use_cpu --report_to none".split())
    step_overhead.main()
    result = json.loads((tmp_path / "step_overhead_wavlm.json").read_text())
    ratios = sorted(with_gates / without for with_gates, without in result["seconds_with_and_without_gates"])
    assert len(ratios) == 2 and result["overhead"] == pytest.approx(sum(ratios) / 2 - 1)
    text = (tmp_path / "step_overhead_wavlm.md").read_text()
    assert f"{result['overhead']:+.1%} (median of 2 pairs)." in text and "Steps of 1 x 0.1 s." in text
