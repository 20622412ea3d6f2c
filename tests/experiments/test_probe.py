"""Linear probes on synthetic features."""

import numpy as np
import pytest

from experiments.probe import layer_probes, weighted_sum_probe


SPLIT_SIZES = {"train": 120, "validation": 40, "test": 200}


def toy_features(signal, num_classes=4, seed=0):
    """Three hidden states, of which only the second depends on the class."""
    generator = np.random.default_rng(seed)
    centers = signal * generator.standard_normal((num_classes, 12))
    features, labels = {}, {}
    for split, size in SPLIT_SIZES.items():
        classes = generator.integers(num_classes, size=size)
        features[split] = generator.standard_normal((size, 3, 12)).astype(np.float32)
        features[split][:, 1] += centers[classes]
        labels[split] = [f"class {number}" for number in classes]
    return features, labels


def test_weighted_sum_probe_finds_the_hidden_state_that_knows():
    result = weighted_sum_probe(*toy_features(signal=5.0))
    assert result["accuracy"] == 1.0
    assert np.argmax(result["layer_weights"]) == 1
    assert sum(result["layer_weights"]) == pytest.approx(1)
    assert (result["classes"], result["test_clips"]) == (4, 200)


def test_probes_are_at_chance_on_noise():
    features, labels = toy_features(signal=0.0)
    assert weighted_sum_probe(features, labels)["accuracy"] == pytest.approx(0.25, abs=0.1)
    assert layer_probes(features, labels)["mean_over_layers"] == pytest.approx(0.25, abs=0.1)


def test_weighted_sum_probe_repeats_itself_and_ignores_the_scale_of_hidden_states():
    features, labels = toy_features(signal=1.0)
    first = weighted_sum_probe(features, labels)
    assert weighted_sum_probe(features, labels) == first
    scales = np.array([1, 1000, 0.01], dtype=np.float32)[None, :, None]
    scaled = {split: values * scales for split, values in features.items()}
    assert weighted_sum_probe(scaled, labels)["accuracy"] == pytest.approx(first["accuracy"], abs=0.02)


def test_weighted_sum_probe_counts_an_unknown_class_as_wrong():
    features, labels = toy_features(signal=5.0)
    labels["test"] = ["never trained on"] * SPLIT_SIZES["test"]
    assert weighted_sum_probe(features, labels)["accuracy"] == 0.0
