"""Clips with labels from folders of classes, tables, parquet and the Hub, in the splits that they are given in."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets, get_dataset_split_names

from ..runtime.messages import first_names
from .audio import AUDIO_EXTENSIONS, audio_dataset
from .audio_folder import FolderContent, check_one_row_each, list_folder, load_audio_folder, load_table
from .classification_task import TEST, TRAIN, VALIDATION
from .speech_dataset import audio_columns, load_speech_dataset, with_audio_column


# Names of splits in folders, files and columns.
SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
}
SPLIT_COLUMN, FOLDER_LABEL = "split", "label"
# Columns that hold paths of audio files, if none is named.
PATH_COLUMNS = ("audio", "file_name", "path", "file", "filename")
# pandas and polars write text to parquet as large strings.
TEXT_TYPES = ("string", "large_string")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
TABLE_EXTENSIONS = (*DELIMITERS, ".json", ".jsonl", ".parquet")

# Clips by the split that they are given in; `None` for clips whose splits are in a column, or are to be drawn.
Parts = dict[str | None, Dataset]


@dataclass(frozen=True)
class LabelColumns:
    """Names of the columns of labelled clips.

    Attributes:
        label: Column of the classes; `None` for a column "label", or the folders of the files.
        audio: Column of the audio, or of paths of audio files; `None` to find it.
        others: Further columns that are read.

    Raises:
        ValueError: If a name is taken by what is not a label.
    """

    label: str | None = None
    audio: str | None = None
    others: tuple[str, ...] = ()

    def __post_init__(self):
        if wrong := {"audio", "seconds", SPLIT_COLUMN} & {self.label, *self.others}:
            raise ValueError(f"The column {', '.join(sorted(wrong))} cannot hold labels. Rename it.")
        if FOLDER_LABEL in self.others and self.label_name != FOLDER_LABEL:
            raise ValueError("The column 'label' can only be that of the classes. Rename it.")

    @property
    def label_name(self) -> str:
        """Name of the column of classes, also for classes that are folders."""
        return self.label or FOLDER_LABEL


def read_labelled_clips(
    name_or_path: str | os.PathLike, columns: LabelColumns | None = None, *, config_name: str | None = None
) -> Dataset:
    """Reads clips with labels.

    Args:
        name_or_path: Source of the clips, one of: a folder with one folder of audio files per class, or with such folders
            for each split ("train", "validation" or "dev", "test"), or with the columns of a `metadata.csv` or
            `metadata.jsonl`; a table (csv, tsv, json, jsonl, parquet) with a column of audio or of paths, relative to the
            table, and for splits a column "split"; a folder of tables named after splits; a folder of parquet files or the
            id of a data set on the Hub.
        columns: Names of the columns; by default those of `LabelColumns`.
        config_name: Configuration of a data set on the Hub or a parquet folder that has several.

    Returns:
        A data set with the columns `audio` (undecoded), that of the classes and the further ones, as text or `None`, and
        `split`: "train", "validation" or "test", as they are given.

    Raises:
        FileNotFoundError: If there is no such source, or an audio file of a table is missing.
        ValueError: If a column is missing or has values that are no labels, or there is no training split.
    """
    columns, path = columns or LabelColumns(), Path(name_or_path).expanduser()
    if path.is_dir():
        parts = _read_folder(path, columns, config_name)
    elif path.is_file():
        parts = {None: _read_table(path, columns)}
    else:
        parts = _read_splits(name_or_path, config_name)
    labelled = [_with_labels(part, columns, split, str(name_or_path)) for split, part in parts.items()]
    clips = concatenate_datasets(labelled)
    if TRAIN not in (found := set(clips[SPLIT_COLUMN][:])):
        raise ValueError(
            f"{name_or_path}: there are clips for {', '.join(sorted(found))}, and none for training. Name a split 'train'; "
            "missing ones are drawn from it."
        )
    return clips


def _read_folder(folder: Path, columns: LabelColumns, config_name: str | None) -> Parts:
    content = list_folder(folder, AUDIO_EXTENSIONS)
    if content.files:
        return _read_audio_folders(folder, content)
    tables = sorted(file for file in folder.iterdir() if file.suffix.lower() in (*DELIMITERS, ".json", ".jsonl"))
    if not tables:
        return _read_splits(folder, config_name)
    if len(tables) == 1:
        return {None: _read_table(tables[0], columns)}
    if unnamed := [file.name for file in tables if file.stem.lower() not in SPLIT_NAMES]:
        raise ValueError(
            f"{folder}: {first_names(unnamed)} is not named after a split. Give one table, or name them train, "
            "validation and test."
        )
    return _by_split(folder, {file.stem: _read_table(file, columns) for file in tables})


def _read_audio_folders(folder: Path, content: FolderContent) -> Parts:
    """Reads folders of classes, in a folder for each split if all folders are named after splits."""
    folders = [child for child in sorted(folder.iterdir()) if child.is_dir() and not child.name.startswith(".")]
    names = {child.name.lower() for child in folders}
    are_splits = TRAIN in {SPLIT_NAMES.get(name) for name in names} and names <= SPLIT_NAMES.keys()
    if not are_splits:
        return {None: _read_class_folders(folder, content)}
    contents = {child: list_folder(child, AUDIO_EXTENSIONS) for child in folders}
    if empty := [child.name for child, part in contents.items() if not part.files]:
        raise ValueError(
            f"{folder}: there is no audio in {first_names(empty)}. Leave the folder of a split out that is to be drawn."
        )
    return _by_split(folder, {child.name: _read_class_folders(child, part) for child, part in contents.items()})


def _by_split(source: str | os.PathLike, parts: Mapping[str, Dataset]) -> Parts:
    """Returns parts by their split instead of the name of their folder or file."""
    by_split: Parts = {}
    for name, part in parts.items():
        if (split := SPLIT_NAMES[name.lower()]) in by_split:
            raise ValueError(f"{source}: {', '.join(parts)} hold the split {split!r} twice. Leave one of them.")
        by_split[split] = part
    return by_split


def _read_class_folders(folder: Path, content: FolderContent) -> Dataset:
    """Reads the audio in a folder, with the columns of its table; without a column "label", that of the class folders."""
    dataset = load_audio_folder(folder, content)
    if FOLDER_LABEL in dataset.column_names:
        return dataset
    # The outermost folder is the class; a file beside the folders has none.
    parts = [file.relative_to(folder).parts for file in content.files]
    if all(len(names) == 1 for names in parts):
        return dataset
    return dataset.add_column(FOLDER_LABEL, [names[0] if len(names) > 1 else None for names in parts])


def _read_splits(name_or_path: str | os.PathLike, config_name: str | None) -> Parts:
    """Reads the splits of a folder of parquet files or of a data set on the Hub."""
    # This says what is wrong with a source, unlike the list of its splits.
    parts = {TRAIN: load_speech_dataset(name_or_path, split=TRAIN, config_name=config_name)}
    for split in get_dataset_split_names(str(Path(name_or_path).expanduser()), config_name):
        if SPLIT_NAMES.get(split.lower(), TRAIN) != TRAIN:
            parts[split] = load_speech_dataset(name_or_path, split=split, config_name=config_name)
    return _by_split(name_or_path, parts)


def _read_table(path: Path, columns: LabelColumns) -> Dataset:
    extension = path.suffix.lower()
    if extension in DELIMITERS:
        dataset = _read_delimited(path, DELIMITERS[extension])
    elif extension in TABLE_EXTENSIONS:
        dataset = _read_typed(path)
    else:
        raise ValueError(f"{path}: give a folder, or a table with the ending {', '.join(TABLE_EXTENSIONS)}.")
    return _with_audio(dataset, path, columns.audio)


def _read_delimited(path: Path, delimiter: str) -> Dataset:
    """Reads a table as text: names of digits keep their zeros, and only an empty cell is a missing value."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as a table in UTF-8 ({error}).") from error
    if not rows:
        raise ValueError(f"{path}: the table has no rows.")
    if any(None in row or None in row.values() for row in rows):
        raise ValueError(
            f"{path}: some rows do not have as many cells as the first line. Quote cells that hold {delimiter!r}."
        )
    if len(rows[0]) == 1:
        raise ValueError(f"{path}: there is one column, {next(iter(rows[0]))!r}. Separate cells by {delimiter!r}.")
    texts = Features({name: Value("string") for name in rows[0]})
    return Dataset.from_dict({name: [row[name] or None for row in rows] for name in texts}, features=texts)


def _read_typed(path: Path) -> Dataset:
    dataset = load_table(path, "parquet" if path.suffix.lower() == ".parquet" else "json")
    if not len(dataset):
        raise ValueError(f"{path}: the table has no rows.")
    return dataset


def _with_audio(dataset: Dataset, path: Path, audio_column: str | None) -> Dataset:
    """Makes the column `audio` of a table, from a column of audio or of paths."""
    features = dataset.features
    if audio_column is not None and audio_column not in features:
        raise ValueError(f"{path}: there is no column {audio_column!r}; the columns are {', '.join(features)}.")
    # Audio comes before paths, which are often those of another machine.
    finds_path = audio_column is None and not audio_columns(features)
    names = PATH_COLUMNS if finds_path else (audio_column,)
    column = next((name for name in names if getattr(features.get(name), "dtype", None) in TEXT_TYPES), None)
    if column is None and finds_path:
        raise ValueError(
            f"{path}: no column holds audio; the columns are {', '.join(features)}. Name that of the audio, or of paths, by "
            f"`audio_column`; without it, paths are in one of {', '.join(PATH_COLUMNS)}."
        )
    if column is None:
        return with_audio_column(dataset, str(path), audio_column)
    files = _named_files(path, column, dataset[column][:])
    return audio_dataset(files, {name: dataset[name][:] for name in features if name not in (column, "audio")})


def _named_files(path: Path, column: str, names: Sequence[str | None]) -> list[Path]:
    """Returns the files that the rows of a table name, each of them once."""
    if empty := sum(not name for name in names):
        raise ValueError(f"{path}: {empty} of {len(names)} rows have nothing in the column {column!r}.")
    # A path that is absolute stays as it is.
    files = [path.parent / str(name) for name in names]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"{path}: {len(missing)} of {len(files)} files in the column {column!r} are not there: {first_names(missing)}. "
            "Paths are relative to the table."
        )
    check_one_row_each(path, files)
    return files


def _with_labels(dataset: Dataset, columns: LabelColumns, split: str | None, name: str) -> Dataset:
    """Keeps the audio, and adds labels and splits as text.

    Args:
        dataset: Clips of a source or of a part of it.
        columns: Names of the columns of labels.
        split: Split of all the clips; `None` to read it from the column "split", and without one, for training.
        name: Name of the source in messages.
    """
    wanted = [columns.label_name, *columns.others]
    if missing := [column for column in wanted if column not in dataset.column_names]:
        others = ", ".join(column for column in dataset.column_names if column != "audio") or "no other than the audio"
        advice = (
            ""
            if columns.label is not None or FOLDER_LABEL not in missing
            else " Name that of the classes by `label_column`, or give a folder with one folder of audio files per class."
        )
        raise ValueError(
            f"{name}: there is no column {', '.join(map(repr, missing))}; the columns are {others}.{advice}"
        )
    texts = {column: _as_text(dataset, column, name) for column in dict.fromkeys(wanted)}
    texts[SPLIT_COLUMN] = _splits(dataset, name) if split is None else [split] * len(dataset)
    dataset = dataset.select_columns("audio")
    for column, values in texts.items():
        dataset = dataset.add_column(column, values, feature=Value("string"))
    return dataset


def _splits(dataset: Dataset, name: str) -> list[str | None]:
    if SPLIT_COLUMN not in dataset.column_names:
        return [TRAIN] * len(dataset)
    values = _as_text(dataset, SPLIT_COLUMN, name)
    if unknown := sorted({str(value) for value in values if str(value).lower() not in SPLIT_NAMES}):
        raise ValueError(
            f"{name}: the column {SPLIT_COLUMN!r} holds {first_names(unknown)}; possible are {', '.join(SPLIT_NAMES)}."
        )
    return [SPLIT_NAMES[str(value).lower()] for value in values]


def _as_text(dataset: Dataset, column: str, name: str) -> list[str | None]:
    feature: Any = dataset.features[column]
    values = dataset.with_format(None)[column][:]
    if isinstance(feature, ClassLabel):
        return [None if value is None or value < 0 else feature.int2str(value) for value in values]
    dtype = getattr(feature, "dtype", "")
    if dtype not in (*TEXT_TYPES, "bool") and "int" not in dtype:
        raise ValueError(f"{name}: the column {column!r} holds {feature}, and labels are text or integers.")
    return [None if value is None or not str(value).strip() else str(value).strip() for value in values]
