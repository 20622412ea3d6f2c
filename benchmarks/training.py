"""What a training step costs: fine-tuning stock transformers, the dense prunable model and its shapes, in turn.

    python -m benchmarks training --output_dir training
    python -m benchmarks training --output_dir training --model hubert-base --shapes paper-28 --batch_size 8 --bf16

And what gates cost on top, see `benchmarks.step_overhead`. Weights and audio are random: the time of a step does not
depend on their values.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser
from transformers.utils import logging

from benchmarks.compared_models import STOCK, ComparedModel, compared_models
from benchmarks.result_files import save_result
from benchmarks.shape_files import ChosenShapes, ShapeFile
from benchmarks.step_overhead import OverheadArguments
from benchmarks.step_overhead import measure as measure_gates
from hf_prunable.modeling.size import SAMPLING_RATE
from hf_prunable.pruning.student import NOISE_OFF
from hf_prunable.pruning.training_arguments import PruningTrainingArguments
from hf_prunable.reporting.measurement import describe_machine, wait_for


logger = logging.get_logger("hf_prunable.benchmarks")


@dataclass
class StepArguments(ChosenShapes):
    """What to time."""

    batch_size: int = field(default=8, metadata={"help": "Clips of a step."})
    seconds: float = field(default=5.0, metadata={"help": "Their length."})
    rounds: int = field(default=10, metadata={"help": "Steps of each model, after one that is not counted."})
    gates: bool = field(
        default=True,
        metadata={"help": "Also time steps of a pruning run of the family's base model without gates and with."},
    )


class FineTuningStep:
    """One step that trains all weights of a model: forward, backward and AdamW, on a loss of the last hidden state.

    Args:
        model: To train.
        options: Of the benchmark.
        training: With device, rate and whether to use bfloat16.
    """

    def __init__(self, model: ComparedModel, options: StepArguments, training: PruningTrainingArguments):
        self.model = model.build(device=str(training.device)).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=training.learning_rate)
        self.bf16 = training.bf16
        generator = torch.Generator().manual_seed(0)
        audio = torch.randn(options.batch_size, round(options.seconds * SAMPLING_RATE), generator=generator)
        self.audio = audio.to(training.device)

    def __call__(self) -> float:
        """Takes a step; returns its seconds."""
        wait_for(self.audio.device)
        start = time.perf_counter()
        with torch.autocast(self.audio.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.model(self.audio).last_hidden_state.float().square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        wait_for(self.audio.device)
        return time.perf_counter() - start


def measure_fine_tuning(
    shapes: list[ShapeFile], options: StepArguments, training: PruningTrainingArguments
) -> dict[str, dict[str, Any]]:
    """Times the steps of all models in turn.

    Args:
        shapes: Of one model.
        options: Of the benchmark.
        training: Of the step.

    Returns:
        For each model the seconds of its steps, their median, and "speedup", the median of the rounds' ratios of the
        stock model's seconds to its own.
    """
    # Layer drop would make a step's time a matter of chance.
    shapes = [replace(shape, config={**shape.config, **NOISE_OFF}) for shape in shapes]
    models = compared_models(shapes, prepared=False)
    steps = {
        model.name: FineTuningStep(model, options, training)
        for model in logging.tqdm(models, desc="Building models", unit="model")
    }
    rounds = [
        {name: step() for name, step in steps.items()}
        for _ in logging.tqdm(range(1 + options.rounds), desc="Training", unit="round")
    ][1:]
    rows = {}
    for model in models:
        times = [of_round[model.name] for of_round in rounds]
        rows[model.name] = {
            "num_parameters": model.num_parameters,
            "median_seconds": statistics.median(times),
            "speedup": statistics.median(of_round[STOCK] / of_round[model.name] for of_round in rounds),
            "seconds": times,
        }
    return rows


def measure(options: StepArguments, training: PruningTrainingArguments) -> dict[str, Any]:
    """Times fine-tuning, and pruning with and without gates.

    Raises:
        ValueError: If there is no such model or shape.
    """
    shapes = options.load_shapes()
    result = {**asdict(options), "machine": describe_machine(training.device), "bf16": training.bf16}
    del result["shapes_dir"], result["gates"]
    result["fine_tuning"] = measure_fine_tuning(shapes, options, training)
    if options.gates:
        family = shapes[0].config["model_type"]
        overhead = OverheadArguments(
            family=family, batch_size=options.batch_size, seconds=options.seconds, pairs=options.rounds
        )
        result["gates"] = measure_gates(overhead, training)
    return result


def format_steps(result: dict[str, Any]) -> str:
    """A table of the fine-tuning steps and a line about gates, as Markdown.

    Args:
        result: As `measure` gives it.
    """
    lines = [
        f"# {result['model']}, steps of {result['batch_size']} x {result['seconds']:g} s"
        f"{', bfloat16' if result['bf16'] else ''}\n",
        "| model | parameters | seconds a step | speed-up over stock |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, row in result["fine_tuning"].items():
        cells = f"{row['num_parameters']:,} | {row['median_seconds']:.3f} | {row['speedup']:.2f}"
        lines.append(f"| {name} | {cells} |")
    lines.append(f"\nMedians of {result['rounds']} rounds, in each of which all models took a step.")
    if gates := result.get("gates"):
        lines.append(
            f"\nGates on {', '.join(gates['units'])} in a step of a pruning run of {gates['family']} base: "
            f"{gates['median_seconds_with_gates']:.3f} s, {gates['median_seconds_without_gates']:.3f} s without, "
            f"{gates['overhead']:+.1%} (median of {gates['pairs']} pairs)."
        )
    return "\n".join(lines) + f"\n\nMeasured on: {result['machine']}.\n"


def main() -> None:
    options, training = HfArgumentParser((StepArguments, PruningTrainingArguments)).parse_args_into_dataclasses()
    result = measure(options, training)
    name = f"training-{options.model}-{training.device.type}{'-bfloat16' if training.bf16 else ''}"
    save_result(Path(training.output_dir), name, result, format_steps(result))


if __name__ == "__main__":
    main()
