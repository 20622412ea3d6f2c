"""Similarity of a student to its teacher on held-out clips, measured between the steps of its training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from transformers import PreTrainedModel

from .fidelity import measure_fidelity


class HeldOutSimilarity:
    """Measures the similarity of a student's hidden states to its teacher's, as `measure_fidelity` does.

    Each process measures all clips with models of its own, so that all of them get the same values.

    Args:
        teacher: Teacher whose hidden states can be compared with the student's, see `incomparable_reason`.
        batches: Batches of held-out clips, which are read anew for each measurement.
    """

    def __init__(self, teacher: PreTrainedModel, batches: Iterable[Mapping[str, torch.Tensor]]):
        self.teacher, self.batches = teacher, batches

    def measure(self, student: PreTrainedModel) -> dict[str, float]:
        """Measures a student in evaluation mode, in which gates have their deterministic values.

        Args:
            student: Student with or without gates. The modes of its modules are restored.

        Returns:
            "eval_cosine_similarity" and "eval_relative_error" as means over the hidden states, and for each index N of a
            hidden state "eval_cosine_similarity_layer_N", where 0 is the input of the first layer.
        """
        fidelity = measure_fidelity(student, self.teacher, self.batches)
        values = {
            "eval_cosine_similarity": fidelity.mean_cosine,
            "eval_relative_error": sum(fidelity.relative_error) / len(fidelity.relative_error),
        }
        return values | {
            f"eval_cosine_similarity_layer_{index}": cosine for index, cosine in enumerate(fidelity.cosine)
        }
