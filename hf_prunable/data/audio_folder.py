"""Folders of audio files, and the tables of further columns in them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from transformers.utils import logging

from ..runtime.messages import first_names, printable
from .audio import AUDIO_EXTENSIONS, audio_dataset


logger = logging.get_logger(__name__)

FILE_NAME = "file_name"
# Files in which an audio folder keeps columns for its clips, and the builders of datasets that read them. In a csv, file
# names of digits stay text, and only an empty cell is a missing value: "null" and "NA" are words.
METADATA_FILES = {
    "metadata.csv": ("csv", {"converters": {FILE_NAME: str}, "keep_default_na": False, "na_values": [""]}),
    "metadata.jsonl": ("json", {}),
}


@dataclass(frozen=True)
class FolderContent:
    """Files in a folder at any depth, hidden ones left out.

    Attributes:
        files: Files with the endings that were looked for, in the order of their relative paths.
        left_out: What else there is, as phrases: number of files by ending, file names that are not UTF-8, and folders
            that cannot be read. A table of columns is not among it.
    """

    files: list[Path]
    left_out: list[str]


def list_folder(folder: Path, extensions: Sequence[str]) -> FolderContent:
    """Lists the files in a folder.

    Args:
        folder: Folder to search. Links are followed, because data sets are often assembled from them.
        extensions: Endings of file names in lower case, each with its dot.
    """
    found: list[Path] = []
    others: Counter[str] = Counter()
    not_utf8: list[str] = []
    unreadable: list[OSError] = []
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=unreadable.append):
        # Each folder once, in case of a loop.
        if os.path.realpath(parent) in visited:
            folders.clear()
            continue
        visited.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(parent, name) for name in files if not name.startswith(".")):
            if not path.name.lower().endswith(tuple(extensions)):
                others[printable(path.suffix.lower()) or "without an ending"] += 1
            elif printable(str(path)) != str(path):
                not_utf8.append(printable(path.name))
            else:
                found.append(path)
    # The first table is read.
    tables = [name for name in METADATA_FILES if (folder / name).is_file()]
    others -= Counter(Path(name).suffix for name in tables[:1])
    left_out = [f"{count} {ending}" for ending, count in sorted(others.items())]
    if not_utf8:
        left_out.append(f"{len(not_utf8)} with a name that is not UTF-8 ({first_names(not_utf8)})")
    left_out += [f"the folder {printable(str(error.filename))} ({error.strerror})" for error in unreadable]
    return FolderContent(sorted(found, key=lambda path: path.relative_to(folder).as_posix()), left_out)


def load_audio_folder(folder: Path, content: FolderContent) -> Dataset:
    """Makes a data set of the audio files in a folder, with the columns of its table; a warning counts other files.

    Args:
        folder: Audio folder.
        content: Its audio files, at least one.

    Raises:
        ValueError: If the table does not fit the files.
    """
    logger.info(f"{len(content.files)} audio files in {folder}")
    if content.left_out:
        logger.warning(
            f"{folder}: {len(content.files)} audio files are used. Not used: {', '.join(content.left_out)}."
        )
    return audio_dataset(content.files, _read_metadata(folder, content.files))


def _read_metadata(folder: Path, files: Sequence[Path]) -> dict[str, list]:
    """Reads the columns of an audio folder's metadata, in the form of datasets' `AudioFolder`.

    Args:
        folder: Audio folder.
        files: Audio files in it.

    Returns:
        One value per file for each column, `None` for a file without metadata; empty without a file of metadata.

    Raises:
        ValueError: If the table cannot be read or does not fit the files.
    """
    for name in METADATA_FILES:
        if (folder / name).is_file():
            table = _load_metadata(folder / name)
            rows = _rows_by_file(folder / name, table, files)
            names = [column for column in table.column_names if column != FILE_NAME]
            columns = {column: [row.get(column) for row in rows] for column in names}
            for column, values in columns.items():
                kinds = {type(value).__name__ for value in values if value is not None}
                if len(kinds) > 1 and kinds != {"float", "int"}:
                    raise ValueError(
                        f"{folder / name}: the column {column!r} holds {', '.join(sorted(kinds))}. Give values of one type."
                    )
            return columns
    return {}


def _rows_by_file(path: Path, table: Dataset, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Returns the row of each file without its name, or an empty one for a file that is not in the table.

    Args:
        path: File of the table, in the audio folder.
        table: Its content.
        files: Audio files in the folder.

    Raises:
        ValueError: If a row has no file name, names a file that has a row already, or one that is not among the files.
    """
    # By full path: a table may say "./a.wav" for "a.wav".
    rows: dict[str, dict[str, Any]] = {os.path.normpath(file): {} for file in files}
    named: list[str] = []
    unknown: list[str] = []
    for number, row in enumerate(table, 1):
        file_name = row.pop(FILE_NAME)
        if file_name in (None, ""):
            raise ValueError(f"{path}: row {number} has nothing in the column {FILE_NAME!r}.")
        file = os.path.normpath(path.parent / str(file_name))
        named.append(file)
        if file in rows:
            rows[file] = row
        else:
            unknown.append(str(file_name))
    if unknown:
        raise ValueError(
            f"{path}: there is no audio file {first_names(sorted(unknown))} beside it. The endings that are read: "
            f"{', '.join(AUDIO_EXTENSIONS)}."
        )
    check_one_row_each(path, named)
    return list(rows.values())


def check_one_row_each(path: Path, files: Iterable[str | Path]) -> None:
    """Checks that no two rows of a table name the same file.

    Args:
        path: File of the table.
        files: Path of the file that each row names.

    Raises:
        ValueError: If a file has more than one row.
    """
    # A table may say "./a.wav" for "a.wav".
    counts = Counter(os.path.normpath(file) for file in files)
    if repeated := [os.path.relpath(file, path.parent) for file, count in counts.items() if count > 1]:
        raise ValueError(f"{path}: more than one row for {first_names(repeated)}. Leave one for each file.")


def load_table(path: Path, builder: str, **options: Any) -> Dataset:
    """Loads a table with a builder of datasets.

    Args:
        path: File of the table.
        builder: Name of the builder: "csv", "json" or "parquet".
        **options: Passed to the builder.

    Raises:
        ValueError: If it cannot be read or has no rows.
    """
    try:
        return load_dataset(builder, data_files=str(path), split="train", **options)
    # Of a table without rows, datasets raises ValueError, or StopIteration if the file is empty.
    except (DatasetGenerationError, ValueError, StopIteration) as error:
        reason = str(error.__cause__ or error) or "it is empty"
        raise ValueError(f"{path}: cannot be read as a table with rows ({reason}).") from error


def _load_metadata(path: Path) -> Dataset:
    """Loads a table of metadata.

    Args:
        path: File named as in `METADATA_FILES`.

    Raises:
        ValueError: If it cannot be read, has no rows, has no column of file names, or has a column `audio`.
    """
    builder, options = METADATA_FILES[path.name]
    table = load_table(path, builder, **options)
    if FILE_NAME not in table.column_names:
        raise ValueError(f"{path}: no column {FILE_NAME!r}; the columns are {', '.join(table.column_names)}.")
    if "audio" in table.column_names:
        raise ValueError(f"{path}: a column is named 'audio', as the column of the clips is. Rename it.")
    return table
