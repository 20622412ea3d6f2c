"""Linear classifiers on synthetic features."""

import numpy as np
import pytest

from experiments.weighted_sum_probe import WeightedSumProbe


SIZES = (120, 200)


def toy_features(signal, num_classes=4, seed=0):
    """Training and test clips of three hidden states, of which only the second depends on the class."""
    generator = np.random.default_rng(seed)
    centers = signal * generator.standard_normal((num_classes, 12))
    splits = []
    for size in SIZES:
        classes = generator.integers(num_classes, size=size)
        features = generator.standard_normal((size, 3, 12)).astype(np.float32)
        features[:, 1] += centers[classes]
        splits += [features, np.array([f"class {number}" for number in classes])]
    return splits


def accuracy(train, train_labels, test, test_labels):
    return float((WeightedSumProbe.fit(train, train_labels, 0.01).predict(test) == test_labels).mean())


def test_the_hidden_state_that_knows_is_found():
    train, train_labels, test, test_labels = toy_features(signal=5.0)
    probe = WeightedSumProbe.fit(train, train_labels, 0.01)
    assert (probe.predict(test) == test_labels).all()
    assert probe.layer_logits.argmax() == 1 and list(probe.classes) == sorted(set(train_labels))


def test_noise_is_classified_by_chance():
    assert accuracy(*toy_features(signal=0.0)) == pytest.approx(0.25, abs=0.1)


def test_probes_repeat_themselves_and_ignore_the_scale_of_hidden_states():
    train, train_labels, test, test_labels = toy_features(signal=1.0)
    first = accuracy(train, train_labels, test, test_labels)
    assert accuracy(train, train_labels, test, test_labels) == first
    scales = np.array([1, 1000, 0.01], dtype=np.float32)[None, :, None]
    assert accuracy(train * scales, train_labels, test * scales, test_labels) == pytest.approx(first, abs=0.02)


def test_a_probe_keeps_the_scale_that_it_was_trained_on():
    train, train_labels, test, test_labels = toy_features(signal=5.0)
    probe = WeightedSumProbe.fit(train, train_labels, 0.01)
    assert (probe.predict(test + 20) == test_labels).mean() < 0.6


def test_an_unknown_class_is_never_predicted():
    train, train_labels, test, _ = toy_features(signal=5.0)
    assert "new" not in WeightedSumProbe.fit(train, train_labels, 0.01).predict(test)
