"""Targets of a pruning run: a size, or a fidelity that the smallest model has to keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from .fidelity import Fidelity


@dataclass(frozen=True)
class FidelityTarget:
    """Limit of what pruning may cost on held-out audio, measured without a projection. Exactly one limit is given.

    Attributes:
        max_loss: Largest distillation loss allowed, above 0; `None` for a limit of the similarity.
        min_similarity: Smallest mean cosine similarity of the hidden states allowed, between 0 and 1; `None` for a limit
            of the loss.

    Raises:
        ValueError: If there is not one limit, or it is out of range.
    """

    max_loss: float | None = None
    min_similarity: float | None = None

    def __post_init__(self):
        if (self.max_loss is None) == (self.min_similarity is None):
            raise ValueError(
                f"`target_loss` is {self.max_loss} and `target_similarity` is {self.min_similarity}. Give one of them."
            )
        if self.max_loss is not None and not self.max_loss > 0:
            raise ValueError(f"`target_loss` must be above 0, but is {self.max_loss}.")
        if self.min_similarity is not None and not 0 < self.min_similarity < 1:
            raise ValueError(f"`target_similarity` must be between 0 and 1, but is {self.min_similarity}.")

    def __str__(self) -> str:
        return f"similarity {self.min_similarity:g}" if self.max_loss is None else f"loss {self.max_loss:g}"

    @property
    def option(self) -> str:
        """Name of the argument of `one_shot_prune` that takes the limit."""
        return "target_similarity" if self.max_loss is None else "target_loss"

    @property
    def quantity(self) -> str:
        """What the limit is for, as part of a sentence."""
        return "mean cosine similarity of the hidden states" if self.max_loss is None else "distillation loss"

    @property
    def limit(self) -> str:
        """Limit with its direction, such as "at most 0.02"."""
        return f"at least {self.min_similarity}" if self.max_loss is None else f"at most {self.max_loss}"

    def value(self, fidelity: Fidelity) -> float:
        """Returns the measured value that the limit is for.

        Args:
            fidelity: Fidelity of a model on held-out audio.
        """
        return fidelity.mean_cosine if self.max_loss is None else fidelity.distillation_loss

    def value_text(self, value: float) -> str:
        """Returns a value as text, with six digits or as many as tell it from the limit.

        Args:
            value: Value of the quantity.
        """
        limit = self.min_similarity if self.max_loss is None else self.max_loss
        texts = [f"{value:.{digits}g}" for digits in range(6, 18)]
        return next((text for text in texts if float(text) != limit), texts[0])

    def excess(self, fidelity: Fidelity) -> float:
        """Returns how far a measured fidelity misses the limit; 0 or less if it keeps it, NaN if it is not finite.

        Args:
            fidelity: Fidelity of a model on held-out audio.
        """
        if self.min_similarity is not None:
            return self.min_similarity - fidelity.mean_cosine
        assert self.max_loss is not None
        return fidelity.distillation_loss - self.max_loss

    def is_met(self, fidelity: Fidelity) -> bool:
        """Returns whether a measured fidelity keeps the limit.

        Args:
            fidelity: Fidelity of a model on held-out audio.
        """
        return self.excess(fidelity) <= 0


# A float is the fraction of the original dense encoder to remove, in the measure of the run.
Target: TypeAlias = float | FidelityTarget


def target_text(target: Target) -> str:
    """Returns a target as text, such as "0.72" or "loss 0.02".

    Args:
        target: Target of a run.
    """
    return str(target) if isinstance(target, FidelityTarget) else f"{target:g}"


def fidelity_target(
    target_loss: float | None, target_similarity: float | None, **others: Any
) -> FidelityTarget | None:
    """Returns the target by fidelity that was given; `None` if there is none.

    Args:
        target_loss: Largest distillation loss allowed.
        target_similarity: Smallest mean cosine similarity allowed.
        **others: Options that a target by fidelity excludes, by name; `None` for those that were not given.

    Raises:
        ValueError: If an excluded option was given with a target by fidelity, or a limit is out of range.
    """
    given = {"target_loss": target_loss, "target_similarity": target_similarity}
    by_fidelity = [name for name, value in given.items() if value is not None]
    if not by_fidelity:
        return None
    excluded = [name for name, value in {**given, **others}.items() if value is not None and name != by_fidelity[0]]
    if excluded:
        listed = ", ".join(f"`{name}`" for name in excluded)
        raise ValueError(
            f"`{by_fidelity[0]}` is given, and so {'is' if len(excluded) == 1 else 'are'} {listed}. A target by fidelity is "
            "the only target of a run, and finds size and rounds itself. Leave the others out."
        )
    return FidelityTarget(target_loss, target_similarity)
