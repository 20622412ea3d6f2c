"""Clips of a classification task, and what is trained on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import Wav2Vec2FeatureExtractor

from ..data.classification_task import ClassificationTask
from ..data.clip_identity import identify_clips
from ..modeling.identity import identify_model
from ..modeling.pretrained import PrunableModelMixin
from ..runtime.library_versions import installed_versions
from .classifier import FinetunedResult


@dataclass(frozen=True)
class TaskData:
    """Clips of the classification task.

    Attributes:
        feature_extractor: Feature extractor of the checkpoint.
        task: Clips with their classes.
    """

    feature_extractor: Wav2Vec2FeatureExtractor
    task: ClassificationTask

    def identity(self, model: PrunableModelMixin) -> dict[str, Any]:
        """Returns facts by which an interrupted run recognises what it reads.

        Args:
            model: Model of the checkpoint as it is loaded.
        """
        facts: dict[str, Any] = {
            f"{name} clips": identify_clips(split, "label") for name, split in self.task.splits.items()
        }
        return facts | {"model": identify_model(model, self.feature_extractor), "versions": installed_versions()}


@dataclass(frozen=True)
class TrainedVariant:
    """The model at one depth after fine-tuning.

    Attributes:
        model: Model of the first seed, in evaluation mode on the CPU.
        results: Results of fine-tuning, one per seed.
    """

    model: PrunableModelMixin
    results: list[FinetunedResult]
