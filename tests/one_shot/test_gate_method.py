"""Gates that start from statistics as the method of a run."""

import copy

import pytest
import torch

from hf_prunable.cli.pruning_methods import make_method
from hf_prunable.modeling.size import UnitCounts
from hf_prunable.one_shot.arguments import OneShotArguments
from hf_prunable.one_shot.gate_method import GatesFromStatistics
from hf_prunable.pruning.arguments import PruningArguments
from hf_prunable.pruning.objective_arguments import ObjectiveArguments
from tests.helpers.tiny_models import tiny_inputs, tiny_prunable
from tests.one_shot.test_method import FAST, place, start


__all__ = ["place"]
STEPS = {
    "max_steps": 4,
    "final_steps": 0,
    "gate_learning_rate": 0.5,
    "per_device_train_batch_size": 2,
    "logging_steps": 1,
}
AUDIO = tiny_inputs(batch_size=2, samples=800, padded=False)["input_values"]


def method_of(**options):
    options = {"target_sparsity": [0.2, 0.4], **options}
    method = make_method(PruningArguments("model", method="gates", **options), OneShotArguments(**FAST), 3)
    assert isinstance(method, GatesFromStatistics)
    return method


def started(method, stages):
    """The model that the gates are trained on, before its first step."""
    model = copy.deepcopy(stages.initial_student.model)
    method.start_(model, stages)
    return model


@pytest.mark.parametrize("gate_start", ["rotated", "one_shot"])
def test_a_student_for_each_target(place, tmp_path, gate_start):
    method = method_of(gate_start=gate_start)
    stages = start(method, place, tmp_path / "run", **STEPS)
    assert len(method.calibration.waveforms) == 6 and method.calibration.seconds == 0.05
    before = copy.deepcopy(stages.initial_student.model.state_dict())
    students = dict(method.students(stages))
    assert list(students) == [0.2, 0.4]
    for target, student in students.items():
        config = student.model.config
        assert target <= method.measure.sparsity(config, UnitCounts.of(config.shape)) < target + 0.03
        assert student.history
    after = stages.initial_student.model.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_the_starts_differ_only_in_heads_and_gates(place, tmp_path):
    models = {}
    for gate_start in ("rotated", "one_shot"):
        method = method_of(gate_start=gate_start)
        models[gate_start] = started(method, start(method, place, tmp_path / gate_start, **STEPS))
    dense = tiny_prunable("wavlm")
    dense.load_state_dict({k: v for k, v in models["rotated"].state_dict().items() if ".gates." not in k})
    for model in models.values():
        model.detach_gates()
        with torch.no_grad():
            states = (m.eval()(AUDIO).last_hidden_state for m in (model, dense))
            torch.testing.assert_close(*states, rtol=1e-4, atol=1e-5)


def test_an_interrupted_run_goes_on_from_the_learned_gates(place, tmp_path, monkeypatch):
    found, starts = [], []
    start_ = GatesFromStatistics.start_
    monkeypatch.setattr(
        GatesFromStatistics, "start_", lambda *args, **options: starts.append(start_(*args, **options))
    )
    for _ in range(2):
        method = method_of(gate_start="one_shot")
        stages = start(method, place, tmp_path / "run", **STEPS)
        found.append({target: student.model.state_dict() for target, student in method.students(stages)})
        # The second time, no step is made.
        stages.args.max_steps = 0
    for target, state in found[0].items():
        assert all(torch.equal(tensor, found[1][target][name]) for name, tensor in state.items())
    assert len(starts) == 1


def test_without_a_teacher_the_order_is_that_of_the_model_itself(place, tmp_path):
    starts = []
    for teacher in ("dense", None):
        method = method_of(gate_start="one_shot")
        objective = None if teacher else ObjectiveArguments("task", task="classification")
        starts.append(started(method, start(method, place, tmp_path / str(teacher), teacher, objective, **STEPS)))
    for (name, gate), (_, other) in zip(*(model.named_gates() for model in starts), strict=True):
        torch.testing.assert_close(gate.log_alpha, other.log_alpha, msg=name)


def test_the_plan_names_the_start(place):
    names = {}
    for gate_start in ("rotated", "one_shot"):
        method = method_of(gate_start=gate_start)
        names[gate_start] = method.first_stage(type("Arguments", (), STEPS)).name
    audio = "with statistics of 6 clips of 0.05 s"
    assert names == {
        "rotated": f"train gates and weights on rotated heads, {audio}",
        "one_shot": f"train gates and weights in one-shot order, {audio}",
    }


def test_units_without_statistics_are_refused_before_audio_is_read(place):
    with pytest.raises(ValueError, match="gates on head, but statistics order only qk, vo, int, conv"):
        method_of(gate_start="one_shot", prune_units=["head"], target_sparsity=[0.1]).prepare_(tiny_prunable("wavlm"))
    with pytest.raises(ValueError, match="`gate_start` is 'norms'; choose from 'weights', 'rotated', 'one_shot'"):
        PruningArguments("model", gate_start="norms")
