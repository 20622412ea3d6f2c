"""Training of gates and weights on transformers' Trainer, and so on Accelerate."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

from .decisions import deterministic_sparsity
from .distillation import Distillation, captured_hidden_states
from .gates import HardConcreteGate
from .sparsity import Lagrangian, expected_sparsity, gate_statistics, target_at
from .throughput import Throughput


logger = logging.get_logger(__name__)

# The Trainer's arguments that a result depends on; the others are about devices, logs and files.
RESULT_ARGUMENTS = (
    "max_steps final_steps learning_rate final_learning_rate warmup_steps final_warmup_steps gate_learning_rate "
    "multiplier_learning_rate sparsity_warmup_steps max_grad_norm weight_decay optim optim_args adam_beta1 adam_beta2 "
    "adam_epsilon lr_scheduler_type lr_scheduler_kwargs seed bf16 fp16 per_device_train_batch_size"
).split()
LOGGED_LOSSES = {"distillation_loss", "task_loss"}
# Adam moves a parameter by about its rate in a step, and a gate has to come from 4.6 to -2.4 and further, against
# the distillation's gradient: below this sum of rates it does not get there.
GATE_DISTANCE = 15.0
# With Adam's usual memory of a thousand steps, multipliers that grew while the gates were on their way shrink again so
# slowly that the sparsity overshoots its target and the gates run into their bounds.
MULTIPLIER_BETAS = (0.9, 0.95)


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
    gate_learning_rate: float = field(default=0.02, metadata={"help": "Constant rate of the gates."})
    multiplier_learning_rate: float = field(
        default=0.002, metadata={"help": "Constant rate of the two multipliers of the sparsity constraint."}
    )
    sparsity_warmup_steps: float = field(
        default=0.1,
        metadata={"help": "Steps in which the sparsity asked for rises from 0 to the target; below 1, part of all."},
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

    @property
    def micro_batches_per_step(self) -> int:
        """Batches that an optimizer step is made of, over all processes; only their number matters, not where they ran."""
        return self.gradient_accumulation_steps * self.world_size

    def settings(self) -> dict[str, Any]:
        """What a result depends on, as plain values."""
        values = self.to_dict()
        settings = {name: values[name] for name in RESULT_ARGUMENTS}
        return settings | {"micro_batches_per_step": self.micro_batches_per_step}

    def of_final_stage(self) -> PruningTrainingArguments:
        """These arguments for the stage after compaction."""
        args = copy.copy(self)
        args.max_steps, args.learning_rate = self.final_steps, self.final_learning_rate
        args.warmup_steps = self.final_warmup_steps
        return args


class PruningObjective(nn.Module):
    """Student, losses and the sparsity constraint as one module, so that every strategy sees all parameters.

    Args:
        student: A prunable model; with a head for a task's loss.
        distillation: With the teacher; `None` for a task's loss alone.
        lagrangian: The constraint; `None` for a student without gates.
        task_weight: Of the loss that the student's head computes from labels, beside the distillation's of 1.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        distillation: Distillation | None,
        lagrangian: Lagrangian | None = None,
        task_weight: float = 0.0,
    ):
        super().__init__()
        self.student = student
        self.distillation = distillation
        self.lagrangian = lagrangian
        self.task_weight = task_weight
        for name, parameter in student.named_parameters():
            # What takes no part in the loss would be waited for by DDP.
            if name.endswith("masked_spec_embed") or (not task_weight and name.startswith("adapter.")):
                parameter.requires_grad = False

    @property
    def _no_split_modules(self) -> list[str]:
        # What FSDP wraps, by Accelerate's name for it.
        return self.student._no_split_modules

    def train(self, mode: bool = True) -> PruningObjective:
        super().train(mode)
        for module in self.student.modules():
            if isinstance(module, nn.BatchNorm1d):
                # Its statistics are the teacher's, gathered over far more audio than a batch.
                module.eval()
        return self

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Recomputes the student's activations in the backward pass; the Trainer calls it."""
        self.student.activation_checkpointing_enable(*args, **kwargs)

    def forward(
        self, input_values: torch.Tensor, target_sparsity: float = 0.0, **inputs: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Losses of a batch.

        Args:
            input_values: Of shape (batch, samples).
            target_sparsity: What the constraint asks for.
            **inputs: Of the student: `labels`, and `attention_mask` where clips are padded.

        Returns:
            "loss", with the constraint; "objective_loss", without it; its parts "distillation_loss" and "task_loss"
            where there are both; and with gates "expected_sparsity".
        """
        layers = () if self.distillation is None else self.distillation.layers
        with captured_hidden_states(self.student, layers) as hidden_states:
            outputs = self.student(input_values, **inputs)
        parts = {}
        if self.distillation is not None:
            parts["distillation_loss"] = self.distillation.compare(
                hidden_states, input_values, inputs.get("attention_mask")
            )
        if self.task_weight:
            parts["task_loss"] = self.task_weight * outputs.loss
        loss = sum(parts.values())
        result = {"loss": loss, "objective_loss": loss.detach()}
        result |= {name: part.detach() for name, part in parts.items()}
        if self.lagrangian is not None:
            sparsity = expected_sparsity(self.student)
            result["loss"] = loss + self.lagrangian(sparsity, target_sparsity)
            result["expected_sparsity"] = sparsity.detach()
        return result


def _constant(step: int) -> float:
    return 1.0


class _AfterStep(TrainerCallback):
    """Clamps the gates after each optimizer step, and counts the micro-batches of a step."""

    def __init__(self, trainer: PruningTrainer):
        self.trainer = trainer

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer.micro_batch = 0

    def on_optimizer_step(self, args, state, control, **kwargs):
        for module in self.trainer.model.modules():
            if isinstance(module, HardConcreteGate):
                module.clamp_()


class PruningTrainer(Trainer):
    """Trains a `PruningObjective`: weights by descent, gates at their own rate, multipliers by ascent.

    Args:
        model: The objective.
        args: Of this stage.
        target_sparsity: What the constraint rises to; ignored without gates.
        **kwargs: Passed to `Trainer`.
    """

    def __init__(
        self, model: PruningObjective, args: PruningTrainingArguments, target_sparsity: float = 0.0, **kwargs: Any
    ):
        args.remove_unused_columns = False
        args.label_names = []
        super().__init__(model=model, args=args, **kwargs)
        self.target_sparsity = target_sparsity
        warmup = args.sparsity_warmup_steps
        self.sparsity_warmup_steps = round(warmup * args.max_steps if warmup < 1 else warmup)
        self.micro_batch = 0
        self._losses: dict[str, list[torch.Tensor]] = {}
        self._throughput = Throughput(args)
        self.add_callback(_AfterStep(self))
        if model.distillation is not None:
            # The teacher is no submodule, and so is not moved with the model. It is only read: bfloat16 will do where
            # the products are bfloat16 anyway.
            in_half = self.accelerator.mixed_precision == "bf16"
            model.distillation.teacher.to(args.device, torch.bfloat16 if in_half else torch.float32)
        if model.lagrangian is not None:
            distance = args.gate_learning_rate * (args.max_steps - self.sparsity_warmup_steps)
            if distance < GATE_DISTANCE:
                logger.warning(
                    f"Gates at a rate of {args.gate_learning_rate} can move by about {distance:.1f} in the "
                    f"{args.max_steps - self.sparsity_warmup_steps} steps after the sparsity's rise, and need "
                    f"{GATE_DISTANCE:.0f} to settle. Raise `gate_learning_rate` or `max_steps`."
                )

    @property
    def current_target(self) -> float:
        """The sparsity asked for at this step."""
        return target_at(self.state.global_step, self.target_sparsity, self.sparsity_warmup_steps)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Groups the parameters: weights with projections, gates, multipliers."""
        if self.optimizer is not None:
            return self.optimizer
        weights, gates, multipliers = [], [], []
        for name, parameter in (model or self.model).named_parameters():
            if parameter.requires_grad:
                is_gate, is_multiplier = name.endswith("log_alpha"), "lagrangian." in name
                (gates if is_gate else multipliers if is_multiplier else weights).append(parameter)
        groups = [{"params": weights, "weight_decay": self.args.weight_decay}]
        if gates:
            groups.append({"params": gates, "lr": self.args.gate_learning_rate, "weight_decay": 0.0})
            # Slower than the gates: a gate has to feel what it costs before the constraint outweighs every difference
            # between gates, or all of a size shut at once.
            groups.append(
                {
                    "params": multipliers,
                    "lr": self.args.multiplier_learning_rate,
                    "weight_decay": 0.0,
                    "maximize": True,
                    "betas": MULTIPLIER_BETAS,
                }
            )
        optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(self.args)
        self.optimizer = optimizer_class(groups, **kwargs)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The schedule asked for on the weights; gates and multipliers keep their rate from the first step on.

        Raises:
            ValueError: If the schedule is not a function of the step.
        """
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if not isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
            raise ValueError(
                f"`lr_scheduler_type` is {self.args.lr_scheduler_type}, which does not depend on the step alone. "
                "Choose 'linear', 'cosine', 'constant' or the like."
            )
        for number, group in enumerate(scheduler.optimizer.param_groups[1:], start=1):
            scheduler.lr_lambdas[number] = _constant
            group["lr"] = scheduler.base_lrs[number]
        return scheduler

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler:
        # The order is the dataset's own, so that ranks and resumed runs take up where the others are.
        return torch.utils.data.SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """One micro-batch, with gate noise that depends on nothing but the seed and the micro-batch's number.

        Raises:
            FloatingPointError: If the loss is not finite; the optimizer has not used it.
        """
        number = self.state.global_step * self.args.gradient_accumulation_steps + self.micro_batch
        number = number * self.args.world_size + self.args.process_index
        self.micro_batch += 1
        self._throughput.add(inputs["input_values"])
        self.accelerator.unwrap_model(model).student.set_gate_noise(self.args.seed, number)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"The loss is {loss.item()} at step {self.state.global_step}. Training stops before the weights take "
                "it over; the last checkpoint is untouched. Lower `learning_rate`, or look at the audio of this step."
            )
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The losses and the constraint."""
        outputs = model(**inputs, target_sparsity=self.current_target)
        if model.training:
            for name in LOGGED_LOSSES & outputs.keys():
                self._losses.setdefault(name, []).append(outputs[name])
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor, None, None]:
        """The loss on held-out audio without the constraint, with the gates' deterministic values."""
        with torch.no_grad(), self.compute_loss_context_manager():
            return model(**self._prepare_inputs(inputs))["objective_loss"], None, None

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the losses without the constraint, the speed and, with gates, the sparsity asked for, expected and reached."""
        if "loss" in logs and self._losses:
            logs |= {name: torch.stack(values).mean().item() for name, values in self._losses.items()}
            self._losses.clear()
            logs |= self._throughput.read(self.state.global_step)
            objective = self.accelerator.unwrap_model(self.model)
            if objective.lagrangian is not None:
                logs["target_sparsity"] = self.current_target
                logs["expected_sparsity"] = expected_sparsity(objective.student).item()
                logs["deterministic_sparsity"] = deterministic_sparsity(objective.student)
                logs |= gate_statistics(objective.student)
        super().log(logs, *args, **kwargs)
