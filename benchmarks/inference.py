"""Latency of a forward pass: stock transformers, the dense prunable model and pruned shapes.

    python -m benchmarks inference --output_dir inference
    python -m benchmarks inference --output_dir inference --model hubert-base --shapes paper-28 --seconds 10 --padded
    python -m benchmarks inference --output_dir inference --device cuda --dtype bfloat16 --compile

Each round runs every model once: the stock model, and each prunable model as loaded and after
`prepare_for_inference_()`. Weights and audio are random, because the latency does not depend on their values.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser
from transformers.utils import logging

from benchmarks.compared_models import (
    ComparedModel,
    ModelArguments,
    compared_models,
    speedups,
    summarize_times,
)
from benchmarks.inference_picture import draw_latency
from benchmarks.inference_report import format_cases
from benchmarks.result_files import save_result, write_json
from hf_prunable.reporting.measurement import describe_machine, time_in_turn
from hf_prunable.reporting.provenance import library_versions, source_commit


@dataclass
class InferenceArguments(ModelArguments):
    """Models and batches to time."""

    seconds: list[float] = field(
        default_factory=lambda: [1.0, 5.0, 10.0, 30.0], metadata={"help": "Clip lengths in seconds."}
    )
    batch_sizes: list[int] = field(default_factory=lambda: [1, 8], metadata={"help": "Numbers of clips per batch."})
    threads: list[int] = field(
        default_factory=lambda: [1, 2],
        metadata={"help": "Numbers of CPU threads; on other devices only the first is used."},
    )
    padded: bool = field(
        default=False,
        metadata={
            "help": "Also time each batch with clips from half to full length, padded and with an attention mask."
        },
    )
    compile: bool = field(default=False, metadata={"help": "Compile the models with `torch.compile`."})
    repetitions: int = field(default=7, metadata={"help": "Number of timed rounds, after an untimed warm-up."})


@dataclass(frozen=True)
class Case:
    """One batch shape and number of threads.

    Attributes:
        seconds: Length of the longest clip in seconds.
        batch_size: Number of clips.
        threads: Number of CPU threads.
        padded: Whether clip lengths fall from the longest to half of it.
    """

    seconds: float
    batch_size: int
    threads: int
    padded: bool = False

    @property
    def name(self) -> str:
        """Title of the case in tables."""
        clips = f"{self.batch_size} x {self.seconds:g} s" if self.batch_size > 1 else f"{self.seconds:g} s"
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{clips}{', padded' if self.padded else ''}, {threads}"

    @property
    def clip_seconds(self) -> list[float]:
        """Length of each clip in seconds."""
        if not self.padded:
            return [self.seconds] * self.batch_size
        steps = self.batch_size - 1
        return [self.seconds * (1 - step / (2 * steps)) for step in range(self.batch_size)]


def plan_cases(options: InferenceArguments) -> list[Case]:
    """Lists all combinations of threads, padding, batch sizes and clip lengths.

    Args:
        options: Options of the benchmark.
    """
    threads = options.threads if options.device == "cpu" else options.threads[:1]
    return [
        Case(seconds, batch_size, count, padded)
        for count, padded, batch_size, seconds in product(
            threads, (False, True) if options.padded else (False,), options.batch_sizes, options.seconds
        )
        if batch_size > 1 or not padded
    ]


def measure(options: InferenceArguments) -> Iterator[dict[str, Any]]:
    """Times all models in all cases.

    Args:
        options: Options of the benchmark.

    Yields:
        After each case, the options, the machine and the rows of all cases so far, see `summarize`.

    Raises:
        ValueError: If a model or shape is unknown, or a number is not positive.
    """
    models = compared_models(options.load_shapes())
    built = {}
    for model in logging.tqdm(models, desc="Building models", unit="model"):
        built[model.name] = model.build(options.dtype, options.device)
        if options.compile:
            built[model.name] = torch.compile(built[model.name], dynamic=False)
    result = {
        **asdict(options),
        "versions": library_versions(),
        "commit": source_commit(),
        "cases": [],
    }
    del result["output_dir"], result["shapes_dir"]
    for case in logging.tqdm(plan_cases(options), desc="Cases", unit="case"):
        # Compiled code holds for one clip length and one number of threads, and the compiler keeps only a few versions.
        torch.compiler.reset()
        rounds = time_in_turn(built, case.clip_seconds, repetitions=options.repetitions, num_threads=case.threads)
        result["cases"].append(
            {
                "name": case.name,
                **asdict(case),
                "machine": describe_machine(options.device, case.threads),
                "models": summarize(models, case, rounds),
            }
        )
        yield result


def summarize(
    models: Sequence[ComparedModel], case: Case, rounds: Sequence[dict[str, float]]
) -> dict[str, dict[str, Any]]:
    """Summarizes the rounds of one case.

    Args:
        models: Models in the order of the rows, including the stock model.
        case: Case that was timed.
        rounds: For each round, the seconds of every model by name.

    Returns:
        By model name: "num_parameters"; "macs" of the batch; the values of `summarize_times`; "speedup_quartiles";
        "mac_ratio", the stock model's MACs divided by the model's; "speedup_per_mac_ratio", which is 1 where latency
        is proportional to MACs.
    """
    stock_macs = next(model for model in models if model.is_stock).macs(case.seconds, case.batch_size)
    rows = {}
    for model in models:
        macs, times = model.macs(case.seconds, case.batch_size), summarize_times(model.name, rounds)
        rows[model.name] = {
            "num_parameters": model.num_parameters,
            "macs": macs,
            "median_seconds": times["median_seconds"],
            "speedup": times["speedup"],
            "speedup_quartiles": _quartiles(speedups(model.name, rounds)),
            "mac_ratio": stock_macs / macs,
            "speedup_per_mac_ratio": times["speedup"] * macs / stock_macs,
            "seconds": times["seconds"],
        }
    return rows


def _quartiles(values: Sequence[float]) -> list[float]:
    if len(values) == 1:
        return [values[0], values[0]]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return [first, third]


def main() -> None:
    (options,) = HfArgumentParser(InferenceArguments).parse_args_into_dataclasses()
    folder = Path(options.output_dir)
    compiled = "-compiled" if options.compile else ""
    name = f"inference-{options.model}-{torch.device(options.device).type}-{options.dtype}{compiled}"
    for result in measure(options):
        # Saved after each case, so that an interrupted run keeps the finished cases.
        write_json(folder / f"{name}.json", result)
    save_result(folder, name, result, format_cases(result))
    draw_latency(result, folder / f"{name}.png")


if __name__ == "__main__":
    main()
