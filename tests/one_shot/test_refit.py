"""The refit is the optimum of its ridge regression."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable.modeling.gated import GatedLinear, OutputBias
from hf_prunable.one_shot.refit import RidgeProblem, present_solution, write_solution_
from tests.one_shot.test_statistics import equations_of, make_rows


RIDGE = 3e-2


def augmented_optimum(inputs, targets, present, ridge, kept):
    """The ridge regression as one least-squares problem: a row for each frame, and one for each regularised weight."""
    rows = len(inputs)
    penalty = float(ridge * inputs.square().mean()) * rows
    inputs, present = inputs[:, kept], present[torch.cat((kept, torch.tensor([-1])))]
    data = torch.cat((inputs, torch.ones(rows, 1, dtype=torch.float64)), dim=1)
    ridge_rows = torch.eye(len(kept) + 1, dtype=torch.float64)[:-1] * penalty**0.5
    matrix = torch.cat((data, ridge_rows))
    right_side = torch.cat((targets, penalty**0.5 * present[:-1]))
    return torch.linalg.lstsq(matrix, right_side).solution


@given(kept=st.sets(st.integers(0, 4)), seed=st.integers(0, 100))
def test_optimum_is_that_of_lstsq(kept, seed):
    inputs, targets = make_rows(17, 5, 3, seed)
    present = make_rows(6, 3, 1, seed + 1)[0]
    kept = torch.tensor(sorted(kept), dtype=torch.long)
    problem = RidgeProblem.of(equations_of(inputs, targets), present, RIDGE)
    expected = augmented_optimum(inputs, targets, present, RIDGE, kept)
    torch.testing.assert_close(problem.solve(kept), expected, rtol=1e-9, atol=1e-9)


def test_a_vanishing_ridge_gives_least_squares():
    inputs, targets = make_rows(40, 5, 3)
    problem = RidgeProblem.of(equations_of(inputs, targets), torch.full((6, 3), 100.0, dtype=torch.float64), 1e-15)
    data = torch.cat((inputs, torch.ones(40, 1, dtype=torch.float64)), dim=1)
    expected = torch.linalg.lstsq(data, targets).solution
    torch.testing.assert_close(problem.solve(torch.arange(5)), expected, rtol=1e-9, atol=1e-9)


def test_a_huge_ridge_keeps_the_present_weights_and_refits_the_bias():
    inputs, targets = make_rows(40, 5, 3)
    present = make_rows(6, 3, 1, 1)[0]
    solution = RidgeProblem.of(equations_of(inputs, targets), present, 1e12).solve(torch.arange(5))
    torch.testing.assert_close(solution[:-1], present[:-1], rtol=0, atol=1e-9)
    torch.testing.assert_close(solution[-1], (targets - inputs @ present[:-1]).mean(0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("num_rows", [40, 3])
def test_present_weights_stay_where_they_are_right(num_rows):
    """Also with fewer frames than inputs."""
    inputs, _ = make_rows(num_rows, 5, 3)
    present = make_rows(6, 3, 1, 1)[0]
    targets = inputs @ present[:-1] + present[-1]
    solution = RidgeProblem.of(equations_of(inputs, targets), present).solve(torch.arange(5))
    torch.testing.assert_close(solution, present, rtol=0, atol=1e-10)


def test_inputs_that_are_always_zero_keep_their_weights():
    inputs, targets = make_rows(40, 5, 3)
    inputs[:, [1, 4]] = 0
    present = make_rows(6, 3, 1, 1)[0]
    solution = RidgeProblem.of(equations_of(inputs, targets), present, RIDGE).solve(torch.arange(5))
    torch.testing.assert_close(solution[[1, 4]], present[[1, 4]], rtol=0, atol=1e-10)
    expected = augmented_optimum(inputs, targets, present, RIDGE, torch.arange(5))
    torch.testing.assert_close(solution, expected, rtol=1e-9, atol=1e-9)


def test_without_any_signal_the_bias_is_refitted():
    inputs, targets = torch.zeros(9, 4, dtype=torch.float64), make_rows(9, 1, 3)[1]
    solution = RidgeProblem.of(equations_of(inputs, targets), make_rows(5, 3, 1)[0]).solve(torch.arange(4))
    assert torch.isfinite(solution).all()
    torch.testing.assert_close(solution[-1], targets.mean(0), rtol=0, atol=1e-12)


def test_without_inputs_the_bias_is_the_mean_of_the_targets():
    _, targets = make_rows(9, 1, 3)
    layer = OutputBias(3)
    problem = RidgeProblem.of(equations_of(torch.zeros(9, 0), targets), present_solution(layer))
    none = torch.zeros(0, dtype=torch.long)
    solution = problem.solve(none)
    write_solution_(layer, none, solution)
    torch.testing.assert_close(layer().detach(), targets.mean(0).float(), rtol=0, atol=1e-6)


@given(kept=st.sets(st.integers(0, 4)), seed=st.integers(0, 100))
def test_optimum_without_bias(kept, seed):
    inputs, targets = make_rows(17, 5, 3, seed)
    present = make_rows(6, 3, 1, seed + 1)[0]
    kept = torch.tensor(sorted(kept), dtype=torch.long)
    solution = RidgeProblem.of(equations_of(inputs + 0.5, targets + 2), present, RIDGE, has_bias=False).solve(kept)
    assert (solution[-1] == 0).all()
    penalty = (float(RIDGE * (inputs + 0.5).square().mean()) * 17) ** 0.5
    matrix = torch.cat(((inputs + 0.5)[:, kept], penalty * torch.eye(len(kept), dtype=torch.float64)))
    expected = torch.linalg.lstsq(matrix, torch.cat((targets + 2, penalty * present[kept]))).solution
    torch.testing.assert_close(solution[:-1], expected, rtol=1e-9, atol=1e-9)


def test_the_equations_are_left_as_they_are():
    equations = equations_of(*make_rows(9, 4, 3))
    before = equations.gram, equations.cross
    RidgeProblem.of(equations, make_rows(5, 3, 1)[0], 10.0)
    assert torch.equal(equations.gram, before[0]) and torch.equal(equations.cross, before[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_computes_the_solution_that_is_written_into_it(dtype):
    layer = GatedLinear(5, 3).to(dtype)
    kept = torch.tensor([0, 3])
    solution = make_rows(3, 3, 1)[0].to(dtype)
    write_solution_(layer, kept, solution.double())
    inputs = make_rows(9, 5, 1)[0].to(dtype)
    expected = inputs[:, kept] @ solution[:-1] + solution[-1]
    torch.testing.assert_close(layer(inputs), expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-12)
    assert layer.weight.dtype == dtype
    assert (layer.weight[:, [1, 2, 4]] == 0).all()
    torch.testing.assert_close(present_solution(layer)[[0, 3, 5]].to(dtype), solution, rtol=0, atol=0)
