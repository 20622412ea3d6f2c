"""The benchmark of graph convexity on few points."""

import pytest

from benchmarks import convexity_speed


def test_speed_grows_by_the_power_that_was_measured():
    rows = [{"num_points": points, "processor_seconds": 3e-7 * points**2} for points in (4000, 8000, 12000)]
    # Too few points for the fit.
    rows.append({"num_points": 1000, "processor_seconds": 100.0})
    speakers = convexity_speed.estimate(rows)
    assert speakers["power"] == pytest.approx(2)
    assert speakers["processor_seconds_of_a_layer"] == pytest.approx(3e-7 * 43474**2)
    assert speakers["processor_hours_of_13_layers"] == pytest.approx(13 * 3e-7 * 43474**2 / 3600)
    assert convexity_speed.estimate(rows[:1]) == {}


def test_a_measurement_of_speed_names_its_points():
    row = convexity_speed.measure(140, threads=1)
    assert (row["num_points"], row["dense_matrix_bytes"]) == (140, 8 * 140**2)
    assert row["processor_seconds"] > 0 and row["peak_bytes"] >= 0 and 0 < row["score"] <= 1
