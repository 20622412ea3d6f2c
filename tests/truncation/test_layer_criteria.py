"""Probes, block influence and similarity to the last layer."""

import numpy as np
import pytest

from hf_prunable.truncation import layer_criteria
from hf_prunable.truncation.class_pairs import PointClasses
from hf_prunable.truncation.layer_criteria import block_influence, linear_cka, probe_accuracy


def toy_features(signal, count=90, num_classes=3, dimensions=6, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    features = generator.standard_normal((count, dimensions))
    features[:, :num_classes] += signal * np.eye(num_classes)[labels]
    return features.astype(np.float32), PointClasses.from_labels(labels, count)


def test_probe_knows_classes_and_is_at_chance_on_noise():
    accuracy, error = probe_accuracy(*toy_features(signal=20), seed=42)
    assert (accuracy, error) == (1.0, 0.0)
    accuracy, error = probe_accuracy(*toy_features(signal=0), seed=42)
    assert accuracy == pytest.approx(1 / 3, abs=0.15)
    assert error == pytest.approx(np.sqrt(accuracy * (1 - accuracy) / 90))


def test_probe_takes_classes_of_two_clips():
    features, _ = toy_features(signal=20)
    classes = PointClasses.from_labels(["rare", "rare", *["often"] * 88], 90)
    assert probe_accuracy(features, classes, seed=42)[0] > 0.9


def test_probe_of_many_clips_samples_each_class_by_its_share(monkeypatch):
    monkeypatch.setattr(layer_criteria, "MAX_PROBE_CLIPS", 100)
    labels = np.repeat([0, 1, 2, 3], [1000, 500, 40, 3])
    classes = PointClasses.from_labels(np.random.default_rng(0).permutation(labels), len(labels))
    clips = layer_criteria._sample_by_class(classes, 100, seed=1)
    assert np.bincount(classes.codes[clips]).tolist() == [65, 32, 5, 3]
    assert (np.diff(clips) > 0).all()
    assert clips.tolist() != layer_criteria._sample_by_class(classes, 100, seed=2).tolist()
    features = np.random.default_rng(0).standard_normal((len(labels), 4))
    accuracy, error = probe_accuracy(features, classes, seed=42)
    assert error == pytest.approx(np.sqrt(accuracy * (1 - accuracy) / 105))


def test_block_influence_is_what_turns_a_vector():
    first = np.array([[1.0, 0.0], [0.0, 2.0]])
    layers = np.stack([first, 3 * first, [[0, 1], [2, 0]], [[0, -1], [2, 0]]]).astype(np.float32)
    assert block_influence(layers) == pytest.approx([0, 1, 1], abs=1e-6)


def test_cka_ignores_rotation_factor_and_offset_alone():
    generator = np.random.default_rng(0)
    features = generator.standard_normal((200, 5)).astype(np.float32)
    rotation, _ = np.linalg.qr(generator.standard_normal((5, 5)))
    assert linear_cka(features, 3 * features @ rotation + 7) == pytest.approx(1, abs=1e-6)
    assert linear_cka(features, features**2) < 0.2
    other = features + generator.standard_normal((200, 5))
    assert 0.2 < linear_cka(features, other) < 0.9
    assert linear_cka(features, other) == pytest.approx(linear_cka(other, features))


def test_cka_equals_the_definition_by_gram_matrices():
    generator = np.random.default_rng(1)
    first, second = generator.standard_normal((30, 4)), generator.standard_normal((30, 7))
    center = np.eye(30) - 1 / 30
    grams = [center @ values @ values.T @ center for values in (first, second)]
    expected = np.sum(grams[0] * grams[1]) / np.sqrt(np.sum(grams[0] ** 2) * np.sum(grams[1] ** 2))
    assert linear_cka(first, second) == pytest.approx(expected, abs=1e-12)


def test_cka_of_features_that_are_all_the_same_is_refused():
    with pytest.raises(ValueError, match="same for all clips"):
        linear_cka(np.ones((4, 2)), np.random.default_rng(0).standard_normal((4, 2)))
