"""Targets: limits, how far a measured fidelity is from them, and what cannot be asked for together."""

import math

import pytest

from hf_prunable.pruning.fidelity import Fidelity
from hf_prunable.pruning.targets import FidelityTarget, fidelity_target, target_text


def measured(loss=0.1, cosine=0.9):
    return Fidelity([cosine, cosine], [0.1, 0.1], loss, 10)


@pytest.mark.parametrize(
    "loss, is_met", [(0.02, True), (math.nextafter(0.02, 1), False), (0.0, True), (math.nan, False)]
)
def test_a_loss_up_to_the_limit(loss, is_met):
    target = FidelityTarget(max_loss=0.02)
    assert target.is_met(measured(loss=loss)) == is_met
    assert target.value(measured(loss=0.3)) == 0.3 and (target.quantity, target.limit) == (
        "distillation loss",
        "at most 0.02",
    )


@pytest.mark.parametrize(
    "cosine, is_met", [(0.97, True), (math.nextafter(0.97, 0), False), (1.0, True), (math.nan, False)]
)
def test_a_similarity_down_to_the_limit(cosine, is_met):
    target = FidelityTarget(min_similarity=0.97)
    assert target.is_met(measured(cosine=cosine)) == is_met
    assert target.value(measured(cosine=0.3)) == 0.3 and target.limit == "at least 0.97"


def test_excess_is_the_distance_on_the_wrong_side():
    assert FidelityTarget(max_loss=0.25).excess(measured(loss=0.5)) == 0.25
    assert FidelityTarget(min_similarity=0.75).excess(measured(cosine=0.5)) == 0.25


def test_texts():
    targets = [0.72, 0.5, FidelityTarget(max_loss=0.02), FidelityTarget(min_similarity=0.97)]
    assert [target_text(target) for target in targets] == ["0.72", "0.5", "loss 0.02", "similarity 0.97"]


@pytest.mark.parametrize(
    "loss, similarity, message",
    [
        (0.0, None, "`target_loss` must be above 0"),
        (-1.0, None, "`target_loss` must be above 0"),
        (math.nan, None, "`target_loss` must be above 0"),
        (None, 0.0, "`target_similarity` must be between 0 and 1"),
        (None, 1.0, "`target_similarity` must be between 0 and 1"),
        (None, math.nan, "`target_similarity` must be between 0 and 1"),
        (None, None, "Give one of them"),
        (0.1, 0.9, "Give one of them"),
    ],
)
def test_limits_out_of_range(loss, similarity, message):
    with pytest.raises(ValueError, match=message):
        FidelityTarget(loss, similarity)


def test_no_other_target_beside_one_by_fidelity():
    assert fidelity_target(None, None, target_sparsity=[0.3], rounds=2) is None
    assert fidelity_target(0.1, None, target_sparsity=None) == FidelityTarget(max_loss=0.1)
    assert fidelity_target(None, 0.9) == FidelityTarget(min_similarity=0.9)
    for others, message in (
        ({"target_sparsity": [0.3]}, "`target_loss` is given, and so is `target_sparsity`"),
        ({"target_macs": [0.3], "rounds": 2}, "`target_loss` is given, and so are `target_macs`, `rounds`"),
    ):
        with pytest.raises(ValueError, match=message):
            fidelity_target(0.1, None, **others)
    with pytest.raises(ValueError, match="`target_loss` is given, and so is `target_similarity`"):
        fidelity_target(0.1, 0.9)


@pytest.mark.parametrize(
    "value, text",
    [(0.97, "0.97"), (0.9700001, "0.9700001"), (0.96999994, "0.9699999"), (0.123456789, "0.123457"), (1.0, "1")],
)
def test_a_value_is_shown_with_the_digits_that_tell_it_from_the_limit(value, text):
    assert FidelityTarget(min_similarity=0.97).value_text(value) == text


def test_a_limit_is_shown_as_it_was_given():
    assert FidelityTarget(min_similarity=0.99950012).limit == "at least 0.99950012"
