"""Overhead of gates: time of pruning steps with and without gates, alternating between the two.

    python -m benchmarks step_overhead --output_dir step_overhead --pairs 10
    python -m benchmarks step_overhead --output_dir step_overhead --family hubert --batch_size 8 --bf16

Models have base size. Weights and audio are random, because the time of a step does not depend on their values.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, HfArgumentParser

from benchmarks.result_files import save_result
from hf_prunable.modeling.auto import prunable_class
from hf_prunable.modeling.size import SAMPLING_RATE
from hf_prunable.modeling.units import PAPER_UNITS
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.pruning.constraint import Lagrangian
from hf_prunable.pruning.distillation import Distillation
from hf_prunable.pruning.objective import PruningObjective
from hf_prunable.pruning.student import NOISE_OFF
from hf_prunable.pruning.trainer import PruningTrainer
from hf_prunable.reporting.measurement import describe_machine, wait_for


TARGET_SPARSITY = 0.72


@dataclass
class OverheadArguments:
    """Model and batch to time."""

    family: str = field(default="wavlm", metadata={"help": "Model family: wavlm, hubert or wav2vec2."})
    units: list[str] = field(
        default_factory=lambda: [*PAPER_UNITS, "conv"], metadata={"help": "Kinds of units with gates."}
    )
    batch_size: int = field(default=8, metadata={"help": "Number of clips per step."})
    seconds: float = field(default=5.0, metadata={"help": "Clip length in seconds."})
    pairs: int = field(
        default=10, metadata={"help": "Number of timed steps with and without gates, after an untimed step of each."}
    )


class Step:
    """One optimizer step of a model of base size, as the Trainer takes it.

    Args:
        options: Options of the benchmark.
        training: Training arguments.
        units: Kinds of units with gates; empty for a step without gates.
    """

    def __init__(self, options: OverheadArguments, training: PruningTrainingArguments, units: list[str]):
        model_class = prunable_class(AutoConfig.for_model(options.family))
        student, teacher = (model_class(model_class.config_class(**NOISE_OFF)) for _ in range(2))
        if units:
            student.attach_gates(tuple(units))
        self.student = student
        objective = PruningObjective(student, Distillation(teacher, student.config), Lagrangian() if units else None)
        self.trainer = PruningTrainer(objective, training, SAMPLING_RATE, [TARGET_SPARSITY] if units else [])
        self.trainer.create_optimizer()
        self.objective = self.trainer.accelerator.prepare(objective).train()
        self.steps = 0
        generator = torch.Generator().manual_seed(0)
        shape = (options.batch_size, round(options.seconds * SAMPLING_RATE))
        self.batch = {"input_values": torch.randn(shape, generator=generator).to(training.device)}

    def __call__(self) -> float:
        """Takes a step and returns its time in seconds."""
        wait_for(self.trainer.args.device)
        start = time.perf_counter()
        self.student.set_gate_noise(0, self.steps)
        self.trainer.accelerator.backward(self.trainer.compute_loss(self.objective, self.batch))
        self.trainer.accelerator.clip_grad_norm_(self.objective.parameters(), self.trainer.args.max_grad_norm)
        self.trainer.optimizer.step()
        self.trainer.callback_handler.on_optimizer_step(self.trainer.args, self.trainer.state, self.trainer.control)
        self.objective.zero_grad()
        self.steps += 1
        wait_for(self.trainer.args.device)
        return time.perf_counter() - start


def measure(options: OverheadArguments, training: PruningTrainingArguments) -> dict[str, Any]:
    """Times steps with and without gates, alternating between the two.

    Args:
        options: Options of the benchmark.
        training: Training arguments.

    Returns:
        "overhead", the median of the pairs' time ratios minus 1; the median seconds; the seconds of each pair; the
        machine; the options.
    """
    gated, ungated = Step(options, training, options.units), Step(options, training, [])
    for step in (gated, ungated):
        step()
    pairs = [(gated(), ungated()) for _ in range(options.pairs)]
    return {
        "overhead": statistics.median(with_gates / without for with_gates, without in pairs) - 1,
        "median_seconds_with_gates": statistics.median(with_gates for with_gates, _ in pairs),
        "median_seconds_without_gates": statistics.median(without for _, without in pairs),
        "seconds_with_and_without_gates": pairs,
        "machine": describe_machine(training.device),
        **asdict(options),
        "bf16": training.bf16,
    }


def format_overhead(result: dict[str, Any]) -> str:
    """Formats the overhead as one sentence.

    Args:
        result: Result of `measure`.
    """
    return (
        f"Gates on {', '.join(result['units'])} in a pruning step of {result['family']} base: "
        f"{result['median_seconds_with_gates']:.3f} s, {result['median_seconds_without_gates']:.3f} s without, "
        f"{result['overhead']:+.1%} (median of {result['pairs']} pairs)."
    )


def main() -> None:
    options, training = HfArgumentParser((OverheadArguments, PruningTrainingArguments)).parse_args_into_dataclasses()
    result = measure(options, training)
    text = (
        f"{format_overhead(result)}\n\nSteps of {result['batch_size']} x {result['seconds']:g} s"
        f"{', bfloat16' if result['bf16'] else ''}. Measured on: {result['machine']}.\n"
    )
    save_result(Path(training.output_dir), f"step_overhead_{options.family}", result, text)


if __name__ == "__main__":
    main()
