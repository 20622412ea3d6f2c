"""The hard-concrete gate: a number in [0, 1] that is exactly 0 or 1 with positive probability, and learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from ..runtime.messages import first_names


# The stretched concrete distribution of Louizos et al. 2018 (arXiv 1712.01312), section 4.
BETA = 2 / 3
GAMMA = -0.1
ZETA = 1.1
# P(z > 0) = sigmoid(log_alpha - beta log(-gamma / zeta)).
OPEN_SHIFT = -BETA * math.log(-GAMMA / ZETA)
# At -6.9 a closed gate still counts as 0.5 % of its size in the expectation, at CoFi's -4.6 (arXiv 2204.00408) as
# 4.7 %, so that a fifth kept would read as 23.7 %. Above 4.6 a gate is 1 in 95 % of the samples, and a larger value only
# takes longer to come back.
LOG_ALPHA_RANGE = (-6.9, 4.6)


class HardConcreteGate(nn.Module):
    """Gates that are sampled in training mode and fixed in evaluation mode.

    Sampled, with u ~ U(0, 1): s = sigmoid((log u - log(1 - u) + log_alpha) / beta), z = hardtanh(s (zeta - gamma) +
    gamma, 0, 1). Fixed: z = hardtanh(sigmoid(log_alpha) (zeta - gamma) + gamma, 0, 1). Louizos et al. 2018 (arXiv
    1712.01312), equations 10 to 13.

    Args:
        num_gates: Number of gates in this module, 1 or more.
        ste: Whether gradients pass the hard limits 0 and 1 unchanged (straight-through estimator).
        initial_drop_rate: Initial value of 1 - sigmoid(log_alpha), between 0 and 1.
    """

    def __init__(self, num_gates: int, ste: bool = True, initial_drop_rate: float = 0.05):
        super().__init__()
        self.num_gates = num_gates
        self.ste = ste
        self.initial_log_alpha = math.log(1 - initial_drop_rate) - math.log(initial_drop_rate)
        self.log_alpha = nn.Parameter(torch.full((num_gates,), self.initial_log_alpha, dtype=torch.float32))
        self.noise: torch.Tensor | None = None

    def set_noise(self, uniform: torch.Tensor | None) -> None:
        """Fixes the noise of the following forward passes.

        Args:
            uniform: Values u in (0, 1), of shape (num_gates,); `None` samples anew in every pass.
        """
        self.noise = uniform

    @property
    def whole_log_alpha(self) -> torch.Tensor:
        """log_alpha in float32, gathered from all processes where FSDP has sharded it."""
        log_alpha = self.log_alpha.full_tensor() if isinstance(self.log_alpha, DTensor) else self.log_alpha
        return log_alpha.float()

    def forward(self) -> torch.Tensor:
        """Returns the gates' values, of shape (num_gates,), in float32."""
        if not self.training:
            return self.deterministic_mask()
        log_alpha = self.whole_log_alpha
        uniform = torch.rand_like(log_alpha) if self.noise is None else self.noise.to(log_alpha.device)
        # The logit of u is infinite at 0 and 1.
        uniform = uniform.clamp(1e-6, 1 - 1e-6)
        stretched = torch.sigmoid((torch.logit(uniform) + log_alpha) / BETA) * (ZETA - GAMMA) + GAMMA
        mask = stretched.clamp(0, 1)
        return stretched + (mask - stretched).detach() if self.ste else mask

    def deterministic_mask(self) -> torch.Tensor:
        """Returns the values that evaluation mode and compaction use; 0 where log_alpha <= -2.398."""
        return (torch.sigmoid(self.whole_log_alpha) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def open_probability(self) -> torch.Tensor:
        """Returns P(z > 0) of every gate, of shape (num_gates,)."""
        return torch.sigmoid(self.whole_log_alpha + OPEN_SHIFT)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamps log_alpha to the range where the sigmoid has a gradient; to be called after each optimizer step."""
        self.log_alpha.clamp_(*LOG_ALPHA_RANGE)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> HardConcreteGate:
        # log_alpha stays float32 in whatever dtype the model is: bfloat16 cannot represent a step of 0.02 at 4.6.
        def keep_dtype(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

    def extra_repr(self) -> str:
        return f"{self.num_gates}, ste={self.ste}"


@torch.no_grad()
def check_gates(named_gates: Iterable[tuple[str, HardConcreteGate]]) -> None:
    """Checks that log_alpha is finite in all gates.

    Args:
        named_gates: Names and gate modules; those on the meta device are not checked.

    Raises:
        ValueError: If a value is NaN or infinite. The message names the gate modules and the number of such values.
    """
    num_gates, not_finite = 0, {}
    for name, gate in named_gates:
        num_gates += gate.num_gates
        if not gate.log_alpha.is_meta:
            count = gate.num_gates - int(torch.isfinite(gate.whole_log_alpha).sum())
            if count:
                not_finite[f"{name} ({count} of {gate.num_gates})"] = count
    if not_finite:
        raise ValueError(
            f"`log_alpha` of {sum(not_finite.values())} of {num_gates} gates is NaN or infinite: {first_names(not_finite)}. "
            "These gates decide nothing. Load a checkpoint from before the values became so, and train on with a lower "
            "`gate_learning_rate` or `learning_rate`."
        )
