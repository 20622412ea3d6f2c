"""The ragged model beside a stock-shaped one: its size, its shape, and going on after an interruption."""

import pytest
import torch

from hf_prunable.modeling.size import UnitCounts
from hf_prunable.one_shot.one_shot_pruning import OneShotPruning
from hf_prunable.one_shot.ragged_comparison import RaggedComparison
from tests.one_shot.test_method import make_method, place, start  # noqa: F401 - a fixture


@pytest.fixture
def run(place, tmp_path):  # noqa: F811 - the fixture
    method = make_method({"rounds": 2}, stock_shape=True, target_sparsity=[0.15])
    return method, start(method, place, tmp_path / "run")


def size_of(method, model):
    return method.measure.count(model.config, UnitCounts.of(model.config.shape))


def test_the_ragged_model_has_the_size_of_the_stock_shaped_one(run):
    method, stages = run
    ((_, student),) = method.students(stages)
    size = size_of(method, student.model)
    ragged = RaggedComparison(method, stages).of_size(size)
    # One unit less is 49 parameters or fewer, and the last dimension of a head takes its bias with it.
    assert size - 200 < size_of(method, ragged) <= size
    assert not ragged.is_stock and student.model.is_stock
    assert ragged.config.hidden_size == student.model.config.hidden_size
    assert stages.fidelity(ragged, stages.teacher).distillation_loss > 0


def test_finished_rounds_are_not_made_again(run, monkeypatch):
    method, stages = run
    size = round(0.85 * method.measure.dense(stages.initial_student.model.config))
    expected = RaggedComparison(method, stages).of_size(size).state_dict()
    files = sorted((stages.folder / f"ragged_{size}").iterdir())
    assert [file.name for file in files] == ["round_1.safetensors", "round_2.safetensors"]
    made, make = [], OneShotPruning.round
    monkeypatch.setattr(OneShotPruning, "round", lambda *args, **options: made.append(1) or make(*args, **options))
    files[1].unlink()
    for num_made in (1, 1):
        found = RaggedComparison(method, stages).of_size(size).state_dict()
        assert len(made) == num_made
        assert found.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
