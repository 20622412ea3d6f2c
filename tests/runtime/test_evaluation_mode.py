"""Evaluation mode inside a block, and every module's own mode after it."""

import pytest
import torch
from torch import nn

from hf_prunable.runtime.evaluation_mode import evaluation_mode, restored_modes


@pytest.fixture
def model():
    """A model in training mode with a frozen batch norm, which is in evaluation mode."""
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Dropout(0.5)))
    model[1].eval()
    return model


@pytest.fixture
def threads():
    threads = torch.get_num_threads()
    yield threads
    torch.set_num_threads(threads)


def modes_of(model):
    return [module.training for module in model.modules()]


def test_every_module_gets_its_own_mode_back(model):
    before = modes_of(model)
    assert len(set(before)) == 2
    with restored_modes([model]):
        assert modes_of(model) == before
        model.eval()
        model[1].train()
        assert modes_of(model) != before and model(torch.ones(2, 3)).requires_grad
    assert modes_of(model) == before


def test_models_are_evaluated_without_autograd(model):
    other = nn.Dropout(0.5).eval()
    before = modes_of(model)
    with evaluation_mode(iter([model, other])):
        assert not any(modes_of(model)) and not other.training
        assert torch.is_inference_mode_enabled() and not model(torch.ones(2, 3)).requires_grad
    assert modes_of(model) == before and not other.training
    assert not torch.is_inference_mode_enabled() and model(torch.ones(2, 3)).requires_grad


def test_threads_are_set_inside_the_block_only(model, threads):
    with evaluation_mode([model], num_threads=threads + 1):
        assert torch.get_num_threads() == threads + 1
    assert torch.get_num_threads() == threads
    with evaluation_mode([model]):
        assert torch.get_num_threads() == threads


@pytest.mark.parametrize("context", [restored_modes, lambda models: evaluation_mode(models, num_threads=3)])
def test_an_exception_restores_too(model, threads, context):
    before = modes_of(model)
    with pytest.raises(RuntimeError, match="in the block"), context([model]):
        model.eval()
        raise RuntimeError("in the block")
    assert modes_of(model) == before and torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()


def test_an_impossible_number_of_threads_leaves_the_modes(model, threads):
    before = modes_of(model)
    with pytest.raises(RuntimeError), evaluation_mode([model], num_threads=0):
        pytest.fail("the block ran")
    assert modes_of(model) == before and torch.get_num_threads() == threads
