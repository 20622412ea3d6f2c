"""K-means units of a teacher, on synthetic frames."""

import numpy as np

from experiments.teacher_units import TeacherUnits


def test_agreement_falls_with_the_distance_from_the_teacher():
    generator = np.random.default_rng(0)
    centers = 10 * generator.standard_normal((10, 8))
    frames = centers[generator.integers(10, size=1000)] + generator.standard_normal((1000, 8))
    units = TeacherUnits(frames)
    assert units.num_units == 20 and units.is_same(frames).all()
    noise = generator.standard_normal((1000, 8))
    agreements = [units.is_same(frames + scale * noise).mean() for scale in (0.1, 0.5, 10)]
    assert agreements[0] > 0.9 and agreements[0] > agreements[1] > agreements[2]
    assert units.is_same(generator.permutation(frames)).mean() < units.agreement_by_chance + 0.05 < 0.3


def test_a_shifted_student_has_other_units():
    frames = np.random.default_rng(0).standard_normal((500, 4))
    # The clusters would be the same, but the teacher's are not moved.
    assert TeacherUnits(frames).is_same(frames + 3).mean() < 0.5
