"""Students that statistics make: sizes, and which steps each row has."""

import pytest
import torch

from experiments.one_shot_students import ROWS, check_rows, load_teacher
from hf_prunable import one_shot_prune
from hf_prunable.modeling.size import UnitCounts
from hf_prunable.one_shot.config import OneShotConfig
from hf_prunable.pruning.fidelity import measure_fidelity


TARGETS = [0.3, 0.6]


@pytest.fixture(scope="module")
def clips():
    return torch.randn(6, 2000, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def students(teacher, clips):
    """Students of every row, made once: by row and target."""
    targets = dict.fromkeys(ROWS, TARGETS) | {"stock_shape": [0.1, 0.2], "teacher": [0.0]}
    targets |= {"macs": [0.1, 0.2], "macs_channels": [0.1, 0.2]}
    return {name: dict(row.make(teacher, targets[name], clips)) for name, row in ROWS.items()}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_meets_its_targets(row, students, teacher):
    for target, student in students[row].items():
        sparsity = ROWS[row].measure.sparsity(student.config, UnitCounts.of(student.config.shape))
        assert sparsity == pytest.approx(target, abs=0.02)


def test_the_refit_improves_on_magnitude(students, teacher, clips):
    batches = [{"input_values": clips}]
    losses = {
        row: measure_fidelity(students[row][0.6], load_teacher(teacher), batches).distillation_loss
        for row in ("magnitude", "magnitude_refit", "uniform_selected", "rounds")
    }
    assert losses["magnitude_refit"] < losses["magnitude"]
    assert losses["uniform_selected"] < losses["magnitude_refit"]


def test_rounds_are_those_of_the_library(students, teacher, clips):
    models = one_shot_prune(
        load_teacher(teacher), clips, target_sparsity=TARGETS, config=OneShotConfig(allow_few_frames=True)
    )
    for model, student in zip(models, students["rounds"].values(), strict=True):
        expected = model.state_dict()
        assert expected.keys() == student.state_dict().keys()
        assert all(torch.equal(value, expected[name]) for name, value in student.state_dict().items())


def test_one_round_has_the_dense_statistics_for_every_target(teacher, clips, students):
    (_, alone), *_ = ROWS["one_round"].make(teacher, TARGETS[1:], clips)
    assert alone.config.shape == students["one_round"][0.6].config.shape
    first, second = (students[row][0.6].config.shape for row in ("rounds", "one_round"))
    assert first != second


def test_stock_shapes_have_one_width(students):
    for student in students["stock_shape"].values():
        assert student.config.shape.stock_fields(student.config) is not None


def test_rows_are_checked():
    check_rows(list(ROWS))
    with pytest.raises(ValueError, match="no row 'round'; choose from teacher, magnitude, "):
        check_rows(["rounds", "round"])
