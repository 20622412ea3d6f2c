"""A refit after gates or magnitude as the method of a run."""

import copy

import pytest
import torch

from hf_prunable.cli.pruning_methods import make_method
from hf_prunable.modeling.loading import load_complete
from hf_prunable.one_shot.arguments import OneShotArguments
from hf_prunable.one_shot.refitted_method import RefittedMethod
from hf_prunable.pruning.arguments import PruningArguments
from hf_prunable.pruning.objective_arguments import ObjectiveArguments
from tests.one_shot.test_method import FAST, place, start


__all__ = ["place"]
STEPS = {"max_steps": 4, "final_steps": 0, "gate_learning_rate": 0.5, "per_device_train_batch_size": 2}


def method_of(method, refit, **options):
    options = {"target_sparsity": [0.3], "refit": refit, **options}
    return make_method(PruningArguments("model", method=method, **options), OneShotArguments(**FAST), 3)


@pytest.mark.parametrize("name", ["gates", "magnitude"])
def test_a_refit_keeps_the_shape_and_comes_nearer_to_the_teacher(place, tmp_path, name):
    found = {}
    for refit in (False, True):
        method = method_of(name, refit)
        assert isinstance(method, RefittedMethod) == refit
        stages = start(method, place, tmp_path / str(refit), **STEPS)
        ((target, student),) = method.students(stages)
        assert target == 0.3 and (method.calibration is None) != refit
        found[refit] = student.model.config.shape, stages.fidelity(student.model, load_complete(place / "dense"))
    assert found[True][0] == found[False][0]
    assert found[True][1].distillation_loss < 0.9 * found[False][1].distillation_loss


def test_the_dense_student_stays_as_it_is(place, tmp_path):
    method = method_of("magnitude", True)
    stages = start(method, place, tmp_path / "run", **STEPS)
    before = copy.deepcopy(stages.initial_student.model.state_dict())
    dict(method.students(stages))
    after = stages.initial_student.model.state_dict()
    assert all(torch.equal(tensor, before[key]) for key, tensor in after.items())


def test_the_plan_names_the_refit(place):
    stage = method_of("magnitude", True).first_stage(None)
    assert stage.name.endswith("equal widths in all layers, then refit with statistics of 6 clips of 0.05 s")
    assert stage.num_steps == 0


def test_a_refit_needs_a_teacher(place, tmp_path):
    objective = ObjectiveArguments("task", task="classification")
    with pytest.raises(ValueError, match="`refit` brings hidden states back .* objective 'task' has no teacher"):
        start(method_of("gates", True), place, tmp_path / "run", None, objective, **STEPS)
