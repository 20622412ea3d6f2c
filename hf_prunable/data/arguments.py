"""Which speech a script trains and evaluates on, as options."""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets import Dataset

from .speech_dataset import clips_digest, load_speech_dataset, scan_speech_dataset, split_held_out
from .streaming import SpeechStream


@dataclass
class SpeechArguments:
    """The data set, and what of it is used."""

    dataset_name: str = field(metadata={"help": "Folder of audio, parquet file or folder, or Hub id."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    dataset_split: str = field(default="train", metadata={"help": "Split of the data set."})
    streaming: bool = field(
        default=False,
        metadata={"help": "Read parquet or the Hub while training, with its first `held_out_clips` for evaluation."},
    )
    min_seconds: float = field(default=1.0, metadata={"help": "Shorter clips are left out."})
    held_out_fraction: float = field(default=0.05, metadata={"help": "Part of the clips kept for evaluation."})
    held_out_clips: int | None = field(
        default=None, metadata={"help": "Number of clips kept for evaluation instead; 100 of a stream."}
    )


# Where the length of the whole is not known.
HELD_OUT_OF_STREAM = 100


@dataclass(frozen=True)
class Speech:
    """Clips to train on and clips to evaluate on.

    Attributes:
        train_clips: With columns `audio` and `seconds`; or a stream.
        held_out_clips: With columns `audio` and `seconds`.
        num_skipped: How many clips were left out, by the cause; of a stream, those among its held-out clips.
    """

    train_clips: Dataset | SpeechStream
    held_out_clips: Dataset
    num_skipped: dict[str, int]

    @property
    def digest(self) -> str:
        """A hash of which clips these are; of a stream, of the held-out ones."""
        is_stream = isinstance(self.train_clips, SpeechStream)
        return clips_digest(self.held_out_clips if is_stream else self.train_clips)


def load_speech(arguments: SpeechArguments, sampling_rate: int, seed: int) -> Speech:
    """Loads a data set, leaves out what cannot be used and keeps a part for evaluation.

    Args:
        arguments: Which one.
        sampling_rate: Of the model, in Hz.
        seed: Chooses the held-out clips; of a stream they are the first.

    Raises:
        FileNotFoundError: If there is no such data set.
        ValueError: If it holds no audio, or nothing is left to train on or to evaluate on.
    """
    clips = load_speech_dataset(
        arguments.dataset_name,
        split=arguments.dataset_split,
        config_name=arguments.dataset_config_name,
        streaming=arguments.streaming,
    )
    options = {"sampling_rate": sampling_rate, "min_seconds": arguments.min_seconds}
    if arguments.streaming:
        stream = SpeechStream(clips, arguments.min_seconds)
        count = HELD_OUT_OF_STREAM if arguments.held_out_clips is None else arguments.held_out_clips
        train_clips, first = stream.hold_out(count)
        held_out_clips, skipped = scan_speech_dataset(first, **options)
    else:
        clips, skipped = scan_speech_dataset(clips, **options)
        count = arguments.held_out_clips
        fraction = arguments.held_out_fraction if count is None else None
        train_clips, held_out_clips = split_held_out(clips, fraction=fraction, count=count, seed=seed)
    return Speech(train_clips, held_out_clips, {cause: len(names) for cause, names in skipped.names.items()})
