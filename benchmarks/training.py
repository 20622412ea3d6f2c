"""Time of a training step: stock transformers, the dense prunable model and pruned shapes, alternating between them.

    python -m benchmarks training --output_dir training
    python -m benchmarks training --output_dir training --model hubert-base --shapes paper-28 --batch_size 8 --bf16

By default it also measures the overhead of gates, see `benchmarks.step_overhead`. Weights and audio are random, because
the time of a step does not depend on their values.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser
from transformers.utils import logging

from benchmarks.compared_models import ComparedModel, compared_models, summarize_times
from benchmarks.result_files import save_result
from benchmarks.shape_files import ChosenShapes, ShapeFile
from benchmarks.step_overhead import OverheadArguments, format_overhead
from benchmarks.step_overhead import measure as measure_gates
from hf_prunable.modeling.size import SAMPLING_RATE
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.pruning.student import NOISE_OFF
from hf_prunable.reporting.measurement import describe_machine, wait_for
from hf_prunable.runtime.tables import markdown_table


@dataclass
class StepArguments(ChosenShapes):
    """Models and batch to time."""

    batch_size: int = field(default=8, metadata={"help": "Number of clips per step."})
    seconds: float = field(default=5.0, metadata={"help": "Clip length in seconds."})
    rounds: int = field(default=10, metadata={"help": "Number of timed steps of each model, after one untimed step."})
    gates: bool = field(
        default=True,
        metadata={"help": "Also time pruning steps of the family's base model with and without gates."},
    )


class FineTuningStep:
    """One fine-tuning step of all weights: forward, backward and AdamW, with a loss on the last hidden state.

    Args:
        model: Model to train.
        options: Options of the benchmark.
        training: Training arguments, for device, learning rate and bfloat16.
    """

    def __init__(self, model: ComparedModel, options: StepArguments, training: PruningTrainingArguments):
        self.model = model.build(device=str(training.device)).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=training.learning_rate)
        self.bf16 = training.bf16
        generator = torch.Generator().manual_seed(0)
        audio = torch.randn(options.batch_size, round(options.seconds * SAMPLING_RATE), generator=generator)
        self.audio = audio.to(training.device)

    def __call__(self) -> float:
        """Takes a step and returns its time in seconds."""
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
    shape_files: list[ShapeFile], options: StepArguments, training: PruningTrainingArguments
) -> dict[str, dict[str, Any]]:
    """Times the steps of all models, alternating between them.

    Args:
        shape_files: Shapes of one dense model.
        options: Options of the benchmark.
        training: Training arguments.

    Returns:
        By model name: "num_parameters" and the values of `summarize_times`.
    """
    # With layer drop, the time of a step would be random.
    shape_files = [replace(shape_file, config={**shape_file.config, **NOISE_OFF}) for shape_file in shape_files]
    models = compared_models(shape_files, prepared=False)
    steps = {
        model.name: FineTuningStep(model, options, training)
        for model in logging.tqdm(models, desc="Building models", unit="model")
    }
    rounds = [
        {name: step() for name, step in steps.items()}
        for _ in logging.tqdm(range(1 + options.rounds), desc="Training", unit="round")
    ][1:]
    return {
        model.name: {"num_parameters": model.num_parameters, **summarize_times(model.name, rounds)} for model in models
    }


def measure(options: StepArguments, training: PruningTrainingArguments) -> dict[str, Any]:
    """Times fine-tuning steps, and pruning steps with and without gates.

    Args:
        options: Options of the benchmark.
        training: Training arguments.

    Raises:
        ValueError: If a model or shape is unknown.
    """
    shape_files = options.load_shapes()
    result = {**asdict(options), "machine": describe_machine(training.device), "bf16": training.bf16}
    del result["shapes_dir"], result["gates"]
    result["fine_tuning"] = measure_fine_tuning(shape_files, options, training)
    if options.gates:
        family = shape_files[0].config["model_type"]
        overhead = OverheadArguments(
            family=family, batch_size=options.batch_size, seconds=options.seconds, pairs=options.rounds
        )
        result["gates"] = measure_gates(overhead, training)
    return result


def format_steps(result: dict[str, Any]) -> str:
    """Formats the fine-tuning steps and the overhead of gates as Markdown.

    Args:
        result: Result of `measure`.
    """
    rows = [
        (name, f"{row['num_parameters']:,}", f"{row['median_seconds']:.3f}", f"{row['speedup']:.2f}")
        for name, row in result["fine_tuning"].items()
    ]
    lines = [
        f"# {result['model']}, steps of {result['batch_size']} x {result['seconds']:g} s"
        f"{', bfloat16' if result['bf16'] else ''}\n",
        markdown_table(("Model", "Parameters", "Time per step (s)", "Speed-up over stock"), rows),
    ]
    lines.append(f"\nMedians of {result['rounds']} rounds, each with one step of every model.")
    if gates := result.get("gates"):
        lines.append(f"\n{format_overhead(gates)}")
    return "\n".join(lines) + f"\n\nMeasured on: {result['machine']}.\n"


def main() -> None:
    options, training = HfArgumentParser((StepArguments, PruningTrainingArguments)).parse_args_into_dataclasses()
    result = measure(options, training)
    name = f"training-{options.model}-{training.device.type}{'-bfloat16' if training.bf16 else ''}"
    save_result(Path(training.output_dir), name, result, format_steps(result))


if __name__ == "__main__":
    main()
