"""Training of gates and weights on transformers' Trainer, and so on Accelerate."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..data.streaming import StreamedClips
from .arguments import PruningTrainingArguments
from .constraint import SparsitySchedule
from .decisions import deterministic_sparsity
from .expected_size import expected_sparsity, gate_statistics
from .held_out_similarity import HeldOutSimilarity
from .objective import PruningObjective
from .parameter_groups import parameter_groups
from .step_callback import StepCallback
from .throughput import Throughput


logger = logging.get_logger(__name__)

# Names of the loss in the log, with the constraint on gates and without one.
LOSS_NAMES = ("loss_with_constraint", "loss")
LOGGED_LOSSES = {"distillation_loss", "task_loss"}
# Least product of learning rate and steps of the gates. Adam moves a parameter by about its rate per step. log_alpha has
# to move from at most 4.6 to below -2.4, where a gate's deterministic value is 0, and the gradient of the distillation
# loss opposes a part of these steps.
GATE_DISTANCE = 15.0


def _constant(step: int) -> float:
    return 1.0


class PruningTrainer(Trainer):
    """Trains a `PruningObjective`: gradient descent on weights and gates, gradient ascent on the multipliers.

    Args:
        model: Student, losses and constraint.
        args: Training arguments of the stage.
        sampling_rate: Sampling rate of the audio in Hz.
        targets: Targets of the constraint in its measure, between 0 and 1, in ascending order; empty without gates.
        on_target: Function that is called in all processes when a target is reached, with this trainer and the index of
            the target. It is not called for the last one, at which training goes on to its last step.
        held_out_similarity: Similarity to the teacher that each evaluation measures beside the loss; `None` for the loss
            alone.
        **kwargs: Passed to `Trainer`.

    Raises:
        ValueError: If one process uses several GPUs, or FSDP shards a student whose similarity is to be measured.
    """

    args: PruningTrainingArguments

    def __init__(
        self,
        model: PruningObjective,
        args: PruningTrainingArguments,
        sampling_rate: int,
        targets: Sequence[float] = (),
        on_target: Callable[[PruningTrainer, int], None] | None = None,
        held_out_similarity: HeldOutSimilarity | None = None,
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
        # A stream skips the batches of an interrupted run itself, see `StepCallback`.
        args.ignore_data_skip = isinstance(kwargs.get("train_dataset"), StreamedClips)
        super().__init__(model=model, args=args, **kwargs)
        if held_out_similarity is not None and self.is_fsdp_enabled:
            raise ValueError(
                "The similarity to the teacher is measured by `eval_steps`, and FSDP shards the student, which then does not "
                "run on its own. Leave `eval_steps` and `eval_strategy` out, or train without FSDP."
            )
        self.held_out_similarity = held_out_similarity
        self.on_target = on_target
        self.micro_batch_idx = 0
        self.schedule: SparsitySchedule | None = None
        self.last_sparsity: torch.Tensor | None = None
        self._losses: dict[str, list[torch.Tensor]] = {}
        self._throughput = Throughput(args, sampling_rate)
        self.add_callback(StepCallback(self))
        if model.distillation is not None:
            # The teacher is no submodule and so is not moved with the model. It is not trained: bfloat16 weights change
            # nothing where matrix products are computed in bfloat16.
            in_half = self.accelerator.mixed_precision == "bf16"
            teacher: nn.Module = model.distillation.teacher
            teacher.to(args.device, torch.bfloat16 if in_half else torch.float32)
        if model.lagrangian is not None:
            warmup = args.sparsity_warmup_steps
            self.schedule = SparsitySchedule(targets, round(warmup * args.max_steps if warmup < 1 else warmup))
            self._warn_of_few_steps(args.max_steps - self.schedule.warmup_steps)

    def _warn_of_few_steps(self, steps_left: int) -> None:
        """Warns if the gates cannot move far enough in the steps after the target's warm-up."""
        rate = self.args.gate_learning_rate
        if rate is not None and rate * steps_left < GATE_DISTANCE:
            logger.warning(
                f"Gates at a rate of {rate} can move by about {rate * steps_left:.1f} in the {steps_left} steps after the "
                f"sparsity's rise, and need {GATE_DISTANCE:.0f} to settle. Raise `gate_learning_rate` or `max_steps`."
            )

    @property
    def unwrapped_model(self) -> PruningObjective:
        """The objective without the wrappers of DDP and others."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def current_target(self) -> float:
        """Target of the constraint at this step; 0 without gates."""
        return self.schedule.target(self.state.global_step) if self.schedule is not None else 0.0

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Creates the optimizer with groups of weights, gates and multipliers, see `parameter_groups`.

        Args:
            model: Prepared model, where a strategy such as FSDP needs it before the optimizer; `None` for the Trainer's.
        """
        if self.optimizer is not None:
            return self.optimizer
        groups = parameter_groups(self.unwrapped_model if model is None else model, self.args)
        optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(self.args)
        self.optimizer = optimizer_class(groups, **kwargs)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """Creates the learning rate schedule of the weights; the rates of gates and multipliers stay constant.

        Args:
            num_training_steps: Number of optimizer steps.
            optimizer: Optimizer with the groups of `create_optimizer`; `None` for the Trainer's.

        Raises:
            ValueError: If the schedule is not a function of the step.
        """
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if not isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
            raise ValueError(
                f"`lr_scheduler_type` is {self.args.lr_scheduler_type}, which does not depend on the step alone. "
                "Choose 'linear', 'cosine', 'constant' or the like."
            )
        for group_idx, group in enumerate(scheduler.optimizer.param_groups[1:], start=1):
            scheduler.lr_lambdas[group_idx] = _constant
            group["lr"] = scheduler.base_lrs[group_idx]
        return scheduler

    def get_train_dataloader(self) -> DataLoader:
        """Returns batches in the order of the data set; a stream already gives only those of this process."""
        if not isinstance(self.train_dataset, StreamedClips):
            return super().get_train_dataloader()
        # Accelerate would read the stream in one process and send its batches to the others.
        return DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        # The data set is in random order already, the same in all ranks and after a resume.
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return SequentialSampler(dataset) if isinstance(dataset, Sized) else None

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Computes the gradients of one micro-batch; the gate noise is a function of seed and micro-batch index alone.

        Args:
            model: Objective as wrapped for training.
            inputs: Micro-batch.
            num_items_in_batch: Passed to the Trainer.

        Returns:
            The loss, of shape ().

        Raises:
            FloatingPointError: If the loss is not finite; the optimizer has not used it.
        """
        # Index over all steps and processes.
        noise_idx = self.state.global_step * self.args.gradient_accumulation_steps + self.micro_batch_idx
        noise_idx = noise_idx * self.args.world_size + self.args.process_index
        self.micro_batch_idx += 1
        self._throughput.add(inputs["input_values"])
        self.unwrapped_model.student.set_gate_noise(self.args.seed, noise_idx)
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
        """Computes the loss with the constraint at its present target.

        Args:
            model: Objective as wrapped for training.
            inputs: Micro-batch.
            return_outputs: Whether to return all losses as well.
            num_items_in_batch: Ignored; all losses are means over a micro-batch.

        Returns:
            The loss, of shape (); with `return_outputs`, the loss and the outputs of the objective.
        """
        outputs = model(**inputs, target=self.current_target)
        self.last_sparsity = outputs.get("expected_sparsity")
        if model.training:
            for name in LOGGED_LOSSES & outputs.keys():
                self._losses.setdefault(name, []).append(outputs[name])
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluates the held-out clips; a training goes on as without the evaluation.

        Args:
            *args: Passed to the Trainer.
            **kwargs: Passed to the Trainer.

        Returns:
            Values of the log entry by name.
        """
        # A loader of batches draws from the random state that dropout of the next step uses.
        with torch.random.fork_rng(devices=[]), self._throughput.paused():
            return super().evaluate(*args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Computes the loss of held-out clips and, if asked for, the student's similarity to the teacher.

        Args:
            *args: Passed to the Trainer.
            **kwargs: Passed to the Trainer.

        Returns:
            The values by name in `metrics`, and no predictions.
        """
        output = super().evaluation_loop(*args, **kwargs)
        if self.held_out_similarity is None:
            return output
        with self.compute_loss_context_manager():
            similarity = self.held_out_similarity.measure(self.unwrapped_model.student)
        return output._replace(metrics={**(output.metrics or {}), **similarity})

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor, None, None]:
        """Computes the loss of held-out clips without the constraint, with the gates' deterministic values.

        Args:
            model: Objective as wrapped for evaluation.
            inputs: Batch of held-out clips.
            prediction_loss_only: Ignored; nothing but the loss is returned.
            ignore_keys: Ignored.

        Returns:
            The loss, of shape (), and no predictions or labels.
        """
        with torch.no_grad(), self.compute_loss_context_manager():
            return model(**self._prepare_inputs(inputs))["objective_loss"], None, None

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the parts of the loss, training speed and, with gates, sparsities and gate statistics to a log entry.

        With gates, "loss" is named "loss_with_constraint", because it holds the terms of the multipliers, and "train_loss",
        its mean over the training, "train_loss_with_constraint".

        Args:
            logs: Entry of the Trainer's log; only entries of training steps are extended.
            *args: Passed to the Trainer.
            **kwargs: Passed to the Trainer.
        """
        objective = self.unwrapped_model
        if "train_loss" in logs and objective.lagrangian is not None:
            logs["train_loss_with_constraint"] = logs.pop("train_loss")
        if "loss" in logs and self._losses:
            logs |= {name: torch.stack(values).mean().item() for name, values in self._losses.items()}
            self._losses.clear()
            logs |= self._throughput.read(self.state.global_step)
            if objective.lagrangian is not None:
                logs["loss_with_constraint"] = logs.pop("loss")
                logs["target_sparsity"] = self.current_target
                logs["expected_sparsity"] = expected_sparsity(objective.student, objective.measure).item()
                logs["deterministic_sparsity"] = deterministic_sparsity(objective.student, objective.measure)
                logs |= gate_statistics(objective.student)
        super().log(logs, *args, **kwargs)
