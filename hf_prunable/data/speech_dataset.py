"""Speech data sets: loading from folders, parquet and the Hub, leaving out unusable clips, and held-out clips.

Audio stays undecoded in the data set (`Audio(decode=False)`) and is decoded by soundfile, so torchcodec is not needed.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
from datasets import Audio, Dataset, Features, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from transformers.utils import logging

from ..runtime.messages import first_names
from .audio import (
    AUDIO_EXTENSIONS,
    AudioError,
    clip_name,
    count_samples,
    decode_audio,
    undecoded_audio,
)
from .audio_folder import list_folder, load_audio_folder


logger = logging.get_logger(__name__)

PARQUET_EXTENSIONS = (".parquet",)
FILE_EXTENSIONS = AUDIO_EXTENSIONS + PARQUET_EXTENSIONS


def load_speech_dataset(
    name_or_path: str | os.PathLike, *, split: str = "train", config_name: str | None = None, streaming: bool = False
) -> Dataset | IterableDataset:
    """Loads speech from a folder of audio files, from parquet or from the Hub.

    Args:
        name_or_path: Source of the clips, one of: a folder of audio files, at any depth, with further columns from a
            `metadata.csv` or `metadata.jsonl` in it (files are read in the order of their relative paths; hidden files
            are left out, and a warning counts those of other formats); a parquet file or a folder of them; the id of a
            data set on the Hub.
        split: Name of the split. In a folder of audio files it is the sub-folder of this name; "train" is the whole
            folder if there is no such sub-folder.
        config_name: Configuration name of a Hub data set or parquet folder with several configurations.
        streaming: Whether to read the clips while they are used, instead of loading and indexing them first.

    Returns:
        The data set with a column `audio` (`Audio(decode=False)`); its other columns are unchanged.

    Raises:
        FileNotFoundError: If there is no such path and no such data set.
        ValueError: If a folder has neither audio nor parquet files, no column holds audio, or a folder of audio files
            is to be streamed.
    """
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if path.is_dir():
        folder = path / split if (path / split).is_dir() else path
        content = list_folder(folder, AUDIO_EXTENSIONS)
        if content.files and streaming:
            raise ValueError(f"{name}: a folder of audio files is read as it is needed anyway; leave `streaming` out.")
        if content.files:
            if folder == path and split != "train":
                raise ValueError(
                    f"{name}: there is no sub-folder {split!r}; a folder of audio files has only the "
                    "split 'train' and its sub-folders."
                )
            return load_audio_folder(folder, content)
        if not list_folder(path, PARQUET_EXTENSIONS).files:
            found = f" There are other files: {', '.join(content.left_out)}." if content.left_out else ""
            raise ValueError(
                f"{folder}: no audio in it; the extensions looked for are {', '.join(FILE_EXTENSIONS)}.{found}"
            )
        dataset = load_dataset(str(path), config_name, split=split, streaming=streaming)
    elif path.is_file():
        if path.suffix.lower() not in PARQUET_EXTENSIONS:
            raise ValueError(f"{name}: give the folder of the audio files, or a .parquet file.")
        # The file is the split that is asked for, without a slice such as "[:10%]", which datasets applies.
        data_files = {re.split(r"\W", split)[0]: str(path)}
        dataset = load_dataset("parquet", data_files=data_files, split=split, streaming=streaming)
    elif re.match(r"[\w.-]+(/[\w.-]+)?$", name) and not name.startswith(".") and path.suffix not in FILE_EXTENSIONS:
        dataset = _load_from_hub(name, config_name, split, streaming)
    else:
        raise FileNotFoundError(f"{name}: there is no such file or folder.")
    return with_audio_column(dataset, name)


def _load_from_hub(name: str, config_name: str | None, split: str, streaming: bool) -> Dataset | IterableDataset:
    try:
        return load_dataset(name, config_name, split=split, streaming=streaming)
    except (DatasetNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"{name!r} is neither a file nor a folder here, and cannot be loaded from the Hub: {error}"
        ) from error
    except DatasetGenerationError as error:
        if not isinstance(error.__cause__, ImportError):
            raise
        raise ValueError(
            f"{name!r} holds single audio files, which datasets cannot load without torchcodec. Fetch them with `hf "
            f"download {name} --repo-type dataset --local-dir FOLDER` and give that folder."
        ) from error


def audio_columns(features: Features) -> list[str]:
    """Returns the names of the columns that hold audio.

    Args:
        features: Columns of a data set.
    """
    columns = [column for column, feature in features.items() if isinstance(feature, Audio)]
    # In a parquet file that was not written by datasets, audio is a structure of bytes and path.
    return columns or [
        column
        for column, feature in features.items()
        if isinstance(feature, dict) and {"bytes"} <= feature.keys() <= {"bytes", "path"}
    ]


def with_audio_column(
    dataset: Dataset | IterableDataset, name: str, audio_column: str | None = None
) -> Dataset | IterableDataset:
    """Renames the column with audio to `audio` and turns its decoding off.

    Args:
        dataset: Data set with one column of audio, or with several of which one is named `audio`.
        name: Name of the data set in messages.
        audio_column: Column of the audio, in place of a column `audio`; `None` to find it.

    Raises:
        ValueError: If no column holds audio, several do and none is named `audio`, or the columns of a stream are not
            known before it is read.
    """
    features = dataset.features
    if features is None:
        raise ValueError(f"{name}: its columns are not known before it is read, so it cannot be streamed.")
    columns = audio_columns(features)
    if not columns:
        raise ValueError(f"{name}: no column holds audio; the columns are {', '.join(features)}.")
    if audio_column is not None:
        if audio_column not in columns:
            raise ValueError(
                f"{name}: the column {audio_column!r} holds {features[audio_column]}, and no audio; {', '.join(columns)} does."
            )
        columns = [audio_column]
        if audio_column != "audio" and "audio" in features:
            dataset = dataset.remove_columns("audio")
    if len(columns) > 1 and "audio" not in columns:
        raise ValueError(f"{name}: several columns hold audio ({', '.join(columns)}); name the right one 'audio'.")
    column = "audio" if "audio" in columns else columns[0]
    if audio_column is None and column != "audio" and "audio" in features:
        raise ValueError(
            f"{name}: the column 'audio' holds no audio, and the column {column!r} does. Rename the first."
        )
    dataset = dataset.cast_column(column, Audio(decode=False))
    return dataset if column == "audio" else dataset.rename_column(column, "audio")


@dataclasses.dataclass(frozen=True)
class SkippedAudio:
    """The clips that were left out of a data set.

    Attributes:
        num_clips: Number of clips in the data set.
        names: Names of the clips left out, by cause.
    """

    num_clips: int
    names: dict[str, list[str]]

    @property
    def counts(self) -> Counter[str]:
        """Number of clips left out, by cause."""
        return Counter({cause: len(names) for cause, names in self.names.items()})

    @property
    def count(self) -> int:
        """Number of clips left out."""
        return self.counts.total()

    def __str__(self) -> str:
        causes = "; ".join(f"{len(names)} {cause} ({first_names(names)})" for cause, names in self.names.items())
        return f"{self.count} of {self.num_clips} clips cannot be used{': ' if causes else ''}{causes}"


def scan_speech_dataset(dataset: Dataset, *, sampling_rate: int, min_seconds: float) -> tuple[Dataset, SkippedAudio]:
    """Leaves out clips that cannot be used and adds the lengths of the others, mostly from the headers alone.

    Damaged samples behind a correct header are not found here; `ShuffledClips` replaces such clips.

    Args:
        dataset: Clips in a column `audio`.
        sampling_rate: Sampling rate in Hz that the clips will be decoded to.
        min_seconds: Length in seconds below which clips are left out.

    Returns:
        The usable clips with their lengths in seconds in a column `seconds`, and the clips that were left out.

    Raises:
        ValueError: If no clip is left.
    """
    seconds, usable, summary = measure_clips(dataset, sampling_rate=sampling_rate, min_seconds=min_seconds)
    if "seconds" in dataset.column_names:
        dataset = dataset.remove_columns("seconds")
    # The column is added before the selection: added after it, datasets would copy all the audio.
    return dataset.add_column("seconds", seconds).select(usable), summary


def measure_clips(
    dataset: Dataset, *, sampling_rate: int, min_seconds: float, decode: bool = False
) -> tuple[list[float], list[int], SkippedAudio]:
    """Measures the length of each clip and finds those that can be used; a warning says which cannot and why.

    Args:
        dataset: Clips in a column `audio`.
        sampling_rate: Sampling rate in Hz that the clips will be decoded to.
        min_seconds: Length in seconds below which clips cannot be used.
        decode: Whether to decode each clip in full, which also finds damaged samples behind a correct header.

    Returns:
        The length of every clip in seconds, 0 if it cannot be read; the indices of the usable clips; and the clips that
        cannot be used.

    Raises:
        ValueError: If no clip can be used.
    """
    skipped: dict[str, list[str]] = {}
    seconds: list[float] = []
    usable: list[int] = []
    min_samples = round(min_seconds * sampling_rate)
    progress = logging.tqdm(
        undecoded_audio(dataset), desc="Reading audio" if decode else "Reading audio headers", unit="clip"
    )
    for index, row in enumerate(progress):
        samples = 0
        try:
            audio = row["audio"]
            samples = len(decode_audio(audio, sampling_rate)) if decode else count_samples(audio, sampling_rate)
            cause = f"shorter than {min_seconds:g} s" if samples < min_samples else None
        except AudioError as error:
            cause = error.cause
        if cause is None:
            usable.append(index)
        else:
            skipped.setdefault(cause, []).append(clip_name(row["audio"], index))
        seconds.append(samples / sampling_rate)
    summary = SkippedAudio(len(seconds), skipped)
    if not usable:
        raise ValueError(
            f"No clip is left: {summary}. Give audio that soundfile can read, of {min_seconds:g} s or longer each."
        )
    if skipped:
        logger.warning(f"{summary}. Going on with the other {len(usable)}.")
    return seconds, usable, summary


def split_held_out(
    dataset: Dataset, *, fraction: float | None = None, count: int | None = None, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Splits a data set into clips to train on and randomly chosen held-out clips.

    Args:
        dataset: Data set of clips.
        fraction: Fraction of the clips to hold out, in (0, 1), rounded to at least one clip; either this or `count`.
        count: Number of clips to hold out, 1 or more.
        seed: Random seed of the choice.

    Returns:
        The clips to train on and the held-out clips, both in the order of the data set.

    Raises:
        ValueError: If not exactly one of `fraction` and `count` is given, it is out of range, or no clip would be left
            to train on.
    """
    if fraction is not None and count is None:
        if not 0 < fraction < 1:
            raise ValueError(f"fraction is {fraction}; it must lie between 0 and 1.")
        count = max(1, round(fraction * len(dataset)))
    elif fraction is not None or count is None:
        raise ValueError(f"Give either fraction or count, not both or neither: {fraction=}, {count=}.")
    if count < 1:
        raise ValueError(f"count is {count}; it must be 1 or more.")
    if count >= len(dataset):
        raise ValueError(
            f"{count} of {len(dataset)} clips cannot be held out: none would be left to train on. Give more clips "
            "or hold out fewer."
        )
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.select(np.sort(order[count:])), dataset.select(np.sort(order[:count]))
