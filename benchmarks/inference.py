"""How long a forward pass takes: stock transformers against the dense prunable model and its shapes, in turn.

    python -m benchmarks inference --output_dir inference
    python -m benchmarks inference --output_dir inference --model hubert-base --shapes paper-28 --seconds 10 --padded
    python -m benchmarks inference --output_dir inference --device cuda --dtype bfloat16 --compile

In every round each model runs once: the stock one, and each other one as loaded and after `prepare_for_inference_()`.
Weights and audio are random: the time of a pass does not depend on their values.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser
from transformers.utils import logging

from benchmarks.compared_models import STOCK, ComparedModel, ModelArguments, compared_models
from benchmarks.inference_picture import draw_latency
from benchmarks.inference_report import format_cases
from hf_prunable.reporting.measurement import describe_machine, time_in_turn
from hf_prunable.reporting.provenance import library_versions, source_commit
from hf_prunable.runtime.files import write_text_atomically


logger = logging.get_logger("hf_prunable.benchmarks")


@dataclass
class InferenceArguments(ModelArguments):
    """What to time."""

    seconds: list[float] = field(
        default_factory=lambda: [1.0, 5.0, 10.0, 30.0], metadata={"help": "Lengths of clips."}
    )
    batch_sizes: list[int] = field(default_factory=lambda: [1, 8], metadata={"help": "Clips at once."})
    threads: list[int] = field(
        default_factory=lambda: [1, 2],
        metadata={"help": "Threads of the CPU; on other devices only the first counts."},
    )
    padded: bool = field(
        default=False,
        metadata={"help": "Time each batch also with clips from half to full length, padded, with attention mask."},
    )
    compile: bool = field(default=False, metadata={"help": "Time what `torch.compile` makes of the models."})
    repetitions: int = field(default=7, metadata={"help": "Rounds that are timed, after a warm-up that is not."})


@dataclass(frozen=True)
class Case:
    """One kind of batch.

    Attributes:
        seconds: Length of the longest clip.
        batch_size: Clips.
        threads: Of the CPU.
        padded: Whether the other clips are shorter, down to half of it.
    """

    seconds: float
    batch_size: int
    threads: int
    padded: bool = False

    @property
    def name(self) -> str:
        """The case in words."""
        clips = f"{self.batch_size} x {self.seconds:g} s" if self.batch_size > 1 else f"{self.seconds:g} s"
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{clips}{', padded' if self.padded else ''}, {threads}"

    @property
    def clip_seconds(self) -> list[float]:
        """The length of each clip."""
        if not self.padded:
            return [self.seconds] * self.batch_size
        steps = self.batch_size - 1
        return [self.seconds * (1 - number / (2 * steps)) for number in range(self.batch_size)]


def plan_cases(options: InferenceArguments) -> list[Case]:
    """All kinds of batches that are asked for."""
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

    Yields:
        After each case, what was measured so far and on what, with a row for each case and model: see `summarize`.

    Raises:
        ValueError: If there is no such model or shape, or a number is not positive.
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
        # Compiled code is of one length and one number of threads, and the compiler keeps only a few.
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
    """What the rounds of one case come to.

    Args:
        models: In the order of the rows, the stock one among them.
        case: That was timed.
        rounds: For each, the seconds of every model.

    Returns:
        For each model its size, "median_seconds", "speedup" over stock (the median of the rounds' ratios) with its
        quartiles, "mac_ratio", the stock model's MACs over the model's, and "speedup_per_mac_ratio", which is 1 where
        time goes with MACs.
    """
    stock_macs = next(model for model in models if model.is_stock).macs(case.seconds, case.batch_size)
    rows = {}
    for model in models:
        times = [of_round[model.name] for of_round in rounds]
        ratios = [of_round[STOCK] / of_round[model.name] for of_round in rounds]
        speedup, macs = statistics.median(ratios), model.macs(case.seconds, case.batch_size)
        rows[model.name] = {
            "num_parameters": model.num_parameters,
            "macs": macs,
            "median_seconds": statistics.median(times),
            "speedup": speedup,
            "speedup_quartiles": _quartiles(ratios),
            "mac_ratio": stock_macs / macs,
            "speedup_per_mac_ratio": speedup * macs / stock_macs,
            "seconds": times,
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
    folder.mkdir(parents=True, exist_ok=True)
    compiled = "-compiled" if options.compile else ""
    name = f"inference-{options.model}-{torch.device(options.device).type}-{options.dtype}{compiled}"
    for result in measure(options):
        # Again after every case, so that hours of measuring are not lost with the last one.
        write_text_atomically(folder / f"{name}.json", json.dumps(result, indent=1) + "\n")
    table = format_cases(result)
    write_text_atomically(folder / f"{name}.md", table)
    draw_latency(result, folder / f"{name}.png")
    logger.warning(table)


if __name__ == "__main__":
    main()
