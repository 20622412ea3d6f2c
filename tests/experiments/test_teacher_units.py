"""Purity of k-means units on synthetic frames."""

import numpy as np
import pytest

from experiments.unit_purity import frame_units, purity, unit_purity


def test_purity():
    generator = np.random.default_rng(0)
    reference = generator.integers(20, size=20_000)
    assert purity(reference, reference) == 1.0
    assert purity((reference + 7) % 20, reference) == 1.0
    assert purity(generator.integers(20, size=20_000), reference) == pytest.approx(1 / 20, abs=0.02)
    # Of three and of two frames, two and one have the most frequent label.
    assert purity(np.array([0, 0, 0, 1, 1]), np.array([4, 4, 5, 5, 4])) == pytest.approx(3 / 5)
    with pytest.raises(ValueError, match="5 units and 4 reference labels"):
        purity(np.zeros(5), np.zeros(4))


def test_unit_purity_is_high_for_the_teacher_itself_and_low_for_noise():
    generator = np.random.default_rng(0)
    centers = 10 * generator.standard_normal((10, 8))
    frames = centers[generator.integers(10, size=1000)] + generator.standard_normal((1000, 8))
    units = frame_units(frames, seed=0)
    own = unit_purity(frames, units)
    assert (own["units"], own["frames"]) == (20, 1000)
    noise = unit_purity(generator.standard_normal((1000, 8)), units)
    assert own["purity"] > 0.5 > noise["purity"] >= noise["purity_by_chance"] - 0.05
