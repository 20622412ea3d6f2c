"""Sentences on methods: what they promise of the hidden states, and how gates and refits are named."""

import pytest

from hf_prunable.reporting.method_texts import describe_method, promise_of_hidden_states, settings_of_method
from tests.reporting.test_pruning_report import make_report


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"has_projections": False}, "Its hidden states stand in the place of the dense model's, index by index"),
        ({"has_projections": False, "teacher_name": "m"}, "Its hidden states stand in the place of the teacher's"),
        ({"has_projections": True}, "behind linear maps that are not part of the model"),
        ({"has_projections": False, "objective": "task"}, ""),
        ({"has_projections": False, "fidelity": None}, ""),
    ],
)
def test_promise_of_the_hidden_states(changes, expected):
    found = promise_of_hidden_states(make_report(**changes))
    assert found.startswith(expected) if not expected.startswith("behind") else expected in found
    assert bool(found) == bool(expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gate_start": "weights"}, "Gates on int; 5 steps with gates; seed 42."),
        ({"gate_start": "rotated"}, "Gates on int of rotated heads; 5 steps with gates; seed 42."),
        (
            {"gate_start": "one_shot", "refit": True},
            "in the order of one-shot pruning; refitted; 5 steps with gates; seed",
        ),
        ({"method": "magnitude", "refit": True}, "Uniform widths of int; refitted; 5 steps"),
        ({"method": "one_shot"}, "One-shot pruning of int; 5 steps"),
    ],
)
def test_start_and_refit_are_named(changes, expected):
    report = make_report(units=["int"], steps={"with gates": 5}, **changes)
    assert expected in settings_of_method(report)[0]


def test_a_refitted_magnitude_model_is_described():
    plain, refitted = (describe_method(make_report(method="magnitude", refit=refit).inputs) for refit in (False, True))
    assert refitted == f"{plain}. The rest was refitted by least squares"
