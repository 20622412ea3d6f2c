"""The constraint on sparsity: its penalty, and its target as a function of the training step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn


# A target counts as reached from this far below it. Gates at the lower bound of log_alpha still have P(z > 0) = 0.5 %,
# which keeps the expected sparsity slightly below the target.
REACHED_TOLERANCE = 0.005


class Lagrangian(nn.Module):
    """Penalty lambda_1 (s - t) + lambda_2 (s - t)^2 for sparsity s and target t (arXiv 1910.04732).

    Gradient ascent on the two multipliers and descent on all other parameters drive s to t.
    """

    def __init__(self):
        super().__init__()
        # FSDP cannot split a parameter without a dimension.
        self.lambda_1 = nn.Parameter(torch.zeros(1))
        self.lambda_2 = nn.Parameter(torch.zeros(1))

    def forward(self, sparsity: torch.Tensor, target: float) -> torch.Tensor:
        """Computes the penalty.

        Args:
            sparsity: Expected sparsity, of shape ().
            target: Target sparsity in the same measure, between 0 and 1.

        Returns:
            The penalty, of shape ().
        """
        distance = sparsity - target
        return (self.lambda_1 * distance + self.lambda_2 * distance**2).squeeze(0)


class SparsitySchedule:
    """Target of the constraint: it rises linearly to each given target and stays there until that is reached.

    All rises have the same slope. The last target stays to the end of training; with a single target, this is the linear
    warm-up of CoFi (arXiv 2204.00408).

    Args:
        targets: Target sparsities between 0 and 1, in ascending order.
        warmup_steps: Number of steps in which the target would rise from 0 to the last one without waiting for those
            before it, 0 or more; with 0, the target is the next one at once.

    Raises:
        ValueError: If the targets are not between 0 and 1 or not in ascending order, or `warmup_steps` is negative.
    """

    def __init__(self, targets: Sequence[float], warmup_steps: int):
        self.targets = tuple(targets)
        if not self.targets or any(not low < high for low, high in pairwise((0.0, *self.targets, 1.0))):
            raise ValueError(
                f"`targets` are {list(targets)}, but must lie between 0 and 1 and each be above the one before. Give "
                "them in ascending order and without repetition, like [0.5, 0.6, 0.72]."
            )
        if warmup_steps < 0:
            raise ValueError(f"`warmup_steps` must be 0 or more, but is {warmup_steps}.")
        self.warmup_steps = warmup_steps
        self._num_reached = 0
        # Step at which the rise to the next target began.
        self._start_step = 0

    def target(self, step: int) -> float:
        """Returns the target at a step, 0 or more; steps must be given in ascending order."""
        if self._num_reached == len(self.targets):
            return self.targets[-1]
        next_target = self.targets[self._num_reached]
        if self.warmup_steps == 0:
            return next_target
        start = self.targets[self._num_reached - 1] if self._num_reached else 0.0
        return min(next_target, start + self.targets[-1] * ((step - self._start_step) / self.warmup_steps))

    def observe(self, step: int, expected_sparsity: float) -> int | None:
        """Starts the rise to the next target if the expected sparsity has reached the present one.

        Args:
            step: Present step, 0 or more.
            expected_sparsity: Expected sparsity in the measure of the targets. It has reached a target if it is at most
                `REACHED_TOLERANCE` below.

        Returns:
            Index of the target that was reached at this step; `None` if there is none.
        """
        if self._num_reached == len(self.targets):
            return None
        next_target = self.targets[self._num_reached]
        # Written so that an expected sparsity of NaN reaches no target.
        if self.target(step) < next_target or not expected_sparsity >= next_target - REACHED_TOLERANCE:
            return None
        self._num_reached += 1
        self._start_step = step
        return self._num_reached - 1

    def state_dict(self) -> dict[str, Any]:
        """Returns targets and progress as values that JSON can hold."""
        return {"targets": list(self.targets), "num_reached": self._num_reached, "start_step": self._start_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the progress that `state_dict` returned.

        Args:
            state: State of a schedule with the same targets.

        Raises:
            ValueError: If the state belongs to other targets.
        """
        if list(state["targets"]) != list(self.targets):
            raise ValueError(
                f"The state is of a schedule with targets {list(state['targets'])}, but this one has "
                f"{list(self.targets)}. Resume with the targets that the run was started with."
            )
        self._num_reached, self._start_step = state["num_reached"], state["start_step"]
