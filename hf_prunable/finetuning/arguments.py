"""Options of `finetune-speech-commands`: model, task, and which layers to keep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..data.class_splits import SPLIT_SEED
from ..data.classification_task import SPLITS, ClassificationTask
from ..data.keyword_task import KEYWORD, load_keyword_task
from ..data.labelled_clips import LabelledClipsSettings, load_labelled_clips
from ..data.labelled_sources import LabelColumns
from ..data.speech_commands import is_speech_commands
from ..data.speech_commands_tasks import (
    CLIP_SECONDS,
    MIN_CLIPS_PER_SPEAKER,
    TASKS,
    SpeakerSplit,
    load_speech_commands_task,
)
from ..truncation.convexity_config import CRITERIA, ConvexityConfig


AUTO, NONE = "auto", "none"
# The task on labels that are not those of Speech Commands.
OWN_LABELS = "label"
ALL_TASKS = (*TASKS, KEYWORD, OWN_LABELS)
# Options of one kind of data.
OWN_LABELS_OPTIONS = ("label_column", "audio_column", "group_column", "profile_columns", "clip_seconds")
SPEECH_COMMANDS_OPTIONS = ("words",)


def _convexity_option(name: str) -> Any:
    """An option with the default and the help of a field of `ConvexityConfig`."""
    (setting,) = (setting for setting in fields(ConvexityConfig) if setting.name == name)
    return field(default=setting.default, metadata=dict(setting.metadata))


@dataclass
class TruncationArguments:
    """The model, the task, and how many layers to keep.

    Raises:
        TypeError: If a number is not an integer.
        ValueError: If the value of an option is not allowed.
    """

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the checkpoint, stock or pruned."})
    dataset_name: str = field(
        metadata={
            "help": "Speech Commands (archive, folder, parquet copy), or labelled clips: class folders, a table, or a Hub id."
        }
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of a data set that has several."}
    )
    task: str | None = field(
        default=None,
        metadata={
            "help": "'word' (the default), 'speaker' or 'keyword' (12 classes) of Speech Commands, or 'label', the default "
            "for other data."
        },
    )
    words: list[str] | None = field(default=None, metadata={"help": "Use clips of these words only."})
    label_column: str | None = field(
        default=None, metadata={"help": "Column of the classes; by default 'label', or the folder of each file."}
    )
    audio_column: str | None = field(
        default=None, metadata={"help": "Column of the audio, or of paths of audio files."}
    )
    group_column: str | None = field(
        default=None, metadata={"help": "Column of groups, such as speakers, that come into one split each."}
    )
    profile_columns: list[str] | None = field(
        default=None, metadata={"help": "Further columns of labels that layers are scored by."}
    )
    min_clips_per_class: int = field(
        default=len(SPLITS), metadata={"help": "Minimum number of clips of a class if splits are drawn."}
    )
    clip_seconds: float | None = field(
        default=None,
        metadata={"help": "Length that clips are padded or cut to; by default the longest one's, at most 10 s."},
    )
    split_seed: int = field(default=SPLIT_SEED, metadata={"help": "Random seed of the splits that are drawn."})
    min_clips_per_speaker: int = field(
        default=MIN_CLIPS_PER_SPEAKER,
        metadata={"help": "Minimum number of training clips of a speaker."},
    )
    truncate: str = field(
        default=AUTO,
        metadata={"help": "Layers to keep: 'auto' for `layer_criterion`, 'none' for all, or a number."},
    )
    layer_criterion: str = field(
        default="convexity", metadata={"help": f"Criterion that chooses the layers: {', '.join(CRITERIA)}."}
    )
    n_neighbors: int = _convexity_option("n_neighbors")
    max_pairs: int | None = _convexity_option("max_pairs")
    profile_clips: int = field(
        default=2000, metadata={"help": "Maximum number of training clips that the layers are scored on."}
    )
    num_permutations: int = _convexity_option("num_permutations")
    compare: bool = field(
        default=False, metadata={"help": "Also fine-tune the model with all layers, and compare the two."}
    )
    seeds: list[int] = field(
        default_factory=lambda: [42],
        metadata={"help": "Random seeds, one training for each; the first model is saved."},
    )
    weighted_layers: bool = field(
        default=False,
        metadata={"help": "Use a learned weighted sum of all hidden states, not only the last one."},
    )
    freeze_feature_encoder: bool = field(
        default=True, metadata={"help": "Do not train the convolutional feature encoder."}
    )
    freeze_base_model: bool = field(default=False, metadata={"help": "Train only the head."})
    override: bool = field(
        default=False, metadata={"help": "Continue an interrupted run although its settings have changed."}
    )

    def __post_init__(self) -> None:
        # As transformers does with `output_dir`.
        self.model_name_or_path = os.path.expanduser(self.model_name_or_path)
        if self.task is not None and self.task not in ALL_TASKS:
            raise ValueError(f"`task` is {self.task!r}; choose from {', '.join(map(repr, ALL_TASKS))}.")
        self._check_kind_of_data()
        if self.layer_criterion not in CRITERIA:
            raise ValueError(f"`layer_criterion` is {self.layer_criterion!r}; choose from {', '.join(CRITERIA)}.")
        # A recipe may give the number as an integer.
        self.truncate = str(self.truncate)
        if self.truncate not in (AUTO, NONE) and not self.truncate.isdecimal():
            raise ValueError(f"`truncate` is {self.truncate!r}; it must be '{AUTO}', '{NONE}' or a number of layers.")
        if not self.seeds:
            raise ValueError("`seeds` is empty; give at least one.")
        # Fails on wrong values here, before any audio is read.
        self.convexity_config()

    def convexity_config(self) -> ConvexityConfig:
        """The settings of the layer scores; those that have no option keep their defaults."""
        return ConvexityConfig(
            n_neighbors=self.n_neighbors, max_pairs=self.max_pairs, num_permutations=self.num_permutations
        )

    @property
    def has_own_labels(self) -> bool:
        """Whether the classes are those of the data, not a task of Speech Commands."""
        if self.task is not None:
            return self.task == OWN_LABELS
        return bool(self._given(OWN_LABELS_OPTIONS)) or not is_speech_commands(self.dataset_name)

    def _given(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if getattr(self, name) is not None]

    def _check_kind_of_data(self) -> None:
        """Refuses options of the other kind of data than the one that is used."""
        has_own_labels = self.has_own_labels
        if wrong := self._given(SPEECH_COMMANDS_OPTIONS if has_own_labels else OWN_LABELS_OPTIONS):
            kind = "labels of your own" if has_own_labels else f"the task {self.task or TASKS[0]!r} of Speech Commands"
            raise ValueError(f"`{wrong[0]}` has no effect with {kind}. Leave it out.")
        self._labelled_clips_settings()

    def _labelled_clips_settings(self) -> LabelledClipsSettings:
        return LabelledClipsSettings(self.group_column, self.min_clips_per_class, self.split_seed, self.clip_seconds)

    def load_task(self, sampling_rate: int) -> ClassificationTask:
        """Loads the clips of the task.

        Args:
            sampling_rate: Sampling rate that the clips will be decoded to, in Hz.
        """
        source, config_name = self.dataset_name, self.dataset_config_name
        if self.has_own_labels:
            columns = LabelColumns(self.label_column, self.audio_column, tuple(self.profile_columns or ()))
            return load_labelled_clips(
                source,
                columns,
                self._labelled_clips_settings(),
                sampling_rate=sampling_rate,
                config_name=config_name,
            )
        if self.task == KEYWORD:
            return load_keyword_task(
                source, sampling_rate=sampling_rate, config_name=config_name, seed=self.split_seed
            )
        task = self.task or TASKS[0]
        splits, skipped = load_speech_commands_task(
            source,
            task,
            sampling_rate=sampling_rate,
            words=self.words,
            config_name=config_name,
            speaker_split=SpeakerSplit(self.min_clips_per_speaker),
        )
        others = tuple(label for label in TASKS if label != task)
        return ClassificationTask(task, splits, skipped, CLIP_SECONDS, others)
