"""Options of a pruning run: what to prune, by which method, and how the student is trained."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from ..modeling.size import MAC_SECONDS, Measure, choose_target
from ..modeling.units import DEFAULT_UNITS
from ..runtime.settings import result_settings
from .stock_shape import STOCK_UNITS


DEFAULT_TARGET = 0.72
# Steps of the second stage after learned gates.
DEFAULT_FINAL_STEPS = 25_000
# Names of the pruning methods.
GATES, ONE_SHOT, MAGNITUDE = METHODS = ("gates", "one_shot", "magnitude")
# Stands for the method that the other options of a command ask for.
AUTO_METHOD = "auto"
# Initial order of gates: by weight norms, the same on rotated heads, or that of one-shot pruning.
BY_WEIGHTS, ROTATED, BY_ONE_SHOT = GATE_STARTS = ("weights", "rotated", "one_shot")

# Arguments that the result of a pruning run depends on, beside those of any training.
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
# Learning rate of the gates: DPHuBERT's for 50,000 steps (arXiv 2305.17651). A shorter run gets a higher rate, because
# Adam moves a gate by about its rate per step: the product of rate and steps is then that of the best runs of 400 steps
# on a small WavLM, at a rate of 0.09.
GATE_RATE, GATE_RATE_TIMES_STEPS = 0.02, 36.0
# Learning rate of the multipliers: a tenth of the gates' where DPHuBERT has the same, see
# `parameter_groups`; in the same short runs 0.02.
MULTIPLIER_RATE, MULTIPLIER_RATE_TIMES_STEPS = 0.002, 8.0


@dataclass
class PruningArguments:
    """Options for the checkpoint, the method and the size of the pruned model.

    With `stock_shape`, the default of `prune_units` is "int" alone.

    Raises:
        ValueError: If method or start are unknown, or `stock_shape` and `prune_units` contradict each other.
    """

    model_name_or_path: str = field(
        metadata={"help": "Folder or Hub id of the checkpoint to prune, stock or pruned before."}
    )
    method: str = field(
        default=AUTO_METHOD,
        metadata={"help": "'one_shot', 'gates' or 'magnitude'; 'auto': as the options ask for."},
    )
    teacher_name_or_path: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the teacher; by default the checkpoint to prune."}
    )
    target_sparsity: list[float] | None = field(
        default=None,
        metadata={
            "help": f"Fractions of the dense encoder's parameters to remove, ascending; {DEFAULT_TARGET} by default."
        },
    )
    target_macs: list[float] | None = field(
        default=None,
        metadata={"help": "Fractions of its multiply-accumulates to remove, instead of `target_sparsity`."},
    )
    mac_seconds: float = field(
        default=MAC_SECONDS, metadata={"help": "Seconds of audio that multiply-accumulates are counted for."}
    )
    round_to: int | None = field(
        default=None, metadata={"help": "Multiple that widths are rounded to, which changes the size."}
    )
    prune_units: list[str] = field(
        default_factory=lambda: list(DEFAULT_UNITS),
        metadata={"help": "Kinds of units to prune: mha, head, qk, vo, ffn, int, conv."},
    )
    stock_shape: bool = field(
        default=False,
        metadata={"help": "Make a checkpoint of a stock class: one feed-forward width, attention whole."},
    )
    keep_other_weights: bool = field(
        default=False,
        metadata={"help": "Keep weights that the model has no place for in a file of their own beside it."},
    )
    ste: bool = field(default=True, metadata={"help": "Straight-through estimator for the gates' limits 0 and 1."})
    gate_start: str = field(
        default=BY_WEIGHTS,
        metadata={
            "help": "Initial order of the gates: by 'weights'; 'rotated', by weights on rotated heads; or 'one_shot', in "
            "which one-shot pruning would remove their units."
        },
    )
    refit: bool = field(
        default=False,
        metadata={"help": "Refit the pruned model to the teacher by least squares, after gates or magnitude."},
    )
    initial_drop_rate: float = field(
        default=0.05, metadata={"help": "Initial 1 - sigmoid(log_alpha) of gates; near 0, they close later."}
    )
    initial_norm_spread: float = field(
        default=1.0,
        metadata={
            "help": "Shift of the initial log_alpha for one standard deviation in the order of `gate_start`; 0 for "
            "equal gates."
        },
    )
    latency_seconds: float = field(default=10.0, metadata={"help": "Seconds of audio that latency is measured with."})
    override: bool = field(
        default=False, metadata={"help": "Continue an interrupted run although its settings have changed."}
    )

    def __post_init__(self):
        # As transformers does with `output_dir`.
        self.model_name_or_path = os.path.expanduser(self.model_name_or_path)
        if self.teacher_name_or_path is not None:
            self.teacher_name_or_path = os.path.expanduser(self.teacher_name_or_path)
        if self.method not in (*METHODS, AUTO_METHOD):
            raise ValueError(f"`method` is {self.method!r}; choose from {', '.join(map(repr, METHODS))}.")
        if self.gate_start not in GATE_STARTS:
            raise ValueError(f"`gate_start` is {self.gate_start!r}; choose from {', '.join(map(repr, GATE_STARTS))}.")
        # A recipe may give a single target without the brackets of a list.
        for name in ("target_sparsity", "target_macs"):
            if isinstance(getattr(self, name), int | float):
                setattr(self, name, [getattr(self, name)])
        if self.stock_shape:
            if set(self.prune_units) not in (set(DEFAULT_UNITS), set(STOCK_UNITS)):
                raise ValueError(
                    f"`prune_units` is {' '.join(self.prune_units)}, but with `stock_shape` only intermediate units (int) "
                    "are pruned, because the heads of a stock class are whole. Leave one of the two options out."
                )
            self.prune_units = list(STOCK_UNITS)

    def targets(self) -> tuple[list[float], Measure]:
        """Returns the targets and their measure.

        Raises:
            ValueError: If targets are given in parameters and in multiply-accumulates.
        """
        targets, measure = choose_target(self.target_sparsity, self.target_macs, self.mac_seconds)
        return [DEFAULT_TARGET] if targets is None else targets, measure


def default_gate_rates(max_steps: int) -> dict[str, float]:
    """Returns the default learning rates of gates and multipliers by the name of the argument.

    Args:
        max_steps: Number of steps of the first stage.
    """
    steps = max(max_steps, 1)
    return {
        "gate_learning_rate": max(GATE_RATE, GATE_RATE_TIMES_STEPS / steps),
        "multiplier_learning_rate": max(MULTIPLIER_RATE, MULTIPLIER_RATE_TIMES_STEPS / steps),
    }


@dataclass
class PruningTrainingArguments(TrainingArguments):
    """The Trainer's arguments with defaults for pruning, and learning rates and schedules of the gates.

    Learning rates and gradient clipping are those of DPHuBERT (arXiv 2305.17651) unless said otherwise.
    """

    output_dir: str = field(
        default="trainer_output", metadata={"help": "Folder for the pruned model; it must be new or empty."}
    )
    max_steps: int = field(
        default=50_000, metadata={"help": "Steps of the first stage, which trains gates and weights."}
    )
    final_steps: int | None = field(
        default=None,
        metadata={
            "help": f"Steps of the second stage, on the pruned model; by default {DEFAULT_FINAL_STEPS} after gates, else 0."
        },
    )
    learning_rate: float = field(
        default=2e-4, metadata={"help": "Peak learning rate of the weights in the first stage."}
    )
    final_learning_rate: float = field(
        default=1e-4, metadata={"help": "Peak learning rate of the weights in the second stage."}
    )
    warmup_steps: float = field(
        default=0.3, metadata={"help": "Warm-up steps of the first stage; below 1, a fraction of its steps."}
    )
    final_warmup_steps: float = field(
        default=0.2, metadata={"help": "Warm-up steps of the second stage; below 1, a fraction of its steps."}
    )
    gate_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Constant learning rate of the gates; by default "
            f"{GATE_RATE}, or {GATE_RATE_TIMES_STEPS:g} / max_steps if larger."
        },
    )
    multiplier_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Constant learning rate of multipliers; by default "
            f"{MULTIPLIER_RATE}, or {MULTIPLIER_RATE_TIMES_STEPS:g} / max_steps if larger."
        },
    )
    sparsity_warmup_steps: float = field(
        default=0.1, metadata={"help": "Steps in which the target rises from 0; below 1, a fraction."}
    )
    freeze_feature_encoder: bool | None = field(
        default=None,
        metadata={"help": "Do not train the convolutions; by default if ungated and the teacher's."},
    )
    max_grad_norm: float = field(default=10.0, metadata={"help": "Maximum norm of the gradients."})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "Training clips per device and step."})
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "Held-out clips per device and batch."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between two log entries."})
    eval_steps: float | None = field(
        default=None,
        metadata={"help": "Steps between two evaluations on held-out clips."},
    )
    save_steps: float = field(default=1000, metadata={"help": "Steps between two training checkpoints."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Maximum number of training checkpoints."})
    ddp_find_unused_parameters: bool | None = field(
        default=False,
        metadata={"help": "Search for parameters without a gradient in every step; pruning has none of them."},
    )

    def __post_init__(self):
        if self.eval_steps is not None:
            if self.eval_steps <= 0:
                raise ValueError(
                    f"`eval_steps` is {self.eval_steps:g}; it must be above 0: steps between two evaluations, or below 1 a "
                    "fraction of the steps. Leave it out to train without evaluations."
                )
            if self.eval_strategy == "no":
                self.eval_strategy = "steps"
        super().__post_init__()
        for name, rate in default_gate_rates(self.max_steps).items():
            if getattr(self, name) is None:
                setattr(self, name, rate)

    @property
    def num_final_steps(self) -> int:
        """Number of steps of the second stage; as after learned gates if none was given."""
        return DEFAULT_FINAL_STEPS if self.final_steps is None else self.final_steps

    @property
    def evaluates(self) -> bool:
        """Whether the held-out clips are evaluated during training."""
        return self.eval_strategy != "no" or self.eval_on_start

    @property
    def micro_batches_per_step(self) -> int:
        """Number of micro-batches of an optimizer step over all processes; where they are computed changes no result."""
        return self.gradient_accumulation_steps * self.world_size

    def settings(self) -> dict[str, Any]:
        """Returns the arguments that a result depends on, as values that JSON can hold."""
        settings = result_settings(self, *PRUNING_SETTINGS)
        return settings | {"micro_batches_per_step": self.micro_batches_per_step}

    def in_folder(self, folder: Path) -> PruningTrainingArguments:
        """Returns a copy whose files, such as checkpoints, go to another folder."""
        args = copy.copy(self)
        args.output_dir = str(folder)
        return args

    def with_final_steps(self, default: int) -> PruningTrainingArguments:
        """Returns a copy with a number of steps of the second stage.

        Args:
            default: Number of steps if none was given.
        """
        args = copy.copy(self)
        args.final_steps = default if self.final_steps is None else self.final_steps
        return args

    def for_final_stage(self) -> PruningTrainingArguments:
        """Returns a copy for the second stage, after compaction."""
        args = copy.copy(self)
        args.max_steps, args.learning_rate = self.num_final_steps, self.final_learning_rate
        args.warmup_steps = self.final_warmup_steps
        return args
