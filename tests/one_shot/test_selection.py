"""Optimal brain surgeon against brute force: every refit solved anew."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable.one_shot.refit import RidgeProblem
from hf_prunable.one_shot.selection import Elimination, batch_size, eliminate
from tests.one_shot.test_statistics import equations_of, make_rows


TOLERANCE = 1e-9


def make_problem(num_inputs, num_outputs=3, num_rows=40, seed=0, ridge=1e-2):
    """A regression with correlated inputs of different size."""
    inputs, targets = make_rows(num_rows, num_inputs, num_outputs, seed)
    inputs = inputs @ make_rows(num_inputs, num_inputs, 1, seed + 1)[0] + 0.3
    present = make_rows(num_inputs + 1, num_outputs, 1, seed + 2)[0]
    return RidgeProblem.of(equations_of(inputs, targets), present, ridge)


def objective(problem, kept):
    """The least value of the regularised error over weights that are 0 for all other inputs, up to a constant."""
    kept = torch.as_tensor(sorted(kept), dtype=torch.long)
    rows = torch.cat((kept, torch.tensor([len(problem.matrix) - 1])))
    solution = problem.solve(kept)
    product = problem.matrix[rows][:, rows] @ solution
    return float((solution * product).sum() - 2 * (solution * problem.right_side[rows]).sum())


def check_path(problem, removed, growth, size=1):
    """Compares the growth by each batch of removals with brute force."""
    left = set(range(len(problem.matrix) - 1))
    for start in range(0, len(removed), size):
        before = objective(problem, left)
        left -= set(removed[start : start + size])
        expected = objective(problem, left) - before
        assert sum(growth[start : start + size]) == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)


@given(num_inputs=st.integers(1, 7), seed=st.integers(0, 1000), ridge=st.sampled_from([1e-4, 1e-2, 1.0]))
def test_each_removal_is_the_best_of_all(num_inputs, seed, ridge):
    problem = make_problem(num_inputs, seed=seed, ridge=ridge)
    elimination = eliminate(problem, [num_inputs], [0])
    assert sorted(elimination.removed) == list(range(num_inputs))
    left = set(range(num_inputs))
    for index, growth in zip(elimination.removed, elimination.increments, strict=True):
        before = objective(problem, left)
        costs = {other: objective(problem, left - {other}) - before for other in left}
        assert growth == pytest.approx(costs[index], rel=TOLERANCE, abs=TOLERANCE)
        assert growth <= min(costs.values()) + TOLERANCE
        left.remove(index)


@given(num_inputs=st.integers(1, 8), keep=st.integers(0, 8), seed=st.integers(0, 1000))
def test_cumulative_error_is_that_of_the_refit(num_inputs, keep, seed):
    problem = make_problem(num_inputs, seed=seed)
    elimination = eliminate(problem, [num_inputs], [min(keep, num_inputs)])
    kept = elimination.kept(num_inputs).tolist()
    assert len(kept) == min(keep, num_inputs)
    expected = objective(problem, kept) - objective(problem, range(num_inputs))
    assert sum(elimination.increments) == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)


GROUPS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=5)


@given(groups=GROUPS, seed=st.integers(0, 1000), size=st.integers(1, 7))
def test_groups_keep_what_they_are_to_keep(groups, seed, size):
    sizes = [present for present, _ in groups]
    kept = [min(pair) for pair in groups]
    problem = make_problem(sum(sizes), seed=seed)
    elimination = eliminate(problem, sizes, kept, size)
    assert len(set(elimination.removed)) == len(elimination.removed) == len(elimination.increments)
    owners = [group for group, present in enumerate(sizes) for _ in range(present)]
    left = [owners[index] for index in elimination.kept(sum(sizes)).tolist()]
    assert [left.count(group) for group in range(len(groups))] == kept
    expected = objective(problem, elimination.kept(sum(sizes)).tolist()) - objective(problem, range(sum(sizes)))
    assert sum(elimination.increments) == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)


@given(groups=GROUPS, seed=st.integers(0, 1000))
def test_each_removal_is_the_best_that_the_groups_allow(groups, seed):
    sizes = [present for present, _ in groups]
    kept = [min(pair) for pair in groups]
    problem = make_problem(sum(sizes), seed=seed)
    owners = [group for group, present in enumerate(sizes) for _ in range(present)]
    left = set(range(sum(sizes)))
    elimination = eliminate(problem, sizes, kept)
    for index, growth in zip(elimination.removed, elimination.increments, strict=True):
        counts = [sum(owners[other] == group for other in left) for group in range(len(groups))]
        allowed = [other for other in left if counts[owners[other]] > kept[owners[other]]]
        assert index in allowed
        before = objective(problem, left)
        best = min(objective(problem, left - {other}) - before for other in allowed)
        assert growth == pytest.approx(best, rel=TOLERANCE, abs=TOLERANCE)
        left.remove(index)


def columns_of(inputs, width):
    return [index * width + tap for index in inputs for tap in range(width)]


@given(
    num_inputs=st.integers(1, 5),
    width=st.integers(1, 4),
    keep=st.integers(0, 2),
    seed=st.integers(0, 1000),
    size=st.integers(1, 3),
    has_bias=st.booleans(),
)
def test_inputs_of_several_columns(num_inputs, width, keep, seed, size, has_bias):
    """Channels with their taps: each removal is the best, and each batch exact."""
    inputs, targets = make_rows(40, num_inputs * width, 3, seed)
    present = make_rows(num_inputs * width + 1, 3, 1, seed + 2)[0]
    problem = RidgeProblem.of(equations_of(inputs + 0.3, targets), present, 1e-2, has_bias)
    elimination = eliminate(problem, [num_inputs], [min(keep, num_inputs)], size, width)
    assert len(set(elimination.removed)) == len(elimination.removed) == num_inputs - min(keep, num_inputs)
    assert len(elimination.increments) == len(elimination.removed)
    left = set(range(num_inputs))
    for start in range(0, len(elimination.removed), size):
        batch = elimination.removed[start : start + size]
        before = objective(problem, columns_of(left, width))
        costs = {other: objective(problem, columns_of(left - {other}, width)) - before for other in left}
        assert costs[batch[0]] <= min(costs.values()) + TOLERANCE
        left -= set(batch)
        expected = objective(problem, columns_of(left, width)) - before
        growth = sum(elimination.increments[start : start + size])
        assert growth == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)
    assert elimination.kept(num_inputs).tolist() == sorted(left)


def test_many_updates_stay_exact():
    """Hundreds of updates of an inverse, with inputs that nearly depend on each other."""
    inputs, targets = make_rows(600, 200, 5)
    inputs = inputs @ torch.diag(torch.logspace(0, -4, 200, dtype=torch.float64)) @ make_rows(200, 200, 1, 1)[0]
    problem = RidgeProblem.of(equations_of(inputs, targets), make_rows(201, 5, 1, 2)[0], 1e-3)
    elimination = eliminate(problem, [200], [10], 1)
    kept = elimination.kept(200).tolist()
    expected = objective(problem, kept) - objective(problem, range(200))
    assert sum(elimination.increments) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("size", [2, 3, 5, 50])
def test_growth_of_a_batch_is_exact(size):
    problem = make_problem(12)
    elimination = eliminate(problem, [12], [1], size)
    assert len(elimination.removed) == 11 and all(value >= 0 for value in elimination.increments)
    check_path(problem, elimination.removed, elimination.increments, size)


def test_scores_are_updated_between_batches():
    """Two copies of one input: each alone is worth nothing, both together are worth much."""
    inputs, _ = make_rows(60, 4, 1)
    inputs = torch.cat((inputs, inputs[:, :1]), dim=1)
    targets = 3 * inputs[:, :1] + 0.3 * inputs[:, 1:2] + 0.1 * inputs[:, 2:3] + 0.2 * inputs[:, 3:4]
    present = torch.tensor([[1.5], [0.3], [0.1], [0.2], [1.5], [0.0]], dtype=torch.float64)
    problem = RidgeProblem.of(equations_of(inputs, targets), present, 1e-8)
    elimination = eliminate(problem, [5], [0])
    assert elimination.removed[0] in (0, 4) and elimination.removed[-1] in (0, 4)
    assert elimination.increments[0] < 1e-6 < 1 < elimination.increments[-1]


@pytest.mark.parametrize("size", [1, 3])
def test_inputs_that_are_always_zero_go_first(size):
    inputs, targets = make_rows(40, 6, 3)
    inputs[:, [2, 5]] = 0
    present = make_rows(7, 3, 1, 1)[0]
    present[[2, 5]] *= 1e-3
    problem = RidgeProblem.of(equations_of(inputs, targets), present)
    elimination = eliminate(problem, [6], [0], size)
    assert set(elimination.removed[:2]) == {2, 5}
    check_path(problem, elimination.removed, elimination.increments, size)


def test_all_inputs_zero():
    problem = RidgeProblem.of(equations_of(torch.zeros(9, 5), make_rows(9, 1, 3)[1]), make_rows(6, 3, 1)[0])
    elimination = eliminate(problem, [5], [2], 2)
    assert len(set(elimination.removed)) == 3
    assert elimination.increments == [0.0, 0.0, 0.0]


def test_weights_that_are_zero_are_free():
    """As in a masked model: units whose weights are 0 and whose inputs tell nothing more."""
    inputs, _ = make_rows(40, 6, 1)
    present = make_rows(7, 3, 1, 1)[0]
    present[[0, 3]] = 0
    targets = inputs @ present[:-1] + present[-1]
    elimination = eliminate(RidgeProblem.of(equations_of(inputs, targets), present), [6], [3])
    assert set(elimination.removed[:2]) == {0, 3}
    assert max(elimination.increments[:2]) < 1e-12 < elimination.increments[2]


def test_no_inputs_at_all():
    problem = RidgeProblem.of(equations_of(torch.zeros(9, 0), make_rows(9, 1, 3)[1]), make_rows(1, 3, 1)[0])
    for sizes in ([], [0], [0, 0]):
        elimination = eliminate(problem, sizes, sizes)
        assert elimination == Elimination([], [])
    assert elimination.kept(0).tolist() == []


def test_nothing_to_remove():
    elimination = eliminate(make_problem(5), [2, 3], [2, 3], 4)
    assert elimination == Elimination([], [])
    assert elimination.kept(5).tolist() == [0, 1, 2, 3, 4]


def test_greedy_order_is_no_worse_than_most_subsets():
    """A check of the whole: the kept half is among the best of all halves."""
    problem = make_problem(10, seed=7)
    costs = sorted(objective(problem, subset) for subset in itertools.combinations(range(10), 5))
    found = objective(problem, eliminate(problem, [10], [5]).kept(10).tolist())
    assert found <= costs[len(costs) // 20]


def test_fewer_frames_than_inputs():
    problem = make_problem(12, num_rows=4)
    elimination = eliminate(problem, [12], [0])
    assert all(value >= -TOLERANCE for value in elimination.increments)
    check_path(problem, elimination.removed, elimination.increments)


@pytest.mark.parametrize(
    ("num_inputs", "fraction", "expected"), [(0, 0.1, 1), (3, 0.1, 1), (100, 0.02, 2), (10, 1, 10)]
)
def test_batch_size(num_inputs, fraction, expected):
    assert batch_size(num_inputs, fraction) == expected
