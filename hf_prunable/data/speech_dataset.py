"""Speech data sets: loading from folders, parquet and the Hub, leaving out unusable clips, and held-out clips.

Audio stays undecoded in the data set (`Audio(decode=False)`) and is decoded by soundfile, so torchcodec is not needed.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from transformers.utils import logging

from ..runtime.messages import first_names
from .audio import (
    AUDIO_EXTENSIONS,
    AudioError,
    audio_dataset,
    audio_name,
    count_samples,
    decode_audio,
    undecoded_audio,
    with_audio_column,
)


logger = logging.get_logger(__name__)

PARQUET_EXTENSIONS = (".parquet",)
# Files in which an audio folder keeps columns for its clips, and the builders of datasets that read them.
METADATA_FILES = {"metadata.csv": "csv", "metadata.jsonl": "json"}
FILE_NAME = "file_name"
FILE_EXTENSIONS = AUDIO_EXTENSIONS + PARQUET_EXTENSIONS


def load_speech_dataset(
    name_or_path: str | os.PathLike, *, split: str = "train", config_name: str | None = None, streaming: bool = False
) -> Dataset | IterableDataset:
    """Loads speech from a folder of audio files, from parquet or from the Hub.

    Args:
        name_or_path: Source of the clips, one of: a folder of audio files, at any depth, with further columns from a
            `metadata.csv` or `metadata.jsonl` in it (files are read in the order of their relative paths; hidden files
            are left out); a parquet file or a folder of them; the id of a data set on the Hub.
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
        files = _find_files(folder, AUDIO_EXTENSIONS)
        if files and streaming:
            raise ValueError(f"{name}: a folder of audio files is read as it is needed anyway; leave `streaming` out.")
        if files:
            if folder == path and split != "train":
                raise ValueError(
                    f"{name}: there is no sub-folder {split!r}; a folder of audio files has only the "
                    "split 'train' and its sub-folders."
                )
            logger.info(f"{len(files)} audio files in {folder}")
            return audio_dataset(files, **_read_metadata(folder, files))
        if not _find_files(path, PARQUET_EXTENSIONS):
            raise ValueError(f"{folder}: no audio in it; the extensions looked for are {', '.join(FILE_EXTENSIONS)}.")
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


def _find_files(folder: Path, extensions: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    visited: set[str] = set()
    # Links are followed, because data sets are often assembled from them; each folder once, in case of a loop.
    for parent, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(parent) in visited:
            folders.clear()
            continue
        visited.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.extend(
            Path(parent, name)
            for name in files
            if not name.startswith(".") and name.lower().endswith(tuple(extensions))
        )
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _read_metadata(folder: Path, files: Sequence[Path]) -> dict[str, list]:
    """Reads the columns of an audio folder's metadata, in the form of datasets' `AudioFolder`.

    Args:
        folder: Audio folder.
        files: Audio files in it.

    Returns:
        One value per file for each column, `None` for a file without metadata; empty without a file of metadata.

    Raises:
        ValueError: If there is no column of file names, or it names a file that does not exist.
    """
    for name, builder in METADATA_FILES.items():
        if not (folder / name).is_file():
            continue
        table = load_dataset(builder, data_files=str(folder / name), split="train")
        if FILE_NAME not in table.column_names:
            raise ValueError(
                f"{folder / name}: no column {FILE_NAME!r}; the columns are {', '.join(table.column_names)}."
            )
        rows = {row.pop(FILE_NAME): row for row in table}
        names = [file.relative_to(folder).as_posix() for file in files]
        if unknown := sorted(rows.keys() - set(names)):
            raise ValueError(f"{folder / name}: there is no audio file {first_names(unknown)} beside it.")
        columns = [column for column in table.column_names if column != FILE_NAME]
        return {column: [rows.get(name, {}).get(column) for name in names] for column in columns}
    return {}


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
    def count(self) -> int:
        """Number of clips left out."""
        return sum(len(names) for names in self.names.values())

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
            named = row["audio"] is not None and row["audio"]["path"]
            skipped.setdefault(cause, []).append(audio_name(row["audio"]) if named else f"row {index}")
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
