"""Clips of a classification task, and what is trained on them."""

from __future__ import annotations

from dataclasses import dataclass

from datasets import DatasetDict
from transformers import Wav2Vec2FeatureExtractor

from ..data.speech_dataset import SkippedAudio
from ..modeling.pretrained import PrunableModelMixin
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


@dataclass(frozen=True)
class TrainedVariant:
    """The model at one depth after fine-tuning.

    Attributes:
        model: Model of the first seed, in evaluation mode on the CPU.
        results: Results of fine-tuning, one per seed.
    """

    model: PrunableModelMixin
    results: list[FinetunedResult]
