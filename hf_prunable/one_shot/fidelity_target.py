"""A target by fidelity: how near the hidden states of the pruned model must stay to the teacher's."""

from __future__ import annotations

from dataclasses import dataclass

from ..pruning.fidelity import Fidelity


@dataclass(frozen=True)
class FidelityTarget:
    """Limit of what pruning may cost on held-out audio, measured without a projection.

    Attributes:
        max_loss: Largest distillation loss allowed, above 0; `None` for no limit.
        min_similarity: Smallest mean cosine similarity of the hidden states allowed, between 0 and 1; `None` for no limit.

    Raises:
        ValueError: If a limit is out of range.
    """

    max_loss: float | None = None
    min_similarity: float | None = None

    def __post_init__(self):
        if self.max_loss is not None and not self.max_loss > 0:
            raise ValueError(f"`target_loss` must be above 0, but is {self.max_loss}.")
        if self.min_similarity is not None and not 0 < self.min_similarity < 1:
            raise ValueError(f"`target_similarity` must be between 0 and 1, but is {self.min_similarity}.")

    def is_met(self, fidelity: Fidelity) -> bool:
        """Returns whether a measured fidelity is within the limits.

        Args:
            fidelity: Fidelity of a model on held-out audio.
        """
        return (self.max_loss is None or fidelity.distillation_loss <= self.max_loss) and (
            self.min_similarity is None or fidelity.mean_cosine >= self.min_similarity
        )
