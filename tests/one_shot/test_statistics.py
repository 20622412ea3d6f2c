"""Normal equations are the sums that they stand for, however the rows come."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable.one_shot import statistics
from hf_prunable.one_shot.statistics import NormalEquations, sum_over_processes_


CPU = torch.device("cpu")


def make_rows(num_rows, num_inputs, num_outputs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(num_rows, num_inputs, generator=generator, dtype=torch.float64),
        torch.randn(num_rows, num_outputs, generator=generator, dtype=torch.float64),
    )


def equations_of(inputs, targets):
    equations = NormalEquations(inputs.shape[-1], targets.shape[-1], CPU)
    equations.add(inputs, targets)
    return equations


def assert_equal(one, two):
    for name in ("gram", "cross"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=1e-12, atol=1e-12)


@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    num_inputs=st.integers(0, 5),
    num_outputs=st.integers(1, 4),
    seed=st.integers(0, 100),
)
def test_sums_are_direct_sums_in_any_split(sizes, num_inputs, num_outputs, seed):
    inputs, targets = make_rows(sum(sizes), num_inputs, num_outputs, seed)
    equations = NormalEquations(num_inputs, num_outputs, CPU)
    for batch in zip(inputs.split(sizes), targets.split(sizes), strict=True):
        equations.add(*batch)
    extended = torch.cat((inputs, torch.ones(len(inputs), 1, dtype=torch.float64)), dim=1)
    gram = sum(row[:, None] * row[None] for row in extended) / len(inputs)
    cross = sum(row[:, None] * target[None] for row, target in zip(extended, targets, strict=True)) / len(inputs)
    torch.testing.assert_close(equations.gram, gram, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(equations.cross, cross, rtol=1e-12, atol=1e-12)


def test_clips_and_frames_are_rows():
    inputs, targets = make_rows(24, 5, 3)
    assert_equal(equations_of(inputs.view(2, 3, 4, 5), targets.view(2, 3, 4, 3)), equations_of(inputs, targets))


@pytest.mark.parametrize("block_rows", [1, 2, 5, 6])
def test_blocks_of_the_gram_matrix(block_rows, monkeypatch):
    rows = make_rows(24, 5, 3)
    whole = equations_of(*rows)
    monkeypatch.setattr(statistics, "BLOCK_ROWS", block_rows)
    blocks = equations_of(*rows)
    assert_equal(blocks, whole)
    assert torch.equal(blocks.gram, blocks.gram.T)


def test_float32_rows_are_summed_in_float64():
    # In float32, a sum of 1e8 and many ones stays 1e8.
    inputs = torch.ones(1000, 1)
    inputs[0] = 1e4
    equations = equations_of(inputs, torch.zeros(1000, 1))
    assert equations.gram.dtype == torch.float64
    assert float(equations.gram[0, 0]) == (1e8 + 999) / 1000


@given(seed=st.integers(0, 100), num_inputs=st.integers(1, 6))
def test_transform_is_recomputing_in_the_new_basis(seed, num_inputs):
    inputs, targets = make_rows(11, num_inputs, 4, seed)
    change = make_rows(num_inputs, num_inputs, 1, seed + 1)[0]
    equations = equations_of(inputs, targets)
    equations.transform_(change)
    assert_equal(equations, equations_of(inputs @ change, targets))


def test_rows_may_follow_a_transform():
    inputs, targets = make_rows(20, 4, 3)
    change = make_rows(4, 4, 1, 1)[0]
    equations = equations_of(inputs[:9], targets[:9])
    equations.transform_(change)
    equations.add(inputs[9:] @ change, targets[9:])
    assert_equal(equations, equations_of(inputs @ change, targets))


def test_moments_are_copies():
    equations = equations_of(*make_rows(7, 3, 2))
    gram, cross = equations.gram, equations.cross
    gram.zero_(), cross.zero_()
    assert equations.gram.abs().min() > 0 and equations.cross.abs().min() > 0


def test_one_process_sums_nothing():
    tensor = torch.tensor([1.0, 2.0])
    assert sum_over_processes_(tensor) is tensor
    assert tensor.tolist() == [1.0, 2.0]
    rows = make_rows(7, 3, 2)
    equations = equations_of(*rows)
    assert equations.reduce_() is equations
    assert_equal(equations, equations_of(*rows))
