"""Training of gates and weights on transformers' Trainer, and so on Accelerate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

from ..data.streaming import StreamedClips
from ..modeling.gates import HardConcreteGate
from .constraint import SparsitySchedule
from .decisions import deterministic_sparsity
from .expected_size import expected_sparsity, gate_statistics
from .objective import PruningObjective
from .throughput import Throughput
from .training_arguments import PruningTrainingArguments


logger = logging.get_logger(__name__)

# The schedule's place in the Trainer's own state.
SCHEDULE_STATE = "SparsitySchedule"
LOGGED_LOSSES = {"distillation_loss", "task_loss"}
# Adam moves a parameter by about its rate in a step, and a gate has to come from 4.6 to -2.4 and further, against
# the distillation's gradient: below this sum of rates it does not get there.
GATE_DISTANCE = 15.0
# With Adam's usual memory of a thousand steps, multipliers that grew while the gates were on their way shrink again so
# slowly that the sparsity overshoots its target and the gates run into their bounds.
MULTIPLIER_BETAS = (0.9, 0.95)


def _constant(step: int) -> float:
    return 1.0


class _AroundSteps(TrainerCallback):
    """Clamps the gates after each optimizer step, counts the micro-batches of a step and follows the schedule."""

    def __init__(self, trainer: PruningTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if isinstance(self.trainer.train_dataset, StreamedClips):
            self.trainer.train_dataset.batches_read = state.global_step * args.gradient_accumulation_steps
        if SCHEDULE_STATE in state.stateful_callbacks:
            self.trainer.schedule.load_state_dict(state.stateful_callbacks[SCHEDULE_STATE])

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer.micro_batch = 0

    def on_optimizer_step(self, args, state, control, **kwargs):
        for module in self.trainer.model.modules():
            if isinstance(module, HardConcreteGate):
                module.clamp_()

    def on_step_end(self, args, state, control, **kwargs):
        schedule = self.trainer.schedule
        if schedule is None or len(schedule.targets) == 1:
            # Nothing waits for a single target, and looking at it would wait for the GPU.
            return
        reached = schedule.observe(state.global_step, self.trainer.last_sparsity.item())
        if reached is not None and reached < len(schedule.targets) - 1:
            self.trainer.on_target(self.trainer, reached)
        # The Trainer writes it into its checkpoints.
        state.stateful_callbacks[SCHEDULE_STATE] = schedule.state_dict()


class PruningTrainer(Trainer):
    """Trains a `PruningObjective`: weights by descent, gates at their own rate, multipliers by ascent.

    Args:
        model: The objective.
        args: Of this stage.
        targets: Sparsities that the constraint rises to, one after the other; none without gates.
        on_target: Called in all processes with this trainer and the number of each target but the last, when it is
            reached.
        **kwargs: Passed to `Trainer`.

    Raises:
        ValueError: If one process has several GPUs.
    """

    def __init__(
        self,
        model: PruningObjective,
        args: PruningTrainingArguments,
        targets: Sequence[float] = (),
        on_target: Callable[[PruningTrainer, int], None] | None = None,
        **kwargs: Any,
    ):
        if args.n_gpu > 1:
            raise ValueError(
                f"One process sees {args.n_gpu} GPUs, and torch would copy the student to each of them in every step. Start "
                f"a process for each with `accelerate launch` or `torchrun --nproc_per_node {args.n_gpu}`, or show it one "
                "with CUDA_VISIBLE_DEVICES=0."
            )
        args.remove_unused_columns = False
        args.label_names = []
        # A stream finds its own place again, see `_AroundSteps`.
        args.ignore_data_skip = isinstance(kwargs.get("train_dataset"), StreamedClips)
        super().__init__(model=model, args=args, **kwargs)
        self.on_target = on_target
        self.micro_batch = 0
        self.schedule: SparsitySchedule | None = None
        self.last_sparsity: torch.Tensor | None = None
        self._losses: dict[str, list[torch.Tensor]] = {}
        self._throughput = Throughput(args)
        self.add_callback(_AroundSteps(self))
        if model.distillation is not None:
            # The teacher is no submodule, and so is not moved with the model. It is only read: bfloat16 will do where
            # the products are bfloat16 anyway.
            in_half = self.accelerator.mixed_precision == "bf16"
            model.distillation.teacher.to(args.device, torch.bfloat16 if in_half else torch.float32)
        if model.lagrangian is not None:
            warmup = args.sparsity_warmup_steps
            self.schedule = SparsitySchedule(targets, round(warmup * args.max_steps if warmup < 1 else warmup))
            steps_left = args.max_steps - self.schedule.warmup_steps
            distance = args.gate_learning_rate * steps_left
            if distance < GATE_DISTANCE:
                logger.warning(
                    f"Gates at a rate of {args.gate_learning_rate} can move by about {distance:.1f} in the "
                    f"{steps_left} steps after the sparsity's rise, and need {GATE_DISTANCE:.0f} to settle. Raise "
                    "`gate_learning_rate` or `max_steps`."
                )

    @property
    def current_target(self) -> float:
        """The sparsity asked for at this step."""
        return self.schedule.target(self.state.global_step) if self.schedule is not None else 0.0

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

    def get_train_dataloader(self) -> DataLoader:
        """Batches in the order of the data set; a stream's are this process's own already."""
        if not isinstance(self.train_dataset, StreamedClips):
            return super().get_train_dataloader()
        # Accelerate would read a stream in one process for all.
        return DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )

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
        self.last_sparsity = outputs.get("expected_sparsity")
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
                logs["expected_sparsity"] = expected_sparsity(objective.student, objective.measure).item()
                logs["deterministic_sparsity"] = deterministic_sparsity(objective.student, objective.measure)
                logs |= gate_statistics(objective.student)
        super().log(logs, *args, **kwargs)
