"""Clips of a classification task, and what is trained on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datasets import DatasetDict
from transformers import Wav2Vec2FeatureExtractor

from ..data.clip_identity import identify_clips
from ..data.speech_dataset import SkippedAudio
from ..modeling.identity import identify_model
from ..modeling.pretrained import PrunableModelMixin
from ..runtime.library_versions import installed_versions
from .classifier import FinetunedResult


@dataclass(frozen=True)
class TaskData:
    """Clips of the classification task.

    Attributes:
        feature_extractor: Feature extractor of the checkpoint.
        splits: Splits "train", "validation" and "test".
        skipped: Clips that were left out.
    """

    feature_extractor: Wav2Vec2FeatureExtractor
    splits: DatasetDict
    skipped: SkippedAudio

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their ids."""
        return self.splits["train"].features["label"].names

    def identity(self, model: PrunableModelMixin) -> dict[str, Any]:
        """Returns facts by which an interrupted run recognises what it reads.

        Args:
            model: Model of the checkpoint as it is loaded.
        """
        facts: dict[str, Any] = {
            f"{name} clips": identify_clips(split, "label") for name, split in self.splits.items()
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
