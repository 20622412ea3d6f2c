"""Students of the comparison: sizes, shapes, weights and numbers of steps."""

import pytest
import torch

from experiments.compared_students import DEFAULT_ROWS, ROWS, STUDENTS, TEACHER, Source, row_label
from experiments.one_shot_students import check_rows, load_teacher
from hf_prunable import compact
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.pruning.fidelity import measure_fidelity
from hf_prunable.pruning.student import NOISE_OFF


TARGET = 0.5


@pytest.fixture(scope="module")
def source(teacher):
    return Source(teacher, TARGET, torch.randn(6, 2000, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def students(source):
    """Students of every row before training, and after compaction those with gates."""
    started = {row: student.start(source) for row, student in STUDENTS.items()}
    return {
        row: (model, STUDENTS[row].compaction(model, source) if STUDENTS[row].compaction else model)
        for row, model in started.items()
    }


@pytest.mark.parametrize("row", STUDENTS)
def test_every_student_has_the_size_asked_for(row, students):
    started, student = students[row]
    assert (started.config.gates is not None) == (STUDENTS[row].compaction is not None)
    size = (1 - TARGET) * student.config.dense_num_parameters
    # Within less than one unit of a head, which is larger than an intermediate unit.
    assert size - 150 < student.num_parameters() <= size
    assert student.dtype == torch.float32
    assert all(getattr(student.config, name) == value for name, value in NOISE_OFF.items())


def test_from_scratch_has_the_uniform_shape_and_no_weight_of_the_teacher(students):
    shaped, fresh = (students[row][1] for row in ("magnitude_trained", "from_scratch"))
    assert fresh.config.shape == shaped.config.shape
    ours, theirs = fresh.state_dict(), shaped.state_dict()
    assert ours.keys() == theirs.keys()
    assert not any(ours[name].equal(theirs[name]) for name in ours)


def test_what_statistics_add(students, source):
    batches = [{"input_values": source.clips}]
    teacher = load_teacher(source.teacher)
    losses = {
        row: measure_fidelity(students[row][1], teacher, batches).distillation_loss
        for row in ("one_shot", "gates_scores", "gates_one_shot", "magnitude_refit", "magnitude_trained")
    }
    assert losses["one_shot"] < losses["magnitude_refit"] < losses["magnitude_trained"]
    assert losses["gates_one_shot"] < losses["gates_scores"]


def test_gates_that_are_cut_as_they_start_have_the_one_shot_shape(students, source):
    started, _ = students["gates_scores"]
    rotated, _ = students["gates_rotated"]
    assert compact(started, TARGET).config.shape != compact(rotated, TARGET).config.shape
    name = "encoder.layers.0.attention.q_proj.weight"
    weights = {row: students[row][0].state_dict()[name] for row in ("gates", "gates_rotated", "gates_scores")}
    assert not weights["gates"].equal(weights["gates_rotated"])
    torch.testing.assert_close(weights["gates_rotated"], weights["gates_scores"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("row", STUDENTS)
def test_every_student_trains_for_the_same_number_of_steps(row, tmp_path):
    student = STUDENTS[row]
    given = PruningTrainingArguments(
        output_dir=str(tmp_path), max_steps=60, final_steps=40, learning_rate=0.5, final_learning_rate=0.4
    )
    training = student.training(given)
    has_gates = student.compaction is not None
    assert (training.max_steps if has_gates else 0) + training.final_steps == 100
    assert training.final_learning_rate == (0.4 if has_gates else 0.5)
    assert student.training(given, 0.1).final_learning_rate == (0.4 if has_gates else 0.1)
    if student.is_refitted:
        assert student.training(given, 0.1, 0.2).final_learning_rate == 0.2
    assert (given.max_steps, given.final_steps, given.final_learning_rate) == (60, 40, 0.4)


def test_rows_are_checked_and_have_labels_of_their_own():
    check_rows(list(ROWS), ROWS)
    with pytest.raises(ValueError, match="no row 'gate'; choose from one_shot, .*, teacher"):
        check_rows(["gates", "gate"], ROWS)
    assert len({row_label(row) for row in ROWS}) == len(ROWS)
    assert DEFAULT_ROWS[-1] == TEACHER and "from_scratch" in DEFAULT_ROWS and "gates" not in DEFAULT_ROWS
