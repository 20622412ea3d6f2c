"""What a classifier is trained on: clips in three splits, with their classes."""

from __future__ import annotations

from dataclasses import dataclass

from datasets import DatasetDict

from .speech_dataset import SkippedAudio


TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ClassificationTask:
    """Clips of a classification task.

    Attributes:
        name: Name of the labels that are classified, a column of the splits.
        splits: Splits "train", "validation" and "test", with the columns `audio` (undecoded), `label` (`ClassLabel`),
            `seconds` and the columns of labels as text.
        skipped: Clips that were left out.
        clip_seconds: Length in seconds that clips are padded or cut to.
        other_labels: Names of further columns of labels, by which layers are scored as well.
    """

    name: str
    splits: DatasetDict
    skipped: SkippedAudio
    clip_seconds: float
    other_labels: tuple[str, ...] = ()

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their ids."""
        return self.splits["train"].features["label"].names
