"""A classification task on anybody's labelled clips: classes, usable clips and splits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from datasets import ClassLabel, Dataset, DatasetDict
from transformers.utils import logging

from ..runtime.messages import first_names
from .audio import clip_name, undecoded_audio
from .class_splits import SPLIT_SEED, complete_splits, rare_classes
from .classification_task import SPLITS, TEST, TRAIN, VALIDATION, ClassificationTask
from .labelled_sources import SPLIT_COLUMN, LabelColumns, read_labelled_clips
from .labels import clips_without_label
from .speech_commands_tasks import MIN_SAMPLES
from .speech_dataset import SkippedAudio, measure_clips


logger = logging.get_logger(__name__)

# The longest clip of a task, unless its length is given: the memory of attention grows with the square of it.
MAX_SECONDS = 10.0
LABEL = "label"
TOO_FEW_CLIPS = "of a class with too few clips"


@dataclass(frozen=True)
class LabelledClipsSettings:
    """How the classes and the splits of labelled clips are made.

    Attributes:
        group_column: Column of groups, such as the speaker, of which none comes into two splits; `None` for none.
        min_clips_per_class: Minimum number of training clips of a class before splits are drawn, 3 or more; classes with
            fewer are left out.
        seed: Random seed of the splits that are drawn.
        clip_seconds: Length in seconds that clips are padded or cut to; `None` for that of the longest training clip, at
            most 10.

    Raises:
        ValueError: If a number is out of range.
    """

    group_column: str | None = None
    min_clips_per_class: int = len(SPLITS)
    seed: int = SPLIT_SEED
    clip_seconds: float | None = None

    def __post_init__(self):
        if self.min_clips_per_class < len(SPLITS):
            raise ValueError(
                f"`min_clips_per_class` is {self.min_clips_per_class}; it must be {len(SPLITS)} or more, one for each split."
            )
        if self.clip_seconds is not None and not self.clip_seconds > 0:
            raise ValueError(f"`clip_seconds` is {self.clip_seconds}; it must be above 0.")


def load_labelled_clips(
    name_or_path: str | os.PathLike,
    columns: LabelColumns | None = None,
    settings: LabelledClipsSettings | None = None,
    *,
    sampling_rate: int,
    config_name: str | None = None,
) -> ClassificationTask:
    """Loads labelled clips for classification; clips that cannot be decoded are left out.

    Splits are those that are given. Missing ones are drawn from the training clips by a seed: a tenth of each class for
    testing, and a tenth of the others for validation, at least one clip each; or about as much in whole groups.

    Args:
        name_or_path: Source of the clips, see `read_labelled_clips`.
        columns: Names of the columns; the further ones are other labels by which layers are scored.
        settings: How classes and splits are made; by default as in `LabelledClipsSettings`.
        sampling_rate: Sampling rate in Hz that the clips will be decoded to.
        config_name: Configuration, see `read_labelled_clips`.

    Raises:
        FileNotFoundError: See `read_labelled_clips`.
        ValueError: See `read_labelled_clips`; or if a clip has no label or group, there are fewer than two classes, a
            class or a group is where it must not be, or splits cannot be drawn.
    """
    columns, settings = columns or LabelColumns(), settings or LabelledClipsSettings()
    name, group_column = str(name_or_path), settings.group_column
    groups_too = () if group_column is None else (group_column,)
    if settings.clip_seconds is not None and settings.clip_seconds * sampling_rate < MIN_SAMPLES:
        raise ValueError(
            f"`clip_seconds` is {settings.clip_seconds}; it must be {MIN_SAMPLES / sampling_rate:g} or more, the shortest clip."
        )
    read = replace(columns, others=tuple(dict.fromkeys((*columns.others, *groups_too))))
    clips = read_labelled_clips(name_or_path, read, config_name=config_name)
    for column in (columns.label_name, *groups_too):
        _check_complete(clips, column, name)
    seconds, usable, skipped = measure_clips(
        clips, sampling_rate=sampling_rate, min_seconds=MIN_SAMPLES / sampling_rate, decode=True
    )
    labels, split_of = clips[columns.label_name][:], clips[SPLIT_COLUMN][:]
    groups = None if group_column is None else clips[group_column][:]
    given = {split: [row for row in usable if split_of[row] == split] for split in sorted(set(split_of))}
    if len(given) < len(SPLITS):
        rare = rare_classes(given[TRAIN], labels, settings.min_clips_per_class, groups)
        if rare and len(rare) == len(given[TRAIN]):
            raise ValueError(
                f"{name}: no class has enough clips or groups for three splits: {_class_sizes(rare, labels)}. Each needs "
                f"{settings.min_clips_per_class} training clips, and with groups {len(SPLITS)} groups. Give more, or all splits."
            )
        given = {split: [row for row in rows if row not in rare] for split, rows in given.items()}
        skipped = _with_rare(skipped, clips, rare, labels)
    splits = complete_splits(given, labels, groups, settings.seed)
    classes = _check_classes(splits, labels, name)
    # Columns are added before rows are selected: added after it, datasets would copy all the audio.
    clips = clips.remove_columns([name for name in (SPLIT_COLUMN, LABEL) if name in clips.column_names])
    class_ids = {label: class_id for class_id, label in enumerate(classes)}
    ids, feature = [class_ids.get(label) for label in labels], ClassLabel(names=classes)
    clips = clips.add_column(LABEL, ids, feature=feature).add_column("seconds", seconds)
    return ClassificationTask(
        name=columns.label_name,
        splits=DatasetDict({split: clips.select(rows) for split, rows in splits.items()}),
        skipped=skipped,
        clip_seconds=settings.clip_seconds or _longest([seconds[row] for row in splits[TRAIN]]),
        other_labels=columns.others,
    )


def _check_complete(clips: Dataset, column: str, name: str) -> None:
    if missing := clips_without_label(clips, column):
        raise ValueError(
            f"{name}: {len(missing)} of {len(clips)} clips have nothing in the column {column!r}: {first_names(missing)}. "
            "Leave them out."
        )


def _with_rare(skipped: SkippedAudio, clips: Dataset, rare: Collection[int], labels: Sequence[str]) -> SkippedAudio:
    """Adds clips of rare classes to those that are left out, with a warning that names the classes."""
    if not rare:
        return skipped
    logger.warning(f"Classes left out, with too few clips or groups for three splits: {_class_sizes(rare, labels)}.")
    audio = undecoded_audio(clips)
    names = [clip_name(audio[row]["audio"], row) for row in sorted(rare)]
    return SkippedAudio(skipped.num_clips, skipped.names | {TOO_FEW_CLIPS: names})


def _class_sizes(rows: Collection[int], labels: Sequence[str]) -> str:
    """Returns the names of the classes of some clips, each with its number of clips."""
    counts = sorted(Counter(labels[row] for row in rows).items())
    return first_names([f"{label} ({count})" for label, count in counts])


def _check_classes(splits: Mapping[str, Sequence[int]], labels: Sequence[str], name: str) -> list[str]:
    """Returns the names of the classes, which are those of the training clips."""
    present = {split: {labels[row] for row in rows} for split, rows in splits.items()}
    classes = sorted(present[TRAIN])
    for split in (VALIDATION, TEST):
        if unseen := sorted(present[split] - present[TRAIN]):
            raise ValueError(
                f"{name}: the split {split!r} has classes without a training clip: {first_names(unseen)}. Leave them out, or "
                "give training clips; for splits that are drawn in groups, try another `split_seed`."
            )
        if empty := sorted(present[TRAIN] - present[split]):
            logger.warning(
                f"{len(empty)} of {len(classes)} classes have no clip in the split {split!r}: {first_names(empty)}."
            )
    if len(classes) < 2:
        raise ValueError(f"{name}: one class ({classes[0]}) makes no classification. Give clips of two or more.")
    return classes


def _longest(seconds: Sequence[float]) -> float:
    """Returns the length of the longest clip, at most `MAX_SECONDS`, with a warning if some are longer."""
    if longer := sum(length > MAX_SECONDS for length in seconds):
        logger.warning(
            f"{longer} of {len(seconds)} training clips are cut to {MAX_SECONDS:g} s. `clip_seconds` sets the length."
        )
    return min(MAX_SECONDS, max(seconds))
