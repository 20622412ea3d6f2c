"""Options of `finetune-speech-commands`: model, task, and which layers to keep."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import Any

from datasets import DatasetDict

from ..data.speech_commands_tasks import MIN_CLIPS_PER_SPEAKER, TASKS, SpeakerSplit, load_speech_commands_task
from ..data.speech_dataset import SkippedAudio
from ..truncation.convexity_config import CRITERIA, ConvexityConfig


AUTO, NONE = "auto", "none"


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
    dataset_name: str = field(metadata={"help": "Speech Commands: its archive, its folder, or a parquet copy."})
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of a data set that has several."}
    )
    task: str = field(default="word", metadata={"help": "What to classify: 'word' or 'speaker'."})
    words: list[str] | None = field(default=None, metadata={"help": "Use clips of these words only."})
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
        if self.task not in TASKS:
            raise ValueError(f"`task` is {self.task!r}; choose from {', '.join(map(repr, TASKS))}.")
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

    def load_clips(self, sampling_rate: int) -> tuple[DatasetDict, SkippedAudio]:
        """Loads the clips of the task with `load_speech_commands_task`.

        Args:
            sampling_rate: Sampling rate that the clips will be decoded to, in Hz.
        """
        return load_speech_commands_task(
            self.dataset_name,
            self.task,
            sampling_rate=sampling_rate,
            words=self.words,
            config_name=self.dataset_config_name,
            speaker_split=SpeakerSplit(self.min_clips_per_speaker),
        )
