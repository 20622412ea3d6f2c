"""Students that truncation and one-shot pruning make: which ones are compared, and how many layers they keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from experiments.cross_validation import ProbeTask
from experiments.one_shot_students import FULL, TEACHER
from hf_prunable.modeling.configuration import PrunableConfigMixin
from hf_prunable.modeling.pretrained import PrunableModelMixin
from hf_prunable.modeling.size import PARAMETERS, UnitCounts
from hf_prunable.one_shot.one_shot_pruning import OneShotPruning
from hf_prunable.truncation.layer_choice import choose_layer
from hf_prunable.truncation.layer_profile import profile_features
from hf_prunable.truncation.truncated_model import truncate


# Decimals of the size of a truncated model, as a fraction of the dense one, that the other student is pruned to.
SIZE_DIGITS = 6


@dataclass(frozen=True)
class TruncatedStudent:
    """One student of the comparison, or the teacher.

    Attributes:
        num_layers: Number of the teacher's layers that are kept before pruning; `None` for all.
        target_sparsity: Fraction of the dense encoder's parameters that the student lacks after one-shot pruning; `None`
            for a student that is not pruned.
    """

    num_layers: int | None = None
    target_sparsity: float | None = None

    @property
    def name(self) -> str:
        """File name without extension."""
        layers = "" if self.num_layers is None else f"layers{self.num_layers}"
        target = "" if self.target_sparsity is None else f"one_shot_{self.target_sparsity:g}"
        return "_".join(filter(None, (layers, target))) or TEACHER

    @property
    def label(self) -> str:
        """Row name in tables."""
        pruned = "" if self.target_sparsity is None else f"one-shot to {100 * (1 - self.target_sparsity):.3g} %"
        if self.num_layers is None:
            return pruned or TEACHER
        layers = "first layer" if self.num_layers == 1 else f"first {self.num_layers} layers"
        return f"{layers}, then {pruned}" if pruned else layers

    def make(self, teacher: PrunableModelMixin, clips: torch.Tensor) -> PrunableModelMixin:
        """Makes the student without training. A truncated student is pruned to keep its own hidden states.

        Args:
            teacher: Dense base model; it is not changed.
            clips: Calibration audio of shape (clips, samples); only used for pruning.
        """
        model = teacher if self.num_layers is None else truncate(teacher, self.num_layers)
        if self.target_sparsity is None:
            return model
        (student,) = OneShotPruning(model, clips, config=FULL).run([self.target_sparsity])
        return student


@dataclass(frozen=True)
class Pair:
    """Two students of the same size.

    Attributes:
        student: Student that is compared.
        reference: Student whose accuracy is subtracted.
    """

    student: TruncatedStudent
    reference: TruncatedStudent


def truncation_sparsity(config: PrunableConfigMixin, num_layers: int) -> float:
    """Returns the fraction of the dense encoder's parameters that a truncated model lacks.

    Args:
        config: Configuration of the dense model.
        num_layers: Number of layers that are kept.
    """
    return PARAMETERS.sparsity(config, UnitCounts.of(config.shape.first_layers(num_layers)))


def plan_pairs(config: PrunableConfigMixin, depths: Sequence[int], target_sparsities: Sequence[float]) -> list[Pair]:
    """Lists the pairs of students of one size.

    For each depth, in ascending order, one-shot pruning of the whole teacher is compared with truncation; for each smaller
    size, truncation followed by one-shot pruning is compared with one-shot pruning of the whole teacher.

    Args:
        config: Configuration of the teacher.
        depths: Numbers of layers to keep; the teacher's own is left out.
        target_sparsities: Fractions of the dense encoder's parameters to remove. For a depth, those that truncation has
            reached already are left out.
    """
    pairs = []
    for depth in sorted(set(depths)):
        if depth == config.num_hidden_layers:
            continue
        sparsity = round(truncation_sparsity(config, depth), SIZE_DIGITS)
        pairs.append(Pair(TruncatedStudent(None, sparsity), TruncatedStudent(depth)))
        pairs += [
            Pair(TruncatedStudent(depth, target), TruncatedStudent(None, target))
            for target in dict.fromkeys(target_sparsities)
            if target > sparsity
        ]
    return pairs


def students_of(pairs: Sequence[Pair]) -> list[TruncatedStudent]:
    """Lists the teacher and all students of pairs, each once.

    Args:
        pairs: Result of `plan_pairs`.
    """
    return list(
        dict.fromkeys([TruncatedStudent(), *(side for pair in pairs for side in (pair.reference, pair.student))])
    )


def choose_depth(task: ProbeTask, features: np.ndarray) -> dict[str, Any]:
    """Chooses the number of layers to keep by graph convexity, in each fold on the clips that its probe is trained on.

    Args:
        task: Classes and folds.
        features: The teacher's features of all clips of the data set, of shape (clips, hidden states, hidden size).

    Returns:
        The choice of most folds as "num_layers", of several the largest; the choice of each fold as "by_fold"; the number
        of folds in which the input of the first layer is as good as the best layer, as "ties_with_layer_0"; and the
        "convexity" of each hidden state, the mean over folds.
    """
    features, choices, values = features[task.rows].transpose(1, 0, 2), [], []
    for fold in np.unique(task.folds):
        is_trained = task.folds != fold
        profile = profile_features(
            features[:, is_trained],
            {"class": task.labels[is_trained].tolist()},
            criteria=["convexity"],
            num_permutations=0,
        )
        choices.append(choose_layer(profile, "convexity"))
        convexity = profile.labels["class"].convexity
        assert convexity is not None
        values.append(convexity.values)
    depths = [choice.num_layers for choice in choices]
    counts = Counter(depths)
    return {
        "num_layers": max(counts, key=lambda depth: (counts[depth], depth)),
        "by_fold": depths,
        "ties_with_layer_0": sum(choice.ties_with_layer_0 for choice in choices),
        "convexity": np.mean(values, axis=0).round(4).tolist(),
    }
