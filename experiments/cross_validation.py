"""Words and speakers of Speech Commands, classified by linear probes in cross-validation over all clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from datasets import Dataset
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from transformers import PreTrainedModel, Wav2Vec2FeatureExtractor

from experiments.weighted_sum_probe import WeightedSumProbe
from hf_prunable.data.speech_commands import read_speech_commands, rows_of_words
from hf_prunable.data.speech_dataset import scan_speech_dataset
from hf_prunable.truncation.pooled_features import pooled_features


WORD_FOLDS = 5
# Each fold has a clip of each speaker.
SPEAKER_FOLDS = MIN_CLIPS_PER_SPEAKER = 4
FOLD_SEED = 0
# A shorter clip holds no word.
MIN_SECONDS = 0.1
# Weights of the probes' L2 penalty, chosen among 0.1, 0.01, 0.001 and 0.0001 for wavlm-mini.
WORD_REGULARISATION, SPEAKER_REGULARISATION = 0.01, 0.001


@dataclass(frozen=True)
class ProbeTask:
    """Classification of clips in cross-validation.

    Attributes:
        rows: Row of each clip among the features, of shape (clips,).
        labels: Class name of each clip, of shape (clips,).
        folds: Index of the fold in which each clip is tested, of shape (clips,).
        group_sizes: Number of clips of each speaker; clips of one speaker follow each other.
        regularisation: Weight of the probes' L2 penalty.
    """

    rows: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    group_sizes: list[int]
    regularisation: float

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(np.unique(self.labels))

    def fit(self, features: np.ndarray) -> list[WeightedSumProbe]:
        """Trains a probe for each fold on the clips of all other folds.

        Args:
            features: Features of all clips of the data set, of shape (clips, hidden states, hidden size).
        """
        features = features[self.rows]
        others = [self.folds != fold for fold in np.unique(self.folds)]
        return [WeightedSumProbe.fit(features[own], self.labels[own], self.regularisation) for own in others]

    def is_correct(self, probes: list[WeightedSumProbe], features: np.ndarray) -> np.ndarray:
        """Tests the probe of each fold on the clips of the fold.

        Args:
            probes: Probes of `fit`, of these features or of other ones.
            features: Features of all clips of the data set, of shape (clips, hidden states, hidden size).

        Returns:
            Whether each clip is classified correctly, of shape (clips,).
        """
        features, correct = features[self.rows], np.zeros(len(self.rows), dtype=bool)
        for fold, probe in zip(np.unique(self.folds), probes, strict=True):
            is_tested = self.folds == fold
            correct[is_tested] = probe.predict(features[is_tested]) == self.labels[is_tested]
        return correct

    def result(self, correct: np.ndarray) -> dict[str, Any]:
        """Returns accuracy and outcome of each clip as values of JSON.

        Args:
            correct: Whether each clip is classified correctly, of shape (clips,).
        """
        return {
            "accuracy": float(correct.mean()),
            "classes": self.num_classes,
            "correct": truth_bits(correct),
            "group_sizes": self.group_sizes,
        }


class SpeechCommandsProbes:
    """All clips of Speech Commands, and the folds of words and of speakers.

    Args:
        folder: Speech Commands in a form of `read_speech_commands`.
        feature_extractor: Feature extractor of the checkpoints.

    Attributes:
        clips: Clips in the order of speakers.
        tasks: Tasks by name: "words", with no speaker in two folds, and "speakers", of those with at least four clips.

    Raises:
        ValueError: If a speaker is not known, or there are too few of them.
    """

    def __init__(self, folder: str, feature_extractor: Wav2Vec2FeatureExtractor):
        self.feature_extractor = feature_extractor
        table = read_speech_commands(folder)
        table = table.select(rows_of_words(table, None, folder))
        table, _ = scan_speech_dataset(table, sampling_rate=feature_extractor.sampling_rate, min_seconds=MIN_SECONDS)
        speakers, names = table["speaker"][:], table["clip"][:]
        if None in speakers:
            raise ValueError(f"{folder}: not every clip has a speaker. Give a copy with a column 'speaker'.")
        order = sorted(range(len(table)), key=lambda row: (speakers[row], names[row]))
        self.clips: Dataset = table.select(order)
        self.tasks = {"words": _word_task(self.clips), "speakers": _speaker_task(self.clips, folder)}

    def features(self, model: PreTrainedModel) -> np.ndarray:
        """Computes the mean over time of every hidden state of every clip.

        Args:
            model: Base model.

        Returns:
            Features of shape (clips, hidden states, hidden size), float32.

        Raises:
            ValueError: If a clip cannot be read.
        """
        pooled = pooled_features(model, self.feature_extractor, self.clips)
        if missing := len(self.clips) - len(pooled.clips):
            raise ValueError(f"{missing} clips of Speech Commands cannot be read. Remove these files, or repair them.")
        return pooled.layers.transpose(1, 0, 2)


def truth_bits(values: np.ndarray) -> str:
    """Formats truth values as a string of 0 and 1.

    Args:
        values: Truth values of shape (items,).
    """
    return "".join("1" if value else "0" for value in values)


def _word_task(clips: Dataset) -> ProbeTask:
    words, speakers = np.array(clips["word"][:]), np.array(clips["speaker"][:])
    splitter = StratifiedGroupKFold(WORD_FOLDS, shuffle=True, random_state=FOLD_SEED)
    folds = _folds(splitter.split(words, words, speakers), len(words))
    return ProbeTask(np.arange(len(words)), words, folds, _sizes(speakers), WORD_REGULARISATION)


def _speaker_task(clips: Dataset, folder: str) -> ProbeTask:
    speakers = np.array(clips["speaker"][:])
    counts = Counter(speakers)
    rows = np.flatnonzero([counts[speaker] >= MIN_CLIPS_PER_SPEAKER for speaker in speakers])
    labels = speakers[rows]
    if (num_speakers := len(np.unique(labels))) < 2:
        raise ValueError(
            f"{folder}: {num_speakers} speakers have {MIN_CLIPS_PER_SPEAKER} clips or more, but a classifier needs two. "
            "Give more clips."
        )
    splitter = StratifiedKFold(SPEAKER_FOLDS, shuffle=True, random_state=FOLD_SEED)
    folds = _folds(splitter.split(labels, labels), len(labels))
    return ProbeTask(rows, labels, folds, _sizes(labels), SPEAKER_REGULARISATION)


def _folds(splits: Iterable[tuple[np.ndarray, np.ndarray]], num_clips: int) -> np.ndarray:
    """Returns the index of the fold in which each clip is tested."""
    folds = np.zeros(num_clips, dtype=int)
    for fold, (_, tested) in enumerate(splits):
        folds[tested] = fold
    return folds


def _sizes(speakers: np.ndarray) -> list[int]:
    """Returns the number of clips of each speaker, in their order."""
    return [len(list(clips)) for _, clips in groupby(speakers)]


def at_depth(features: np.ndarray, num_states: int) -> np.ndarray:
    """Repeats hidden states of a shallower encoder, so that there is one at each relative depth of a deeper one.

    Args:
        features: Features of shape (clips, hidden states, hidden size).
        num_states: Number of hidden states of the deeper encoder.
    """
    depth = features.shape[1] - 1
    return features[:, [round(state * depth / (num_states - 1)) for state in range(num_states)]]
