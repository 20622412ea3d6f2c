"""Time and memory of graph convexity: at the size of the published figures, and over the number of points.

    python -m benchmarks convexity --output_dir convexity_speed

Points are synthetic, with one normal distribution per class. On a machine with other load, CPU time is more reliable than
elapsed time. Memory is measured on Linux only.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from transformers import HfArgumentParser

from benchmarks.process_memory import in_fresh_process
from benchmarks.result_files import save_result
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.runtime import process_memory
from hf_prunable.runtime.tables import markdown_table
from hf_prunable.truncation.class_pairs import ClassPairs, PointClasses
from hf_prunable.truncation.convexity import graph_convexity, score_paths
from hf_prunable.truncation.convexity_config import ConvexityConfig


# Size of the published figures (arXiv 2408.11858): 57 clips of each of the 35 words of Speech Commands.
NUM_POINTS, NUM_CLASSES, DIMENSIONS = 1995, 35, 768
# Fastest and slowest time of the authors' code for one layer of these points.
REFERENCE_SECONDS = (78, 181)
# The speaker task: number of clips, and hidden states of a base model.
SPEAKER_CLIPS, HIDDEN_STATES = 43474, 13
# Smaller numbers of points are left out of the fit, because constant costs dominate there.
LEAST_POINTS_OF_FIT = 4000
NUM_PERMUTATIONS = ConvexityConfig.num_permutations
# Standard deviation of the class centers; within a class it is 1.
CENTER_SPREAD = 0.25


@dataclass
class SpeedArguments:
    """Numbers of points and repetitions."""

    output_dir: str = field(metadata={"help": "Output folder."})
    num_points: list[int] = field(
        default_factory=lambda: [1000, 2000, 4000, 8000, 12000],
        metadata={"help": "Numbers of points to measure the growth of time and memory with."},
    )
    repeats: int = field(default=3, metadata={"help": "Number of measurements at the size of the published figures."})
    threads: int = field(
        default=2, metadata={"help": "Number of threads for the neighbor search; shortest paths use one."}
    )


def make_points(num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws points around class centers, with a fixed random seed.

    Args:
        num_points: Number of points.

    Returns:
        Features of shape (points, 768), float32, and the class index of each point.
    """
    random = np.random.default_rng(0)
    classes = np.arange(num_points) % NUM_CLASSES
    centers = CENTER_SPREAD * random.standard_normal((NUM_CLASSES, DIMENSIONS))
    return (centers[classes] + random.standard_normal((num_points, DIMENSIONS))).astype(np.float32), classes


def measure(num_points: int, threads: int) -> dict[str, Any]:
    """Computes the convexity of synthetic points once. Call it in a fresh process.

    Args:
        num_points: Number of points.
        threads: Number of threads for the neighbor search.

    Returns:
        Elapsed "seconds", "processor_seconds", "peak_bytes" of memory, "dense_matrix_bytes" of a float64 distance
        matrix of the points, "edges" of the graph, and the "score".
    """
    features, classes = make_points(num_points)
    with threadpool_limits(threads):
        # The first call loads libraries.
        graph_convexity(features[: 3 * NUM_CLASSES], classes[: 3 * NUM_CLASSES])
        memory = process_memory.reset_peak()
        seconds, processor_seconds = time.perf_counter(), time.process_time()
        result = graph_convexity(features, classes)
        seconds, processor_seconds = time.perf_counter() - seconds, time.process_time() - processor_seconds
        peak = process_memory.peak() - memory
    return {
        "num_points": num_points,
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "peak_bytes": peak,
        "dense_matrix_bytes": 8 * num_points**2,
        "edges": len(result.graph.edges),
        "score": result.score,
    }


def measure_permutations(num_points: int) -> dict[str, Any]:
    """Times the scores of an existing graph, with and without permuted labels. Call it in a fresh process.

    Args:
        num_points: Number of points.

    Returns:
        "num_points", number of "permutations", "processor_seconds_without" and "processor_seconds_with" permutations.
    """
    features, classes = make_points(num_points)
    graph = graph_convexity(features, classes).graph
    pairs = ClassPairs(PointClasses.from_labels(classes, num_points), ConvexityConfig())
    permutations = [np.random.default_rng(seed).permutation(num_points) for seed in range(NUM_PERMUTATIONS)]
    seconds = []
    for permuted in ([], permutations):
        start = time.process_time()
        score_paths(graph, [pairs], permuted)
        seconds.append(time.process_time() - start)
    return {
        "num_points": num_points,
        "permutations": NUM_PERMUTATIONS,
        "processor_seconds_without": seconds[0],
        "processor_seconds_with": seconds[1],
    }


def estimate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Extrapolates the CPU time of the speaker task by a power law fitted to the larger measurements.

    Args:
        rows: Results of `measure`.

    Returns:
        "power" of the number of points, number of "clips", "processor_seconds_of_a_layer",
        "processor_hours_of_13_layers"; empty with fewer than two measurements of 4,000 points or more.
    """
    rows = [row for row in rows if row["num_points"] >= LEAST_POINTS_OF_FIT]
    if len(rows) < 2:
        return {}
    logarithms = np.log([[row["num_points"], row["processor_seconds"]] for row in rows])
    power, constant = np.polyfit(*logarithms.T, 1)
    seconds = float(np.exp(constant + power * np.log(SPEAKER_CLIPS)))
    return {
        "power": float(power),
        "clips": SPEAKER_CLIPS,
        "processor_seconds_of_a_layer": seconds,
        "processor_hours_of_13_layers": HIDDEN_STATES * seconds / 3600,
    }


def format_speed(result: dict[str, Any]) -> str:
    """Formats time and memory as Markdown.

    Args:
        result: Values that `main` saves.
    """
    published = result["published_size"]
    header = ("Points", "Time (s)", "CPU time (s)", "Peak memory (MB)", "Dense float64 distance matrix (MB)")
    rows = [
        (
            f"{row['num_points']:,}",
            f"{row['seconds']:.2f}",
            f"{row['processor_seconds']:.2f}",
            f"{row['peak_bytes'] / 1e6:.0f}",
            f"{row['dense_matrix_bytes'] / 1e6:.0f}",
        )
        for row in [published["runs"][0], *result["growth"]]
    ]
    lines = [markdown_table(header, rows, "rrrrr")]
    low, high = published["reference_seconds"]
    lines.append(
        f"\n{published['num_points']:,} points: median {published['median_seconds']:.2f} s, CPU time "
        f"{published['median_processor_seconds']:.2f} s, of {len(published['runs'])} runs; the authors' code takes "
        f"{low} to {high} s."
    )
    permutations = result["permutations"]
    lines.append(
        f"\nScores of an existing graph: {permutations['processor_seconds_without']:.2f} s of CPU time; with "
        f"{permutations['permutations']} permutations of the labels {permutations['processor_seconds_with']:.2f} s."
    )
    if speakers := result["speaker_task"]:
        lines.append(
            f"\nExtrapolated to {speakers['clips']:,} points (power {speakers['power']:.2f}): "
            f"{speakers['processor_seconds_of_a_layer']:.0f} s of CPU time for a layer, "
            f"{speakers['processor_hours_of_13_layers']:.1f} h for {HIDDEN_STATES} hidden states."
        )
    return "\n".join(lines) + (
        f"\n\n{result['classes']} classes, {result['dimensions']} dimensions. Measured on: {result['machine']}.\n"
    )


def main() -> None:
    (options,) = HfArgumentParser(SpeedArguments).parse_args_into_dataclasses()
    published = [in_fresh_process(measure, NUM_POINTS, options.threads) for _ in range(options.repeats)]
    permutations = in_fresh_process(measure_permutations, NUM_POINTS)
    growth = [in_fresh_process(measure, num_points, options.threads) for num_points in options.num_points]
    result = {
        "machine": describe_machine("cpu", options.threads),
        "dimensions": DIMENSIONS,
        "classes": NUM_CLASSES,
        "published_size": {
            "num_points": NUM_POINTS,
            "median_seconds": statistics.median(row["seconds"] for row in published),
            "median_processor_seconds": statistics.median(row["processor_seconds"] for row in published),
            "reference_seconds": REFERENCE_SECONDS,
            "runs": published,
        },
        "permutations": permutations,
        "growth": growth,
        "speaker_task": estimate(growth),
    }
    save_result(Path(options.output_dir), "convexity_speed", result, format_speed(result))


if __name__ == "__main__":
    main()
