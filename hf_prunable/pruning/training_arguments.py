"""The Trainer's arguments with what pruning adds to them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from ..runtime.settings import result_settings


# Arguments that change the result of a pruning run, beside those of any training.
PRUNING_SETTINGS = (
    "final_steps",
    "final_learning_rate",
    "final_warmup_steps",
    "gate_learning_rate",
    "multiplier_learning_rate",
    "sparsity_warmup_steps",
    "freeze_feature_encoder",
    "seed",
    "per_device_train_batch_size",
)
# The paper's rates, for 50,000 steps; and the products of rate and steps of the best short runs, in benchmarks/results.
GATE_RATE, GATE_RATE_TIMES_STEPS = 0.02, 36.0
MULTIPLIER_RATE, MULTIPLIER_RATE_TIMES_STEPS = 0.002, 8.0


@dataclass
class PruningTrainingArguments(TrainingArguments):
    """The Trainer's arguments with defaults for pruning, and those of the gates.

    Rates and clipping are those of DPHuBERT (arXiv 2305.17651) unless said otherwise.
    """

    max_steps: int = field(default=50_000, metadata={"help": "Steps that learn the gates and the weights."})
    final_steps: int = field(
        default=25_000, metadata={"help": "Steps that train the small model after compaction; 0 to stop there."}
    )
    learning_rate: float = field(default=2e-4, metadata={"help": "Peak rate of the weights while gates learn."})
    final_learning_rate: float = field(default=1e-4, metadata={"help": "Peak rate of the weights after compaction."})
    warmup_steps: float = field(
        default=0.3,
        metadata={"help": "Steps in which the rate of the weights rises while gates learn; below 1, part of all."},
    )
    final_warmup_steps: float = field(
        default=0.2,
        metadata={"help": "Steps in which the rate of the weights rises after compaction; below 1, part of all."},
    )
    gate_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": f"Constant rate of the gates; by default {GATE_RATE}, or {GATE_RATE_TIMES_STEPS:g} / max_steps in "
            "shorter runs."
        },
    )
    multiplier_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Constant rate of the two multipliers of the sparsity constraint; by default "
            f"{MULTIPLIER_RATE}, or {MULTIPLIER_RATE_TIMES_STEPS:g} / max_steps in shorter runs."
        },
    )
    sparsity_warmup_steps: float = field(
        default=0.1,
        metadata={"help": "Steps in which the sparsity asked for rises from 0 to the target; below 1, part of all."},
    )
    freeze_feature_encoder: bool | None = field(
        default=None,
        metadata={
            "help": "Leave the convolutions as they are, which makes steps cheaper; by default where they are the "
            "teacher's and have no gates."
        },
    )
    max_grad_norm: float = field(default=10.0, metadata={"help": "Norm that gradients are clipped to."})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "Clips per device and step."})
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "Held-out clips per device at a time."})
    logging_steps: float = field(default=50, metadata={"help": "Log losses and sparsities every so many steps."})
    save_steps: float = field(default=1000, metadata={"help": "Keep a training checkpoint every so many steps."})
    save_total_limit: int | None = field(default=2, metadata={"help": "How many training checkpoints to keep."})
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Search every step for parameters without a gradient; there are none here."}
    )

    def __post_init__(self):
        super().__post_init__()
        steps = max(self.max_steps, 1)
        if self.gate_learning_rate is None:
            self.gate_learning_rate = max(GATE_RATE, GATE_RATE_TIMES_STEPS / steps)
        if self.multiplier_learning_rate is None:
            self.multiplier_learning_rate = max(MULTIPLIER_RATE, MULTIPLIER_RATE_TIMES_STEPS / steps)

    @property
    def micro_batches_per_step(self) -> int:
        """Batches that an optimizer step is made of, over all processes; only their number matters, not where they ran."""
        return self.gradient_accumulation_steps * self.world_size

    def settings(self) -> dict[str, Any]:
        """What a result depends on, as plain values."""
        settings = result_settings(self, *PRUNING_SETTINGS)
        return settings | {"micro_batches_per_step": self.micro_batches_per_step}

    def of_final_stage(self) -> PruningTrainingArguments:
        """These arguments for the stage after compaction."""
        args = copy.copy(self)
        args.max_steps, args.learning_rate = self.final_steps, self.final_learning_rate
        args.warmup_steps = self.final_warmup_steps
        return args
