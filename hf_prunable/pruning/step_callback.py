"""What happens at each optimizer step of a pruning: gates are clamped, and the schedule of the target advances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback

from ..data.streaming import StreamedClips


if TYPE_CHECKING:
    from .trainer import PruningTrainer

# Key of the schedule's state in the Trainer's own state, which is part of a training checkpoint.
SCHEDULE_STATE = "SparsitySchedule"


class StepCallback(TrainerCallback):
    """Clamps the gates after each optimizer step, counts the micro-batches of a step and advances the schedule.

    Args:
        trainer: Trainer that the callback is added to.
    """

    def __init__(self, trainer: PruningTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if isinstance(self.trainer.train_dataset, StreamedClips):
            self.trainer.train_dataset.batches_read = state.global_step * args.gradient_accumulation_steps
        if self.trainer.schedule is not None and SCHEDULE_STATE in state.stateful_callbacks:
            self.trainer.schedule.load_state_dict(state.stateful_callbacks[SCHEDULE_STATE])

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer.micro_batch_idx = 0

    def on_optimizer_step(self, args, state, control, **kwargs):
        for _, gate in self.trainer.unwrapped_model.student.named_gates():
            gate.clamp_()

    def on_step_end(self, args, state, control, **kwargs):
        schedule, sparsity = self.trainer.schedule, self.trainer.last_sparsity
        if schedule is None or sparsity is None or len(schedule.targets) == 1:
            # A single target stays to the end once it is asked for; reading the sparsity would synchronize with the GPU.
            return
        target_idx = schedule.observe(state.global_step, sparsity.item())
        if target_idx is not None and target_idx < len(schedule.targets) - 1 and self.trainer.on_target is not None:
            self.trainer.on_target(self.trainer, target_idx)
        # The Trainer writes it into its checkpoints.
        state.stateful_callbacks[SCHEDULE_STATE] = schedule.state_dict()
