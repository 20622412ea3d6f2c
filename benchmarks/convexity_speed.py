"""Time and memory of graph convexity: at the size of the published figures, and as the number of points grows.

    python -m benchmarks.convexity_speed --output_dir convexity_speed

Points are made up: one normal distribution for each class. On a machine with other work, look at the processor's seconds
and not at those that passed. Memory is measured on Linux only.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from transformers import HfArgumentParser

from benchmarks import process_memory
from benchmarks.process_memory import in_fresh_process
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.runtime.files import write_text_atomically
from hf_prunable.truncation.class_pairs import ClassPairs, PointClasses
from hf_prunable.truncation.convexity import graph_convexity, score_paths


# Of the published figures: clips of the 35 words of Speech Commands, 57 each.
NUM_POINTS, NUM_CLASSES, DIMENSIONS = 1995, 35, 768
# Of one layer of these points by the authors' code, fastest and slowest.
REFERENCE_SECONDS = (78, 181)
# Of the speaker task: base models have 13 hidden states.
SPEAKER_CLIPS, HIDDEN_STATES = 43474, 13
# Smaller numbers of points tell nothing about how time grows.
LEAST_POINTS_OF_FIT = 4000
NUM_PERMUTATIONS = 20
# Between the centres of the classes, against the spread of 1 within each.
CENTER_SPREAD = 0.25


@dataclass
class SpeedArguments:
    """What to measure."""

    output_dir: str = field(metadata={"help": "Folder for the result, `convexity_speed.json`."})
    num_points: list[int] = field(
        default_factory=lambda: [1000, 2000, 4000, 8000, 12000],
        metadata={"help": "Numbers of points to grow through."},
    )
    repeats: int = field(default=3, metadata={"help": "Of the measurement at the size of the published figures."})
    threads: int = field(default=2, metadata={"help": "Of the search for neighbours; the paths take one."})


def make_points(num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Features, float32, and classes."""
    random = np.random.default_rng(0)
    classes = np.arange(num_points) % NUM_CLASSES
    centers = CENTER_SPREAD * random.standard_normal((NUM_CLASSES, DIMENSIONS))
    return (centers[classes] + random.standard_normal((num_points, DIMENSIONS))).astype(np.float32), classes


def measure(num_points: int, threads: int) -> dict[str, Any]:
    """Scores so many points once; to be called in a process of its own."""
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
    """Scores so many points with and without permuted labels, the graph being there."""
    features, classes = make_points(num_points)
    graph = graph_convexity(features, classes).graph
    pairs = ClassPairs(PointClasses.of(classes, num_points), 5000, 42)
    permutations = [np.random.default_rng(number).permutation(num_points) for number in range(NUM_PERMUTATIONS)]
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


def estimate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The speaker task's time, by the power of the number of points that fits the larger measurements."""
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


def main() -> None:
    (options,) = HfArgumentParser(SpeedArguments).parse_args_into_dataclasses()
    # Each in a fresh process, so that memory is not what was freed before.
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
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / "convexity_speed.json", json.dumps(result, indent=1) + "\n")
    print("points | seconds | processor seconds | peak memory, MB | dense float64 matrix, MB")
    for row in [published[0], *growth]:
        print(
            f"{row['num_points']} | {row['seconds']:.2f} | {row['processor_seconds']:.2f} | "
            f"{row['peak_bytes'] / 1e6:.0f} | {row['dense_matrix_bytes'] / 1e6:.0f}"
        )
    print(json.dumps(result["speaker_task"]))


if __name__ == "__main__":
    main()
