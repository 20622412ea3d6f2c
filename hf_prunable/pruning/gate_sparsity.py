"""What the gates of a model would remove by themselves, compared with the target that the model is cut to."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import PARAMETERS, Measure
from .decisions import deterministic_sparsity
from .expected_size import expected_sparsity


# Largest distance of gates from their target at which a cut follows them. Gates that have learned end within 0.02, in
# expectation and in their deterministic values; a cut from farther away opens or closes many units against their gates.
SETTLED_TOLERANCE = 0.03


@dataclass(frozen=True)
class GateSparsity:
    """Sparsity of a model's gates beside the target of a cut, as fractions of the original dense encoder's size.

    Attributes:
        target: Target of the cut, between 0 and 1.
        expected: Expected sparsity over sampled gates, which training constrains.
        deterministic: Sparsity with the gates' deterministic values, which a cut without a target has.
        have_learned: Whether gates of at least one module differ from each other.
        warning: Warning with the figures, if the gates have not learned or are farther than `SETTLED_TOLERANCE` from the
            target; `None` if the cut follows them.
    """

    target: float
    expected: float
    deterministic: float
    have_learned: bool
    warning: str | None

    @classmethod
    @torch.no_grad()
    def of(cls, model: PrunableModelMixin, target: float, measure: Measure = PARAMETERS) -> GateSparsity:
        """Computes the sparsities of a model's gates.

        Args:
            model: Base or head model with gates.
            target: Target of the cut, between 0 and 1.
            measure: Measure of the target.

        Raises:
            ValueError: If a gate is not finite.
        """
        expected = expected_sparsity(model, measure).item()
        deterministic = deterministic_sparsity(model, measure)
        learned = _have_learned(model)
        warning = None
        if not learned or max(abs(expected - target), abs(deterministic - target)) > SETTLED_TOLERANCE:
            cause = (
                "Units were removed or kept against their gates to meet the target."
                if learned
                else "The gates have not learned: within each module all are equal, so that the units with the largest "
                "weights were kept."
            )
            warning = (
                f"The target is a sparsity of {target:.4f} in {measure}, but the expected sparsity of the gates is "
                f"{expected:.4f}, and their deterministic values remove {deterministic:.4f}. {cause}"
            )
        return cls(target, expected, deterministic, learned, warning)


def _have_learned(model: PrunableModelMixin) -> bool:
    """Returns whether gates of one module differ; where all modules have a single gate, whether those differ."""
    values = [gate.whole_log_alpha for _, gate in model.named_gates()]
    groups = [group for group in values if len(group) > 1] or [torch.cat(values)]
    return any(bool((group != group[0]).any()) for group in groups)
