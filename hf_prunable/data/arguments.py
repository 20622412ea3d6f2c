"""Command-line options for the speech to train and evaluate on, and loading it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from datasets import Dataset

from .clip_identity import identify_clips
from .labels import LabelEncoding
from .speech_dataset import load_speech_dataset, scan_speech_dataset, split_held_out
from .streaming import SpeechStream
from .transcripts import select_transcripts


# Held-out clips of a stream by default: a fraction cannot be used, because the number of clips is not known.
STREAM_HELD_OUT_CLIPS = 100


@dataclass
class SpeechArguments:
    """Options for the data set, the clips that are used and the clips that are held out for evaluation."""

    dataset_name: str = field(metadata={"help": "Speech: folder of audio files, parquet file or folder, or Hub id."})
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of a data set that has several."}
    )
    dataset_split: str = field(default="train", metadata={"help": "Split of the data set."})
    streaming: bool = field(
        default=False,
        metadata={"help": "Read parquet or the Hub while training; the first `held_out_clips` are held out."},
    )
    min_seconds: float = field(default=1.0, metadata={"help": "Minimum length of a clip in seconds."})
    held_out_fraction: float = field(
        default=0.05, metadata={"help": "Fraction of the clips held out for evaluation, between 0 and 1."}
    )
    held_out_clips: int | None = field(
        default=None,
        metadata={
            "help": f"Number of held-out clips, instead of the fraction; {STREAM_HELD_OUT_CLIPS} with `streaming`."
        },
    )

    def __post_init__(self):
        if self.held_out_clips is not None and self.held_out_clips < 1:
            raise ValueError(
                f"`held_out_clips` is {self.held_out_clips}; it must be 1 or more, because the result is measured on them."
            )
        if self.held_out_clips is None and not 0 < self.held_out_fraction < 1:
            raise ValueError(f"`held_out_fraction` is {self.held_out_fraction}; it must lie between 0 and 1.")


@dataclass(frozen=True)
class Speech:
    """Clips to train on and clips to evaluate on.

    Attributes:
        train_clips: Training clips, as a data set with columns `audio` and `seconds` or as a stream.
        held_out_clips: Evaluation clips, with columns `audio` and `seconds`.
        num_skipped: Number of clips left out, by cause. With a stream, only its held-out clips are counted.
    """

    train_clips: Dataset | SpeechStream
    held_out_clips: Dataset
    num_skipped: dict[str, int]

    def identity(self, label_column: str | None = None) -> dict[str, dict[str, int | float | str]]:
        """Returns facts by which an interrupted run recognises its clips, see `identify_clips`.

        The training clips of a stream are not among them: they would have to be read to the end. Its held-out clips, which
        are the first of the stream, are.

        Args:
            label_column: Column of labels that the run uses; `None` for clips without labels.
        """
        facts = {"held-out clips": identify_clips(self.held_out_clips, label_column)}
        if not isinstance(self.train_clips, SpeechStream):
            facts["training clips"] = identify_clips(self.train_clips, label_column)
        return facts


def leave_out_transcripts(speech: Speech, labels: LabelEncoding, count_frames: Callable[[float], int]) -> Speech:
    """Leaves out clips whose transcripts CTC cannot learn; see `select_transcripts`.

    Args:
        speech: Clips with labels, in data sets.
        labels: Column and encoding of the labels. Without a tokenizer, nothing is left out.
        count_frames: Function from the length of a clip in seconds to the number of frames of the model's output.

    Raises:
        ValueError: If no clip is left to train on or to evaluate on.
    """
    if labels.tokenizer is None or isinstance(speech.train_clips, SpeechStream):
        return speech
    select = partial(
        select_transcripts, label_column=labels.label_column, tokenizer=labels.tokenizer, count_frames=count_frames
    )
    train_clips, train_skipped = select(speech.train_clips)
    held_out_clips, held_out_skipped = select(speech.held_out_clips)
    num_skipped = Counter(speech.num_skipped) + train_skipped.counts + held_out_skipped.counts
    return Speech(train_clips, held_out_clips, dict(num_skipped))


def load_speech(arguments: SpeechArguments, sampling_rate: int, seed: int) -> Speech:
    """Loads a data set, leaves out clips that cannot be used and holds some out for evaluation.

    Args:
        arguments: Options for the data set and its clips.
        sampling_rate: Sampling rate of the feature extractor in Hz.
        seed: Random seed of the choice of held-out clips; a stream's held-out clips are its first.

    Raises:
        FileNotFoundError: If there is no such data set.
        ValueError: If it has no audio, or no clip is left to train on or to evaluate on.
    """
    clips = load_speech_dataset(
        arguments.dataset_name,
        split=arguments.dataset_split,
        config_name=arguments.dataset_config_name,
        streaming=arguments.streaming,
    )
    min_seconds, held_out_clips = arguments.min_seconds, arguments.held_out_clips
    train_clips: Dataset | SpeechStream
    if arguments.streaming:
        train_clips, held_out = SpeechStream(clips, min_seconds).hold_out(
            STREAM_HELD_OUT_CLIPS if held_out_clips is None else held_out_clips
        )
        held_out, skipped = scan_speech_dataset(held_out, sampling_rate=sampling_rate, min_seconds=min_seconds)
    else:
        clips, skipped = scan_speech_dataset(clips, sampling_rate=sampling_rate, min_seconds=min_seconds)
        fraction = arguments.held_out_fraction if held_out_clips is None else None
        train_clips, held_out = split_held_out(clips, fraction=fraction, count=held_out_clips, seed=seed)
    return Speech(train_clips, held_out, dict(skipped.counts))
