"""The two tasks on Speech Commands, classification of words and of speakers, with their splits."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasets import ClassLabel, Dataset, DatasetDict, Value

from ..runtime.messages import first_names
from .class_splits import SPLIT_SEED, draw_class_splits
from .speech_commands import SPLITS, read_speech_commands, rows_of_words
from .speech_dataset import SkippedAudio, measure_clips


TASKS = ("word", "speaker")
# arXiv 2408.11858: 388 speakers of version 0.02.
MIN_CLIPS_PER_SPEAKER = 50
# One clip for each split.
FEWEST_CLIPS_PER_SPEAKER = len(SPLITS)
# Receptive field of the convolutions of all published models (arXiv 2006.11477); a shorter clip has no frame.
MIN_SAMPLES = 400
# Clips of Speech Commands are at most 1 s long: see `LabelledCollator`.
CLIP_SECONDS = 1.0


@dataclass(frozen=True)
class SpeakerSplit:
    """Which speakers take part in the speaker task, and how their clips are split.

    Attributes:
        min_clips_per_speaker: Clips on the training list that a speaker must have to take part, 3 or more.
        seed: Random seed of the split.

    Raises:
        ValueError: If `min_clips_per_speaker` is below 3.
    """

    min_clips_per_speaker: int = MIN_CLIPS_PER_SPEAKER
    seed: int = SPLIT_SEED

    def __post_init__(self):
        if self.min_clips_per_speaker < FEWEST_CLIPS_PER_SPEAKER:
            raise ValueError(
                f"min_clips_per_speaker is {self.min_clips_per_speaker}; it must be {FEWEST_CLIPS_PER_SPEAKER} or more, "
                "so that every split has a clip of every speaker."
            )


def load_speech_commands_task(
    name_or_path: str | os.PathLike,
    task: str,
    *,
    sampling_rate: int,
    words: Sequence[str] | None = None,
    config_name: str | None = None,
    speaker_split: SpeakerSplit | None = None,
) -> tuple[DatasetDict, SkippedAudio]:
    """Loads one of the two tasks; clips that cannot be decoded are left out.

    Words have the official splits. Speakers are split within the official training list, because no speaker is in two of
    the official splits: a tenth of each speaker's clips is for testing, as in arXiv 2408.11858, and a tenth of the others
    for validation, but at least one clip each. The paper has no validation clips; here they keep the choice of a
    checkpoint or of a layer apart from the test clips. A copy with the same speakers in all three splits keeps its splits.

    Args:
        name_or_path: Source of Speech Commands, see `read_speech_commands`.
        task: "word" or "speaker".
        sampling_rate: Sampling rate in Hz that the clips will be decoded to.
        words: Words whose clips are used; by default all.
        config_name: Configuration name, see `read_speech_commands`.
        speaker_split: Settings of the speaker task; by default those of `SpeakerSplit`.

    Returns:
        The splits "train", "validation" and "test", in the order of words and file names, with the columns `audio`
        (undecoded), `label` (`ClassLabel` with sorted names), `word`, `speaker` and `seconds`; and the clips that were
        left out.

    Raises:
        FileNotFoundError: See `read_speech_commands`.
        ValueError: See `read_speech_commands`; or if the task is unknown, a split is missing, or there are fewer than two
            words or speakers.
    """
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; it must be 'word' or 'speaker'.")
    name = str(name_or_path)
    clips = read_usable_clips(name_or_path, words, sampling_rate, config_name)
    if task == "word":
        splits = _word_splits(clips.table, clips.rows, name)
    else:
        splits = _speaker_splits(clips.table, clips.rows, name, speaker_split or SpeakerSplit())
    table = _add_label_and_seconds(clips.table, task, splits, clips.seconds_of, name)
    return DatasetDict({split: table.select(split_rows) for split, split_rows in splits.items()}), clips.skipped


@dataclass(frozen=True)
class UsableClips:
    """Clips of Speech Commands that can be decoded.

    Attributes:
        table: All clips, see `read_speech_commands`.
        rows: Indices of the usable clips, in the order of words and file names.
        seconds_of: Length in seconds of each clip that was decoded, by its index.
        skipped: Clips that were left out.
    """

    table: Dataset
    rows: list[int]
    seconds_of: dict[int, float]
    skipped: SkippedAudio


def read_usable_clips(
    name_or_path: str | os.PathLike, words: Sequence[str] | None, sampling_rate: int, config_name: str | None
) -> UsableClips:
    """Reads Speech Commands and decodes its clips, to leave out those that cannot be used.

    Args:
        name_or_path: Source of Speech Commands, see `read_speech_commands`.
        words: Words whose clips are used; `None` for all.
        sampling_rate: Sampling rate in Hz that the clips will be decoded to.
        config_name: Configuration name, see `read_speech_commands`.

    Raises:
        FileNotFoundError: See `read_speech_commands`.
        ValueError: See `read_speech_commands`; or if no clip can be used.
    """
    table = read_speech_commands(name_or_path, config_name=config_name)
    rows = rows_of_words(table, words, str(name_or_path))
    seconds, usable, skipped = measure_clips(
        table.select(rows), sampling_rate=sampling_rate, min_seconds=MIN_SAMPLES / sampling_rate, decode=True
    )
    return UsableClips(table, [rows[index] for index in usable], dict(zip(rows, seconds, strict=True)), skipped)


def _add_label_and_seconds(
    table: Dataset, task: str, splits: Mapping[str, Sequence[int]], seconds_of: Mapping[int, float], name: str
) -> Dataset:
    """Adds the columns `label` and `seconds`, with `None` in rows that are in no split."""
    labels = table[task][:]
    label_of = {row: labels[row] for rows in splits.values() for row in rows}
    classes = sorted(set(label_of.values()))
    if len(classes) < 2:
        raise ValueError(f"{name}: one word ({classes[0]}) makes no classification. Give two or more `words`.")
    class_ids = {label: class_id for class_id, label in enumerate(classes)}
    # Columns are added before rows are selected: added after it, datasets would copy all the audio.
    columns = {
        "label": ([class_ids.get(label_of.get(row)) for row in range(len(table))], ClassLabel(names=classes)),
        "seconds": ([seconds_of.get(row) for row in range(len(table))], Value("float64")),
    }
    table = table.select_columns(["audio", "word", "speaker"])
    for column, (values, feature) in columns.items():
        table = table.add_column(column, values, feature=feature)
    return table


def _word_splits(table: Dataset, rows: Sequence[int], name: str) -> dict[str, list[int]]:
    split_of = table["split"][:]
    splits = {split: [row for row in rows if split_of[row] == split] for split in SPLITS}
    if empty := [split for split, rows in splits.items() if not rows]:
        raise ValueError(
            f"{name}: no usable clip in {' and '.join(map(repr, empty))}. Words need all three splits: give the official "
            "archive, or a parquet copy with splits of these names."
        )
    return splits


def _speaker_splits(
    table: Dataset, rows: Sequence[int], name: str, speaker_split: SpeakerSplit
) -> dict[str, list[int]]:
    """Rows of each split, in the order of `rows`, for the speakers with enough clips on the training list."""
    split_of, speaker_of = table["split"][:], table["speaker"][:]
    unknown = [row for row in rows if split_of[row] == "train" and speaker_of[row] is None]
    if unknown:
        raise ValueError(
            f"{name}: the speaker of {table['clip'][unknown[0]]} is not known. Give a copy with a column 'speaker', or "
            "the official archive."
        )
    clips: dict[str, dict[str, list[int]]] = {split: defaultdict(list) for split in SPLITS}
    for row in rows:
        clips[split_of[row]][speaker_of[row]].append(row)
    train = clips["train"]
    num_clips = {speaker: len(own) for speaker, own in train.items()}
    chosen = _speakers_with_enough_clips(num_clips, name, speaker_split.min_clips_per_speaker)
    if all(own.keys() == train.keys() for own in clips.values()):
        splits = {split: [row for speaker in chosen for row in own[speaker]] for split, own in clips.items()}
    else:
        splits = draw_class_splits([train[speaker] for speaker in chosen], speaker_split.seed)
    position_of = {row: position for position, row in enumerate(rows)}
    return {split: sorted(split_rows, key=position_of.__getitem__) for split, split_rows in splits.items()}


def _speakers_with_enough_clips(num_clips: Mapping[str, int], name: str, min_clips_per_speaker: int) -> list[str]:
    chosen = sorted(speaker for speaker, count in num_clips.items() if count >= min_clips_per_speaker)
    if len(chosen) < 2:
        counts = first_names([f"{count} of {speaker}" for speaker, count in Counter(num_clips).most_common()])
        raise ValueError(
            f"{name}: {len(chosen)} of {len(num_clips)} speakers have {min_clips_per_speaker} or more usable clips on the "
            f"training list, and two are needed. The most clips are {counts or 'none'}. Lower `min_clips_per_speaker`."
        )
    return chosen
