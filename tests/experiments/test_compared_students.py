"""Students of the comparison: sizes, shapes, weights and numbers of steps."""

import numpy as np
import pytest

from experiments.compared_students import STUDENTS, uniform_shape
from hf_prunable import PrunableWavLMConfig, compact
from hf_prunable.pruning.arguments import PruningTrainingArguments


TARGET = 0.5


@pytest.mark.parametrize("row", STUDENTS)
def test_every_student_has_the_size_asked_for(row, teacher):
    student = STUDENTS[row].make(teacher, TARGET)
    assert (student.config.gates is not None) == STUDENTS[row].learns_gates
    if STUDENTS[row].learns_gates:
        student = compact(student, TARGET)
    size = (1 - TARGET) * student.config.dense_num_parameters
    # Within less than one intermediate unit of two times 24 weights and a bias.
    assert size - 49 < student.num_parameters() <= size
    assert student.dtype.is_floating_point and student.dtype.itemsize == 4


def test_uniform_width_keeps_the_largest_weights_of_each_head(teacher):
    student = STUDENTS["uniform_width"].make(teacher, TARGET)
    layers = student.config.shape.layers
    assert len({layer.attention for layer in layers}) == 1
    widths = layers[0].attention
    assert widths.heads == (0, 1, 2, 3)
    assert len({*widths.query_key, *widths.value_output}) == 1
    intermediates = [layer.intermediate for layer in layers]
    assert intermediates == sorted(intermediates, reverse=True)
    assert intermediates[0] - intermediates[-1] <= 1
    assert widths.query_key[0] / 6 == pytest.approx(intermediates[0] / 160, abs=1 / 6)
    dense = STUDENTS["learned"].make(teacher, TARGET).encoder.layers[1].feed_forward
    norms = dense.output_dense.weight.norm(dim=0)
    kept = norms.topk(intermediates[1]).indices.sort().values
    small = student.encoder.layers[1].feed_forward.output_dense.weight
    np.testing.assert_array_equal(small.detach(), dense.output_dense.weight[:, kept].detach())


def test_from_scratch_has_the_uniform_shape_and_no_weight_of_the_teacher(teacher):
    shaped, fresh = (STUDENTS[row].make(teacher, TARGET) for row in ("uniform_width", "from_scratch"))
    assert fresh.config.shape == shaped.config.shape
    ours, theirs = fresh.state_dict(), shaped.state_dict()
    assert ours.keys() == theirs.keys()
    assert not any(ours[name].equal(theirs[name]) for name in ours)


def test_uniform_shape_refuses_what_cannot_be_met(teacher):
    config = PrunableWavLMConfig.from_pretrained(teacher)
    with pytest.raises(ValueError, match="0.99.*Ask for less"):
        uniform_shape(config, 0.99)


@pytest.mark.parametrize("row", STUDENTS)
def test_every_student_trains_for_the_same_number_of_steps(row, tmp_path):
    student = STUDENTS[row]
    given = PruningTrainingArguments(output_dir=str(tmp_path), max_steps=60, final_steps=40, learning_rate=0.5)
    training = student.training(given, None)
    assert (training.max_steps if student.learns_gates else 0) + training.final_steps == 100
    assert bool(training.final_steps) == student.trains_on
    if not student.learns_gates:
        assert training.final_learning_rate == 0.5
        assert student.training(given, 0.1).final_learning_rate == 0.1
    assert (given.max_steps, given.final_steps) == (60, 40)
