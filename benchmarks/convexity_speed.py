"""Time and memory of graph convexity: at the size of the published figures, and over the number of points.

    python -m benchmarks convexity --output_dir convexity_speed

Points are synthetic, with one normal distribution per class. On a machine with other load, CPU time is more reliable than
elapsed time. Memory is measured on Linux only.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib.externals.loky import get_reusable_executor
from threadpoolctl import threadpool_limits
from transformers import HfArgumentParser

from benchmarks.process_memory import in_fresh_process
from benchmarks.result_files import save_result
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.runtime.process_memory import peak, reset_peak
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
# Classes of the speaker task, with about 72 clips each.
SPEAKERS = 600
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
        default=2,
        metadata={"help": "Number of threads of the neighbor search, and of processes for the paths of large graphs."},
    )
    speaker_clips: int = field(
        default=SPEAKER_CLIPS, metadata={"help": "Number of points of the speaker task, of which one layer is scored."}
    )


def make_points(num_points: int, num_classes: int = NUM_CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Draws points around class centers, with a fixed random seed.

    Args:
        num_points: Number of points.
        num_classes: Number of classes.

    Returns:
        Features of shape (points, 768), float32, and the class index of each point.
    """
    random = np.random.default_rng(0)
    classes = np.arange(num_points) % num_classes
    centers = CENTER_SPREAD * random.standard_normal((num_classes, DIMENSIONS))
    return (centers[classes] + random.standard_normal((num_points, DIMENSIONS))).astype(np.float32), classes


def measure(num_points: int, threads: int, num_classes: int = NUM_CLASSES) -> dict[str, Any]:
    """Computes the convexity of synthetic points once. Call it in a fresh process.

    Args:
        num_points: Number of points.
        threads: Number of threads for the neighbor search, and of processes for the paths of large graphs.
        num_classes: Number of classes.

    Returns:
        Elapsed "seconds"; "processor_seconds" and "peak_bytes" of memory, both with those of the processes that share the
        work, whose libraries are in memory once but counted for each; "dense_matrix_bytes" of a float64 distance matrix
        of the points; "edges" of the graph; and the "score".
    """
    features, classes = make_points(num_points, num_classes)
    torch.set_num_threads(threads)
    with threadpool_limits(threads):
        # The first call loads libraries.
        graph_convexity(features[: 3 * num_classes], classes[: 3 * num_classes])
        memory = reset_peak()
        seconds, processor_seconds = time.perf_counter(), _processor_seconds()
        result = graph_convexity(features, classes)
        seconds = time.perf_counter() - seconds
        peak_bytes = peak() - memory + sum(peak(pid) for pid in _children())
        # Processor time of a process is counted when it has ended.
        get_reusable_executor().shutdown(wait=True)
        processor_seconds = _processor_seconds() - processor_seconds
    return {
        "num_points": num_points,
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "peak_bytes": peak_bytes,
        "dense_matrix_bytes": 8 * num_points**2,
        "edges": len(result.graph.edges),
        "score": result.score,
    }


def _children() -> list[int]:
    """Returns the ids of the processes that this one has started and that have not ended. Linux only."""
    lists = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return [int(pid) for pids in lists for pid in pids]


def _processor_seconds() -> float:
    """Returns the processor time of this process and of those that it has started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


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
        for row in [published["runs"][0], *result["growth"], result["speaker_task"]]
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
    speakers = result["speaker_task"]
    lines.append(
        f"\n{speakers['num_points']:,} points are the clips of the speaker task, in {SPEAKERS} classes. One layer takes "
        f"{speakers['seconds']:.0f} s; {HIDDEN_STATES} hidden states take {HIDDEN_STATES} times as long, "
        f"{HIDDEN_STATES * speakers['seconds'] / 60:.0f} min. Memory includes that of the processes that share the paths."
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
        "speaker_task": in_fresh_process(measure, options.speaker_clips, options.threads, SPEAKERS),
    }
    save_result(Path(options.output_dir), "convexity_speed", result, format_speed(result))


if __name__ == "__main__":
    main()
