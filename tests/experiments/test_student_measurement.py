"""Size and fidelity of students, also of those with fewer layers."""

import pytest
import torch

from experiments.student_measurement import measure_at_depth, measure_student
from hf_prunable.pruning.distillation import Distillation
from hf_prunable.pruning.fidelity import measure_fidelity
from tests.helpers.tiny_models import NORM_ORDERS, tiny_inputs, tiny_prunable


@pytest.fixture
def batches():
    return [{"input_values": tiny_inputs(seed=seed, padded=False)["input_values"]} for seed in (0, 1)]


def test_a_student_of_the_same_depth(batches):
    teacher, student = (tiny_prunable("wavlm", seed=seed) for seed in (0, 1))
    result = measure_student(student, teacher, batches)
    expected = measure_fidelity(student, teacher, batches)
    assert result["loss"] == expected.distillation_loss and result["cosine"] == expected.cosine
    assert result["sparsity"] == 0 and result["macs"] > 0
    assert measure_student(teacher, teacher, batches)["loss"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
def test_a_shallower_student_is_compared_at_relative_depths(norm_order, batches):
    teacher = tiny_prunable("wavlm", norm_order, num_hidden_layers=6)
    student = tiny_prunable("wavlm", norm_order, seed=1, num_hidden_layers=2)
    fidelity = measure_at_depth(student, teacher, batches)
    # Of equal batches, the mean over batches is that over frames.
    distillation = Distillation(teacher, student.config, projections="none")
    with torch.no_grad():
        losses = [float(distillation(student, batch["input_values"])) for batch in batches]
    assert fidelity.distillation_loss == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert len(fidelity.cosine) == 3


def test_the_teacher_is_not_changed(batches):
    teacher = tiny_prunable("hubert", num_hidden_layers=4)
    measure_at_depth(tiny_prunable("hubert", num_hidden_layers=1), teacher, batches)
    assert teacher.config.num_hidden_layers == 4 and len(teacher.encoder.layers) == 4
