"""Pruning by learned gates as one method: from options to a student at each target."""

import copy

import pytest
import torch

from hf_prunable.modeling.size import UnitCounts
from hf_prunable.pruning.arguments import PruningArguments
from hf_prunable.pruning.gate_pruning import GatePruning
from hf_prunable.pruning.stages import LearnedGates
from hf_prunable.pruning.student import Student
from tests.helpers.tiny_models import randomize_, tiny_emptied, tiny_prunable


class ToyStages:
    """Gates that learn nothing but numbers drawn from their target."""

    def __init__(self, model):
        self.initial_student = Student(model)
        self.seen = []

    def learn_gates(self, student, targets, measure, start_):
        started = copy.deepcopy(student.model)
        start_(started)
        self.seen.append((started, targets, measure))

        class Drawn(LearnedGates):
            def load(self, student):
                return Student(randomize_(copy.deepcopy(student.model), seed=round(100 * self.target)))

        return [Drawn(target, None) for target in targets]


@pytest.mark.parametrize("option", ["target_sparsity", "target_macs"])
def test_a_student_for_each_target(option):
    method = GatePruning(PruningArguments("model", **{option: [0.3, 0.5]}))
    model = tiny_prunable("wavlm")
    method.prepare_(model)
    assert model.config.gates["units"] == ["qk", "vo", "int"]
    before = {name: gate.log_alpha.clone() for name, gate in model.named_gates()}
    stages = ToyStages(model)
    students = dict(method.students(stages))
    assert list(students) == [0.3, 0.5]
    for target, student in students.items():
        config = student.model.config
        assert config.gates is None
        assert target <= method.measure.sparsity(config, UnitCounts.of(config.shape)) < target + 0.03
    ((trained, targets, measure),) = stages.seen
    assert targets == [0.3, 0.5] and measure.option == option
    # The gates that are trained start in the order of the norms, and the dense student's stay.
    assert all(torch.equal(gate.log_alpha, before[name]) for name, gate in model.named_gates())
    assert any(not torch.equal(gate.log_alpha, before[name]) for name, gate in trained.named_gates())


def test_students_of_stock_shapes():
    method = GatePruning(PruningArguments("model", target_sparsity=[0.1, 0.2], stock_shape=True))
    model = tiny_prunable("wavlm")
    method.prepare_(model)
    assert model.config.gates["units"] == ["int"]
    students = dict(method.students(ToyStages(model)))
    for target, student in students.items():
        config = student.model.config
        assert student.model.is_stock and student.gate_sparsity.target == target
        assert target <= method.measure.sparsity(config, UnitCounts.of(config.shape)) < target + 3 * 49 / 20_000


def test_what_no_stock_class_can_express_is_refused_before_training():
    method = GatePruning(PruningArguments("model", target_sparsity=[0.1, 0.5], stock_shape=True))
    with pytest.raises(ValueError, match="is 0.5, and removing all units of the kinds int removes at most"):
        method.prepare_(tiny_prunable("wavlm"))
    method = GatePruning(PruningArguments("model", target_sparsity=[0.9], stock_shape=True))
    with pytest.raises(ValueError, match="A stock class cannot express the present shape"):
        method.prepare_(tiny_emptied("wavlm"))


def test_targets_out_of_reach_are_refused_before_training():
    method = GatePruning(PruningArguments("model", target_sparsity=[0.3, 0.9]))
    with pytest.raises(ValueError, match="is 0.9, and removing all units of the kinds qk, vo, int removes at most"):
        method.prepare_(tiny_prunable("wavlm"))
