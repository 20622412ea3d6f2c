"""The metric of classification, without a network."""

import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable.finetuning.metrics import ClassificationMetric, wilson_interval


@pytest.fixture
def metric(monkeypatch, tmp_path):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked the network"))
    return ClassificationMetric(cache_dir=str(tmp_path))


def test_accuracy_and_macro_f1(metric):
    # F1 of class 0: precision 1, recall 1/2, F1 2/3; class 1: precision 2/3, recall 1, F1 4/5; class 2: F1 1.
    values = metric.compute(predictions=[0, 1, 1, 1, 2], references=[0, 0, 1, 1, 2])
    assert values.keys() == {"accuracy", "accuracy_lower", "accuracy_upper", "macro_f1"}
    assert values["accuracy"] == 0.8
    assert values["macro_f1"] == pytest.approx((2 / 3 + 4 / 5 + 1) / 3)
    assert (values["accuracy_lower"], values["accuracy_upper"]) == wilson_interval(4, 5)
    assert all(type(value) is float for value in values.values())


def test_batches_are_gathered(metric):
    metric.add_batch(predictions=np.array([3, 3]), references=np.array([3, 4]))
    metric.add(prediction=4, reference=4)
    values = metric.compute()
    assert values["accuracy"] == pytest.approx(2 / 3)
    # No predictions are carried over to the next evaluation.
    assert metric.compute(predictions=[1], references=[1])["accuracy"] == 1


def test_a_class_that_is_never_right_counts_as_0(metric):
    assert metric.compute(predictions=[0, 0], references=[0, 1])["macro_f1"] == pytest.approx(1 / 3)


# The first two cases are from Newcombe 1998 (Statistics in Medicine 17, 857), table I, method 3.
@pytest.mark.parametrize(
    ("correct", "total", "lower", "upper"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (5, 10, 0.2366, 0.7634)],
)
def test_interval_is_the_published_one(correct, total, lower, upper):
    assert wilson_interval(correct, total) == pytest.approx((lower, upper), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_interval_holds_the_proportion_and_mirrors(trials):
    correct, total = trials
    lower, upper = wilson_interval(correct, total)
    assert 0 <= lower <= correct / total <= upper <= 1 and lower < upper
    assert wilson_interval(total - correct, total) == pytest.approx((1 - upper, 1 - lower), abs=1e-9)


def test_no_trials_and_unequal_lengths_are_refused(metric):
    with pytest.raises(ValueError, match="0 of 0 is no proportion"):
        metric.compute(predictions=[], references=[])
    with pytest.raises(ValueError, match="3 of 2 is no proportion"):
        wilson_interval(3, 2)
    with pytest.raises(ValueError, match=r"Mismatch.*\(1\).*\(2\)"):
        ClassificationMetric().compute(predictions=[1], references=[1, 2])
