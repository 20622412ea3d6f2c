"""The clips of words and of speakers that the layers of a model are scored on, by the options of several benchmarks."""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets import Dataset

from hf_prunable.data.speech_commands_tasks import MIN_CLIPS_PER_SPEAKER, load_speech_commands_task
from hf_prunable.finetuning.task_profiles import MIN_CLIPS_PER_CLASS, profile_clips


@dataclass(kw_only=True)
class ScoredClipsArguments:
    """Clips of words and of speakers."""

    words: str = field(metadata={"help": "Speech Commands, for its words."})
    only_words: list[str] | None = field(default=None, metadata={"help": "Clips of these words only."})
    speakers: str = field(metadata={"help": "Speech Commands or alike, for its speakers."})
    output_dir: str = field(metadata={"help": "For profiles, table and picture."})
    min_clips_per_speaker: int = field(
        default=MIN_CLIPS_PER_SPEAKER, metadata={"help": "That a speaker needs to take part."}
    )
    words_split: str = field(default="train", metadata={"help": "Whose words are scored."})
    speakers_split: str = field(
        default="train",
        metadata={"help": "Whose speakers are scored. Test clips may be too few of each to make a region."},
    )
    max_clips: int = field(default=2000, metadata={"help": "Scored clips of each kind, at most."})

    def load(self, sampling_rate: int) -> dict[str, Dataset]:
        """The clips by task, "word" and "speaker", each with a column of the task's name.

        Args:
            sampling_rate: The rate they will be decoded to, in Hz.

        Raises:
            ValueError: If fewer than two classes have enough clips.
        """
        clips = {}
        for task, source, split, words in (
            ("word", self.words, self.words_split, self.only_words),
            ("speaker", self.speakers, self.speakers_split, None),
        ):
            splits, _ = load_speech_commands_task(
                source,
                task,
                sampling_rate=sampling_rate,
                words=words,
                min_clips_per_speaker=self.min_clips_per_speaker,
            )
            clips[task] = profile_clips(splits[split], task, max_clips=self.max_clips)
            if clips[task] is None:
                raise ValueError(
                    f"Fewer than two classes of {source} have {MIN_CLIPS_PER_CLASS} clips in the split {split!r}. Choose "
                    f"another by `--{task}s_split`."
                )
        return clips
