"""Reading Speech Commands from the official archive, extracted or not, or from a copy in parquet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from datasets import Audio, Dataset, Features, Value, concatenate_datasets, get_dataset_split_names
from datasets.exceptions import DatasetGenerationError

from ..runtime.messages import first_names
from .audio import audio_dataset, undecoded_audio
from .classification_task import SPLITS
from .speech_commands_archive import (
    ARCHIVE_EXTENSIONS,
    CLIP,
    LIST_FILES,
    NOISE,
    OTHER_EXTENSIONS,
    SPEAKER_MARK,
    archive_rows,
    check_is_read,
    check_name,
    check_size,
    is_noise,
    list_text,
    speaker_of,
    word_of,
)
from .speech_dataset import PARQUET_EXTENSIONS, load_speech_dataset


# Names of the speaker's column in copies on the Hub.
SPEAKER_COLUMNS = ("speaker", "speaker_id")
# Rows of an archive that are in memory at once.
BATCH_ROWS = 100


def load_speech_commands(
    name_or_path: str | os.PathLike,
    split: str,
    *,
    words: Sequence[str] | None = None,
    config_name: str | None = None,
) -> Dataset:
    """Reads one split of Speech Commands.

    Args:
        name_or_path: Source of the clips, see `read_speech_commands`.
        split: "train" (the clips on neither official list), "validation" or "test".
        words: Words whose clips are read; by default all.
        config_name: Configuration name, see `read_speech_commands`.

    Returns:
        A data set with the columns `audio` (`Audio(decode=False)`), `word` and `speaker`, in the order of words and file
        names.

    Raises:
        FileNotFoundError: See `read_speech_commands`.
        ValueError: See `read_speech_commands`; or if the split or a word is unknown or no clip is left.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it must be 'train', 'validation' or 'test'.")
    table = read_speech_commands(name_or_path, config_name=config_name)
    splits = table["split"][:]
    rows = [row for row in rows_of_words(table, words, str(name_or_path)) if splits[row] == split]
    if not rows:
        for_words = " for these words" if words is not None else ""
        raise ValueError(f"{name_or_path}: no clip in the split {split!r}{for_words}.")
    return table.select(rows).select_columns(["audio", "word", "speaker"])


def read_speech_commands(name_or_path: str | os.PathLike, *, config_name: str | None = None) -> Dataset:
    """Reads all clips of Speech Commands with their word, speaker and split.

    The lists of the official archive name their clips as .wav; a .flac file of the same name is the same clip. If a clip
    on a list is missing, that is an error: results on a part of a list cannot be compared with others, and clips that
    are on no list may be missing too.

    Args:
        name_or_path: Source of the clips, one of: a folder with one folder per word, `validation_list.txt` and
            `testing_list.txt`; a .tar.gz of such a folder, which is read into the cache of datasets once and never
            extracted; a copy in parquet (a folder, a file, or the id of a data set on the Hub) with the columns `audio`
            and `label` and splits by name, where a single file is the split "train". In parquet, speakers are in a
            column `speaker` or `speaker_id` or in the file names.
        config_name: Configuration name of a parquet copy with several configurations.

    Returns:
        A data set with the columns `audio` (`Audio(decode=False)`), `word`, `speaker` (`None` if a parquet copy does not
        have it), `clip` ("word/name" without extension) and `split`, which is `None` for rows without a word:
        background noise, silence, the lists. The order is that of the source; see `rows_of_words`.

    Raises:
        FileNotFoundError: If there is no such source, or a list or a clip on a list is missing.
        ValueError: If an archive is damaged, a column is missing, or a file name does not contain the speaker.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        check_is_read(path)
    if path.name.lower().endswith(ARCHIVE_EXTENSIONS):
        return _read_archive(path)
    if path.is_dir() and not _is_parquet(path):
        return _read_folder(path)
    return _read_parquet(name_or_path, config_name)


def is_speech_commands(name_or_path: str | os.PathLike) -> bool:
    """Returns whether a source can be Speech Commands: its archive, a folder with its lists, or a copy in parquet.

    Args:
        name_or_path: Path of a folder or file, or id of a data set on the Hub.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path.name.lower().endswith((*ARCHIVE_EXTENSIONS, *OTHER_EXTENSIONS))
    if path.is_dir():
        return _is_parquet(path) or any((path / name).is_file() for name in LIST_FILES.values())
    return True


def rows_of_words(table: Dataset, words: Sequence[str] | None, name: str) -> list[int]:
    """Finds the clips of words, in the order of words and file names, which is the same for all kinds of source.

    Args:
        table: Data set from `read_speech_commands`.
        words: Words whose clips are found; all if `None`.
        name: Name of the source in messages.

    Returns:
        Indices of the clips in the data set.

    Raises:
        ValueError: If a word is unknown or `words` is a string.
    """
    if isinstance(words, str):
        raise ValueError(f"words is the string {words!r}; give a list of words.")
    splits, clips, word_of = table["split"][:], table["clip"][:], table["word"][:]
    rows = [row for row, split in enumerate(splits) if split is not None]
    known = sorted({word_of[row] for row in rows})
    if unknown := sorted(set(words or ()) - set(known)):
        raise ValueError(f"{name}: no clips of {', '.join(unknown)}; there are {', '.join(known) or 'none'}.")
    return sorted((row for row in rows if words is None or word_of[row] in words), key=clips.__getitem__)


def _is_parquet(folder: Path) -> bool:
    has_list = any((folder / name).is_file() for name in LIST_FILES.values())
    return not has_list and any(next(folder.rglob(f"*{extension}"), None) for extension in PARQUET_EXTENSIONS)


def _read_folder(root: Path) -> Dataset:
    lists = {}
    for split, name in LIST_FILES.items():
        if not (root / name).is_file():
            raise FileNotFoundError(_no_list(root, name))
        check_size((root / name).stat().st_size, str(root / name))
        lists[split] = list_text((root / name).read_bytes(), name, root)
    # If a clip has a .flac and a .wav file, the .wav is used: it comes later and is the one of the archive.
    files: dict[str, Path] = {}
    for folder in sorted(root.iterdir()):
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            if match := CLIP.match(f"{folder.name}/{file.name}") or NOISE.match(f"{folder.name}/{file.name}"):
                check_name(str(file))
                files["/".join(match.groups())] = file
    clips = list(files)
    return audio_dataset(
        list(files.values()),
        word=[word_of(clip) for clip in clips],
        speaker=[None if is_noise(clip) else speaker_of(clip) for clip in clips],
        clip=clips,
        split=_splits(clips, lists, root),
    )


def _read_archive(path: Path) -> Dataset:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    status = path.stat()
    texts = {name: Value("string") for name in ("word", "speaker", "clip", "folder")}
    try:
        table = Dataset.from_generator(
            archive_rows,
            # The types are given, because they cannot be inferred from a column of `None`. They are not given as
            # `Audio`, which would need torchcodec.
            features=Features({"audio": {"bytes": Value("binary"), "path": Value("string")}, **texts}),
            # The cache recognises the archive by these values.
            gen_kwargs={"path": str(path.resolve()), "size": status.st_size, "modified": status.st_mtime_ns},
            writer_batch_size=BATCH_ROWS,
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise
    folders, names = table["folder"][:], table["clip"][:]
    root = _official_folder(folders, names, path)
    # If a name occurs twice, the later file is used, as when extracting.
    rows = {name: row for row, name in enumerate(names) if folders[row] == root}
    lists = {split: list_text(table[rows[name]]["audio"]["bytes"], name, path) for split, name in LIST_FILES.items()}
    clips = [clip for clip in rows if clip not in LIST_FILES.values()]
    split_of = dict(zip(clips, _splits(clips, lists, path), strict=True))
    splits = [split_of.get(name) if rows.get(name) == row else None for row, name in enumerate(names)]
    table = table.remove_columns("folder").cast_column("audio", Audio(decode=False))
    return table.add_column("split", splits, feature=Value("string"))


def _official_folder(folders: Sequence[str], names: Sequence[str], source: Path) -> str:
    """Finds the folder that holds the folders of the words and both lists.

    Files of the same names elsewhere in an archive are not those of the data set.

    Args:
        folders: Folder of each list, or of each clip's word.
        names: Names of lists and clips, "word/name".
        source: Archive, for messages.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If there are several.
    """
    present = set(zip(folders, names, strict=True))
    roots = sorted({folder for folder, name in zip(folders, names, strict=True) if name not in LIST_FILES.values()})
    for list_name in LIST_FILES.values():
        roots = [folder for folder in roots if (folder, list_name) in present]
        if not roots:
            raise FileNotFoundError(_no_list(source, list_name))
    if len(roots) > 1:
        raise ValueError(
            f"{source}: {first_names([folder or '.' for folder in roots])} all hold folders of words with both lists. Give "
            "the official archive, which has one such folder."
        )
    return roots[0]


def _read_parquet(name_or_path: str | os.PathLike, config_name: str | None) -> Dataset:
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    parts = {"train": load_speech_dataset(name_or_path, split="train", config_name=config_name)}
    if not path.is_file():
        present = get_dataset_split_names(str(path) if path.is_dir() else name, config_name)
        for split in present:
            if split in LIST_FILES:
                parts[split] = load_speech_dataset(name_or_path, split=split, config_name=config_name)
    return concatenate_datasets([_parquet_part(part, split, name) for split, part in parts.items()])


def _parquet_part(part: Dataset, split: str, name: str) -> Dataset:
    if "label" not in part.column_names:
        raise ValueError(f"{name}: no column 'label'; the columns are {', '.join(part.column_names)}.")
    name_of = getattr(part.features["label"], "int2str", str)
    words = [name_of(label) for label in part["label"][:]]
    stems = [
        Path(row["audio"]["path"]).stem if row["audio"] and row["audio"]["path"] else ""
        for row in undecoded_audio(part)
    ]
    column = next((column for column in SPEAKER_COLUMNS if column in part.column_names), None)
    if column is not None:
        speakers = [None if speaker is None else str(speaker) for speaker in part[column][:]]
    else:
        speakers = [stem.partition(SPEAKER_MARK)[0] if SPEAKER_MARK in stem else None for stem in stems]
    columns = {
        "word": words,
        "speaker": speakers,
        "clip": [f"{word}/{stem}" for word, stem in zip(words, stems, strict=True)],
        # Silence and background noise are not words.
        "split": [None if word.startswith("_") else split for word in words],
    }
    table = part.select_columns("audio")
    for column, values in columns.items():
        table = table.add_column(column, values, feature=Value("string"))
    return table


def _no_list(source: Path, name: str) -> str:
    return (
        f"{source}: there is no {name} in it. Give the official archive or the folder into which it was extracted, with "
        f"{' and '.join(LIST_FILES.values())} beside the folders of the words."
    )


def _splits(clips: Sequence[str], lists: dict[str, str], source: Path) -> list[str | None]:
    """Finds the split of each clip, `None` for noise.

    Args:
        clips: Names of the clips, "word/name" without extension.
        lists: Content of the lists, by split.
        source: Source of the clips, for messages.

    Raises:
        FileNotFoundError: If a clip on a list is not among the clips.
    """
    present = set(clips)
    split_of: dict[str, str] = {}
    for split, text in lists.items():
        listed = [line.strip() for line in text.splitlines() if line.strip()]
        if missing := [entry for entry in listed if _without_extension(entry) not in present]:
            raise FileNotFoundError(
                f"{source}: {len(missing)} of {len(listed)} clips in {LIST_FILES[split]} are not there: "
                f"{first_names(missing)}. Fetch or extract the archive again in full."
            )
        split_of |= {_without_extension(entry): split for entry in listed}
    return [None if is_noise(clip) else split_of.get(clip, "train") for clip in clips]


def _without_extension(entry: str) -> str:
    return entry.removeprefix("./").rpartition(".")[0]
