"""The benchmark of graph convexity on few points."""

from benchmarks import convexity_speed


def test_a_measurement_of_speed_names_its_points():
    row = convexity_speed.measure(140, threads=1)
    assert (row["num_points"], row["dense_matrix_bytes"]) == (140, 8 * 140**2)
    assert row["processor_seconds"] > 0 and row["peak_bytes"] >= 0 and 0 < row["score"] <= 1
