"""Clips of words and of speakers for scoring layers, chosen by options that several experiments share."""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets import Dataset

from hf_prunable.data.speech_commands_tasks import MIN_CLIPS_PER_SPEAKER, SpeakerSplit, load_speech_commands_task
from hf_prunable.finetuning.task_profiles import MIN_CLIPS_PER_CLASS, profile_clips


@dataclass(kw_only=True)
class ScoredClipsArguments:
    """Clips of words and of speakers to score layers on."""

    words: str = field(
        metadata={"help": "Data for the word task: Speech Commands as an archive, a folder or a parquet copy."}
    )
    only_words: list[str] | None = field(
        default=None, metadata={"help": "Words to include in the word task; default: all."}
    )
    speakers: str = field(
        metadata={"help": "Data for the speaker task, in the same formats; see `experiments.speaker_segments`."}
    )
    output_dir: str = field(metadata={"help": "Output folder."})
    min_clips_per_speaker: int = field(
        default=MIN_CLIPS_PER_SPEAKER, metadata={"help": "Minimum number of training clips of a speaker."}
    )
    words_split: str = field(default="train", metadata={"help": "Split of the word task: train, validation or test."})
    speakers_split: str = field(
        default="train",
        metadata={
            "help": "Split of the speaker task: train, validation or test. A test split may hold too few clips per "
            "speaker."
        },
    )
    max_clips: int = field(default=2000, metadata={"help": "Maximum number of clips per task."})

    def load(self, sampling_rate: int) -> dict[str, Dataset]:
        """Loads the clips of both tasks.

        Args:
            sampling_rate: Sampling rate in Hz that clips are decoded to.

        Returns:
            Clips by task, "word" and "speaker", each with a column named after the task.

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
                speaker_split=SpeakerSplit(self.min_clips_per_speaker),
            )
            clips[task] = profile_clips(splits[split], task, max_clips=self.max_clips)
            if clips[task] is None:
                raise ValueError(
                    f"Fewer than two classes of {source} have {MIN_CLIPS_PER_CLASS} clips in the split {split!r}. Choose "
                    f"another split with `--{task}s_split`."
                )
        return clips
