"""The two tasks on Speech Commands: which word, and which speaker."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Value

from ..runtime.messages import first_names
from .speech_commands import SPLITS, read_speech_commands, rows_of_words
from .speech_dataset import SkippedAudio, measure_clips


TASKS = ("word", "speaker")
# arXiv 2408.11858: 388 speakers of version 0.02.
MIN_CLIPS_PER_SPEAKER = 50
TEST_FRACTION = 0.1
SEED = 42
# Of what is not for testing.
VALIDATION_FRACTION = 0.1
# One clip a split.
FEWEST_CLIPS_PER_SPEAKER = len(SPLITS)
# What the models' convolutions see at once, at 16 kHz: a shorter clip has no frame.
MIN_SECONDS = 0.025
# Clips of Speech Commands are 1 s or a little less: see `LabelledCollator`.
CLIP_SECONDS = 1.0


def load_speech_commands_task(
    name_or_path: str | os.PathLike,
    task: str,
    *,
    sampling_rate: int,
    words: Sequence[str] | None = None,
    min_clips_per_speaker: int = MIN_CLIPS_PER_SPEAKER,
    seed: int = SEED,
    config_name: str | None = None,
) -> tuple[DatasetDict, SkippedAudio]:
    """Makes one of the two tasks, leaving out clips that cannot be decoded.

    Words have the official splits. For speakers, the training list alone is used, because no speaker is in two lists: of
    each speaker's clips a tenth is for testing, as published; and of the others a tenth for validation, which the
    publication does not have, so that neither the best checkpoint nor a layer is chosen by what is tested on. Each is
    at least one clip. A copy that has the same speakers in all three splits is taken as it is split.

    Args:
        name_or_path: As in `read_speech_commands`.
        task: "word" or "speaker".
        sampling_rate: The rate the clips will be decoded to, in Hz.
        words: Clips of these alone; by default of all.
        min_clips_per_speaker: Clips on the training list that a speaker must have to take part, 3 or more.
        seed: Of the split of speakers.
        config_name: As in `read_speech_commands`.

    Returns:
        The splits "train", "validation" and "test" with the columns `audio` (undecoded), `label` (`ClassLabel`, its
        names those of the splits, sorted), `word`, `speaker` and `seconds`, in the order of words and file names; and
        which clips were left out.

    Raises:
        FileNotFoundError: As `read_speech_commands`.
        ValueError: As `read_speech_commands`, or if the task is unknown, a split is missing, there are fewer than two
            words or too few speakers.
    """
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; it must be 'word' or 'speaker'.")
    if min_clips_per_speaker < FEWEST_CLIPS_PER_SPEAKER:
        raise ValueError(
            f"min_clips_per_speaker is {min_clips_per_speaker}; it must be {FEWEST_CLIPS_PER_SPEAKER} or more, so that "
            "every split has a clip of every speaker."
        )
    name = str(name_or_path)
    table = read_speech_commands(name_or_path, config_name=config_name)
    rows = rows_of_words(table, words, name)
    seconds, usable, skipped = measure_clips(
        table.select(rows), sampling_rate=sampling_rate, min_seconds=MIN_SECONDS, decode=True
    )
    length = {row: seconds[place] for place, row in enumerate(rows)}
    rows = [rows[place] for place in usable]
    if task == "word":
        splits = _word_splits(table, rows, name)
    else:
        splits = _speaker_splits(table, rows, name, min_clips_per_speaker, seed)
    labels = table[task][:]
    label_of = {row: labels[row] for rows in splits.values() for row in rows}
    classes = sorted(set(label_of.values()))
    if len(classes) < 2:
        raise ValueError(f"{name}: one word ({classes[0]}) is nothing to tell apart. Give two or more `words`.")
    number = {label: place for place, label in enumerate(classes)}
    # Columns before selection: added to a selection, they would make datasets copy all the audio.
    columns = {
        "label": ([number.get(label_of.get(row)) for row in range(len(table))], ClassLabel(names=classes)),
        "seconds": ([length.get(row) for row in range(len(table))], Value("float64")),
    }
    table = table.select_columns(["audio", "word", "speaker"])
    for column, (values, feature) in columns.items():
        table = table.add_column(column, values, feature=feature)
    return DatasetDict({split: table.select(rows) for split, rows in splits.items()}), skipped


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
    table: Dataset, rows: Sequence[int], name: str, min_clips_per_speaker: int, seed: int
) -> dict[str, list[int]]:
    clips: dict[str, dict[str, list[int]]] = {split: defaultdict(list) for split in SPLITS}
    split_of, speaker_of = table["split"][:], table["speaker"][:]
    for row in rows:
        clips[split_of[row]][speaker_of[row]].append(row)
    train = clips["train"]
    if None in train:
        raise ValueError(
            f"{name}: the speaker of {table['clip'][train[None][0]]} is not told. Give a copy with a column 'speaker', or "
            "the official archive."
        )
    chosen = sorted(speaker for speaker, own in train.items() if len(own) >= min_clips_per_speaker)
    if len(chosen) < 2:
        most = Counter({speaker: len(own) for speaker, own in train.items()}).most_common()
        counts = first_names([f"{count} of {speaker}" for speaker, count in most]) or "none"
        raise ValueError(
            f"{name}: {len(chosen)} of {len(train)} speakers have {min_clips_per_speaker} or more usable clips on the "
            f"training list, and two are needed. The most clips are {counts}. Lower `min_clips_per_speaker`."
        )
    if all(own.keys() == train.keys() for own in clips.values()):
        splits = {split: [row for speaker in chosen for row in own[speaker]] for split, own in clips.items()}
    else:
        splits = _draw_splits([train[speaker] for speaker in chosen], seed)
    place_of = {row: place for place, row in enumerate(rows)}
    return {split: sorted(chosen_rows, key=place_of.__getitem__) for split, chosen_rows in splits.items()}


def _draw_splits(clips_of_speakers: Sequence[Sequence[int]], seed: int) -> dict[str, list[int]]:
    generator = np.random.default_rng(seed)
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for clips in clips_of_speakers:
        order = [clips[place] for place in generator.permutation(len(clips))]
        num_test = max(1, round(TEST_FRACTION * len(order)))
        num_validation = max(1, round(VALIDATION_FRACTION * (len(order) - num_test)))
        splits["test"] += order[:num_test]
        splits["validation"] += order[num_test : num_test + num_validation]
        splits["train"] += order[num_test + num_validation :]
    return splits
