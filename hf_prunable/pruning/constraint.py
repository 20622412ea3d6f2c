"""The constraint on sparsity: its penalty, and the target over the steps of a training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn


# Half a point: what gates at their lower bound still count for in the expected sparsity.
RUNG_TOLERANCE = 0.005


class Lagrangian(nn.Module):
    """lambda_1 (s - t) + lambda_2 (s - t)^2 for sparsity s and target t.

    The two multipliers are trained to maximise it while everything else minimises it, which pushes s to t.
    """

    def __init__(self):
        super().__init__()
        # FSDP splits no parameter without a dimension.
        self.lambda_1 = nn.Parameter(torch.zeros(1))
        self.lambda_2 = nn.Parameter(torch.zeros(1))

    def forward(self, sparsity: torch.Tensor, target: float) -> torch.Tensor:
        """Returns the penalty as a scalar."""
        distance = sparsity - target
        return (self.lambda_1 * distance + self.lambda_2 * distance**2).squeeze(0)


class SparsitySchedule:
    """Rises to each target in a line and holds there until the expected sparsity has followed.

    All rises have one slope. The last target is held for good; a schedule with a single target is the linear warm-up.

    Args:
        targets: Sparsities between 0 and 1, in ascending order.
        warmup_steps: After how many steps the last target would be asked for if none before it were held; 0 asks for
            each target at once.

    Raises:
        ValueError: If the targets are not between 0 and 1 or do not rise, or `warmup_steps` is negative.
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
        # The step at which the rise to the present target began.
        self._start_step = 0

    def target(self, step: int) -> float:
        """The sparsity asked for at a step; steps are asked for in ascending order."""
        if self._num_reached == len(self.targets):
            return self.targets[-1]
        rung = self.targets[self._num_reached]
        if self.warmup_steps == 0:
            return rung
        start = self.targets[self._num_reached - 1] if self._num_reached else 0.0
        return min(rung, start + self.targets[-1] * ((step - self._start_step) / self.warmup_steps))

    def observe(self, step: int, expected_sparsity: float) -> int | None:
        """Goes on to the next target if the present one is asked for and the expected sparsity has come to it.

        Args:
            step: The present one.
            expected_sparsity: In the measure of the targets; it has come to a target from half a point below it up.

        Returns:
            The index of the target that has just been reached, each once, or `None`.
        """
        if self._num_reached == len(self.targets):
            return None
        rung = self.targets[self._num_reached]
        if self.target(step) < rung or not expected_sparsity >= rung - RUNG_TOLERANCE:
            return None
        self._num_reached += 1
        self._start_step = step
        return self._num_reached - 1

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands, in values that JSON can hold."""
        return {"targets": list(self.targets), "num_reached": self._num_reached, "start_step": self._start_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` returned.

        Raises:
            ValueError: If it belongs to other targets.
        """
        if list(state["targets"]) != list(self.targets):
            raise ValueError(
                f"The state is of a schedule with targets {list(state['targets'])}, but this one has "
                f"{list(self.targets)}. Resume with the targets that the run was started with."
            )
        self._num_reached, self._start_step = state["num_reached"], state["start_step"]
