"""The sparsity asked for: one line to one target, and a line, a hold and a line to several."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable import expected_sparsity
from hf_prunable.modeling.size import PARAMETERS, Measure
from hf_prunable.modeling.units import PAPER_UNITS, UNITS
from hf_prunable.pruning.constraint import REACHED_TOLERANCE, Lagrangian, SparsitySchedule
from tests.helpers.tiny_models import tiny_prunable


MACS = Measure("macs")


SPARSITIES = st.floats(0.01, 0.99)
LADDERS = st.lists(SPARSITIES, min_size=1, max_size=4, unique=True).map(sorted)
# How far the expected sparsity is from the one asked for, step by step.
LAGS = st.lists(st.floats(-0.3, 0.1), min_size=1, max_size=200)


def walk(schedule, lags, start=0):
    """Targets and reached rungs of steps in which the expected sparsity is the target plus a lag."""
    targets, reached = [], []
    for step, lag in enumerate(lags, start):
        targets.append(schedule.target(step))
        rung = schedule.observe(step, targets[-1] + lag)
        reached += [] if rung is None else [(step, rung)]
    return targets, reached


@given(target=SPARSITIES, warmup_steps=st.integers(0, 150), lags=LAGS)
def test_a_single_target_is_the_linear_warm_up(target, warmup_steps, lags):
    targets, reached = walk(SparsitySchedule([target], warmup_steps), lags)
    assert targets == [target * min(1, step / warmup_steps) if warmup_steps else target for step in range(len(lags))]
    assert [rung for _, rung in reached] in ([], [0])


@given(ladder=LADDERS, warmup_steps=st.integers(1, 150), lags=LAGS)
def test_rises_have_one_slope_and_rungs_are_held(ladder, warmup_steps, lags):
    targets, reached = walk(SparsitySchedule(ladder, warmup_steps), lags)
    slope = ladder[-1] / warmup_steps
    assert targets[0] == 0.0
    rung = 0
    steps_of_rungs = dict(reached)
    for step in range(1, len(targets)):
        if steps_of_rungs.get(step - 1) == rung:
            rung += 1
        goal = ladder[min(rung, len(ladder) - 1)]
        assert targets[step] == pytest.approx(min(targets[step - 1] + slope, goal))
        assert targets[step] <= goal
    # Each once, in order, and only where the target was asked for and the expected sparsity was near it or beyond.
    assert [rung for _, rung in reached] == list(range(len(reached)))
    for step, rung in reached:
        assert targets[step] == ladder[rung] and targets[step] + lags[step] >= ladder[rung] - REACHED_TOLERANCE
    # And as soon as that is so.
    first = next(
        (
            step
            for step, lag in enumerate(lags)
            if targets[step] >= ladder[0] and targets[step] + lag >= ladder[0] - REACHED_TOLERANCE
        ),
        None,
    )
    assert (reached[0][0] if reached else None) == first


@given(ladder=LADDERS, warmup_steps=st.integers(0, 150), lags=LAGS, data=st.data())
def test_a_schedule_resumes_from_its_state(ladder, warmup_steps, lags, data):
    pause = data.draw(st.integers(0, len(lags)))
    uninterrupted = walk(SparsitySchedule(ladder, warmup_steps), lags)
    first = SparsitySchedule(ladder, warmup_steps)
    before = walk(first, lags[:pause])
    second = SparsitySchedule(ladder, warmup_steps)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    after = walk(second, lags[pause:], start=pause)
    assert uninterrupted == (before[0] + after[0], before[1] + after[1])


def test_a_ladder_step_by_step():
    schedule = SparsitySchedule([0.4, 0.8], warmup_steps=8)
    assert [schedule.target(step) for step in range(7)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    # Beyond the rung, but not asked for it yet; asked for it, but not there.
    assert schedule.observe(3, 0.5) is None
    assert schedule.observe(6, 0.394) is None
    assert schedule.observe(10, 0.396) == 0
    assert [schedule.target(step) for step in range(10, 17)] == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.8])
    assert schedule.observe(14, float("nan")) is None
    assert schedule.observe(15, 0.9) == 1
    assert schedule.observe(16, 0.9) is None
    assert schedule.target(100) == 0.8


def test_without_warm_up_each_target_is_asked_for_at_once():
    schedule = SparsitySchedule([0.4, 0.8], warmup_steps=0)
    assert schedule.target(0) == 0.4
    assert schedule.observe(0, 0.4) == 0
    assert schedule.target(1) == 0.8


@pytest.mark.parametrize(
    "targets", ([], [0.0], [1.0], [0.5, 0.5], [0.7, 0.5], [0.5, 1.2], [-0.1, 0.5], [float("nan")])
)
def test_targets_that_do_not_rise_between_0_and_1_are_refused(targets):
    with pytest.raises(
        ValueError, match=r"`targets` are \[.*\], but must lie between 0 and 1.*ascending order"
    ) as error:
        SparsitySchedule(targets, 100)
    assert str(targets) in str(error.value)


def test_negative_warm_up_is_refused():
    with pytest.raises(ValueError, match="`warmup_steps` must be 0 or more, but is -1"):
        SparsitySchedule([0.5], -1)


def test_the_state_of_other_targets_is_refused():
    state = SparsitySchedule([0.5, 0.7], 100).state_dict()
    with pytest.raises(ValueError, match=r"targets \[0\.5, 0\.7\], but this one has \[0\.5, 0\.8\]"):
        SparsitySchedule([0.5, 0.8], 100).load_state_dict(state)


def test_lagrangian_is_the_penalty_of_its_formula():
    lagrangian = Lagrangian()
    sparsity = torch.tensor(0.3, requires_grad=True)
    assert lagrangian(sparsity, 0.5).item() == 0
    lagrangian.lambda_1.data.fill_(2.0)
    lagrangian.lambda_2.data.fill_(3.0)
    penalty = lagrangian(sparsity, 0.5)
    assert penalty.item() == pytest.approx(2 * -0.2 + 3 * 0.04)
    penalty.backward()
    assert sparsity.grad.item() == pytest.approx(2 + 2 * 3 * -0.2)
    assert lagrangian.lambda_1.grad.item() == pytest.approx(-0.2)
    assert lagrangian.lambda_2.grad.item() == pytest.approx(0.04)


@pytest.mark.parametrize("target", (0.3, 0.6))
@pytest.mark.parametrize("measure", (PARAMETERS, MACS), ids=str)
def test_gradient_ascent_brings_the_sparsity_to_the_target(target, measure):
    model = tiny_prunable("wavlm")
    model.attach_gates(UNITS if measure == MACS else PAPER_UNITS)
    lagrangian = Lagrangian()
    gates = [gate for _, gate in model.named_gates()]
    # A task that wants all gates open, some more than others.
    generator = torch.Generator().manual_seed(0)
    worth = [0.001 * torch.rand(gate.num_gates, generator=generator) for gate in gates]
    optimizer = torch.optim.Adam(
        [
            {"params": [gate.log_alpha for gate in gates], "lr": 0.1},
            {"params": list(lagrangian.parameters()), "lr": 0.1, "maximize": True},
        ]
    )
    assert expected_sparsity(model, measure).item() < target / 3
    schedule = SparsitySchedule([target], 100)
    for step in range(400):
        optimizer.zero_grad()
        task = -sum((value * gate.open_probability()).sum() for value, gate in zip(worth, gates, strict=True))
        (task + lagrangian(expected_sparsity(model, measure), schedule.target(step))).backward()
        optimizer.step()
        for gate in gates:
            gate.clamp_()
    assert expected_sparsity(model, measure).item() == pytest.approx(target, abs=0.02)
    assert lagrangian.lambda_1.item() != 0 and lagrangian.lambda_2.item() > 0
