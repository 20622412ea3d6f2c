"""Which layers to keep for which task, as options."""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets import DatasetDict

from ..data.speech_commands_tasks import MIN_CLIPS_PER_SPEAKER, TASKS, load_speech_commands_task
from ..data.speech_dataset import SkippedAudio
from ..truncation.layer_profile import CRITERIA


AUTO, NONE = "auto", "none"


@dataclass
class TruncationArguments:
    """The model, the task, and how deep the model is to stay.

    Raises:
        ValueError: If an option is not one of those that there are.
    """

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the checkpoint, stock or pruned."})
    dataset_name: str = field(
        metadata={"help": "Speech Commands: the archive, the folder it was extracted to, or a parquet copy."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    task: str = field(default="word", metadata={"help": "What is told apart: 'word' or 'speaker'."})
    words: list[str] | None = field(default=None, metadata={"help": "Clips of these words only."})
    min_clips_per_speaker: int = field(
        default=MIN_CLIPS_PER_SPEAKER, metadata={"help": "Training clips that a speaker needs to take part."}
    )
    truncate: str = field(
        default=AUTO,
        metadata={"help": "'auto' chooses by `layer_criterion`; 'none' keeps all layers; a number keeps so many."},
    )
    layer_criterion: str = field(default="convexity", metadata={"help": f"One of {', '.join(CRITERIA)}."})
    n_neighbors: int = field(default=10, metadata={"help": "Of the graph that convexity is read from."})
    max_pairs: int = field(default=5000, metadata={"help": "Paths that are scored in a class, at most."})
    profile_clips: int = field(default=2000, metadata={"help": "Training clips that layers are scored on, at most."})
    num_permutations: int = field(
        default=20, metadata={"help": "Of the labels, for the band that convexity without meaning falls into."}
    )
    compare: bool = field(
        default=False, metadata={"help": "Train the full model the same way, and hold the truncated one against it."}
    )
    seeds: list[int] = field(
        default_factory=lambda: [42], metadata={"help": "One training for each; the first one's model is the result."}
    )
    weighted_layers: bool = field(
        default=False, metadata={"help": "Let the head read a learned sum of all hidden states instead of the last."}
    )
    freeze_feature_encoder: bool = field(
        default=True, metadata={"help": "Leave the convolutions as they are, as is usual in fine-tuning."}
    )
    freeze_base_model: bool = field(default=False, metadata={"help": "Train the head alone."})
    override: bool = field(
        default=False, metadata={"help": "Go on with an interrupted run although the settings have changed."}
    )

    def __post_init__(self):
        if self.task not in TASKS:
            raise ValueError(f"`task` is {self.task!r}; choose from {', '.join(map(repr, TASKS))}.")
        if self.layer_criterion not in CRITERIA:
            raise ValueError(f"`layer_criterion` is {self.layer_criterion!r}; choose from {', '.join(CRITERIA)}.")
        # A recipe may give the number as one.
        self.truncate = str(self.truncate)
        if self.truncate not in (AUTO, NONE) and not self.truncate.isdecimal():
            raise ValueError(f"`truncate` is {self.truncate!r}; it must be '{AUTO}', '{NONE}' or a number of layers.")
        if not self.seeds:
            raise ValueError("`seeds` is empty; give at least one.")

    def load_clips(self, sampling_rate: int) -> tuple[DatasetDict, SkippedAudio]:
        """The task's clips, as `load_speech_commands_task` gives them.

        Args:
            sampling_rate: The rate they will be decoded to, in Hz.
        """
        return load_speech_commands_task(
            self.dataset_name,
            self.task,
            sampling_rate=sampling_rate,
            words=self.words,
            min_clips_per_speaker=self.min_clips_per_speaker,
            config_name=self.dataset_config_name,
        )
