"""Speech Commands in the layout of its official archive, by its own lists of validation and test files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset

from .audio import audio_dataset
from .messages import first_names


LIST_FILES = {"validation": "validation_list.txt", "test": "testing_list.txt"}
# Between the speaker and the number of the take in a file name.
SPEAKER_MARK = "_nohash_"


def load_speech_commands(root: str | os.PathLike, split: str, *, words: Sequence[str] | None = None) -> Dataset:
    """Reads one split of Speech Commands from its unpacked archive.

    Args:
        root: A folder for each word, `validation_list.txt` and `testing_list.txt`; `_background_noise_` is left out.
        split: "train" (what is in neither list), "validation" or "test".
        words: Only these; by default all.

    Returns:
        A data set with the columns `audio` (`Audio(decode=False)`), `word` and `speaker`, in the order of the paths.

    Raises:
        FileNotFoundError: If the folder, a list, or a file that a list names is missing.
        ValueError: If the split or a word is unknown, a file name does not tell the speaker, or no clip is left.
    """
    root = Path(root).expanduser()
    if split not in ("train", *LIST_FILES):
        raise ValueError(f"split is {split!r}; it must be 'train', 'validation' or 'test'.")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder.")
    known_words = sorted(folder.name for folder in root.iterdir() if folder.is_dir() and folder.name[0] not in "._")
    if isinstance(words, str):
        raise ValueError(f"words is the string {words!r}; give a list of words.")
    if unknown := sorted(set(words or ()) - set(known_words)):
        raise ValueError(f"{root}: no folder for {', '.join(unknown)}; there are {', '.join(known_words) or 'none'}.")
    lists = {name: _read_list(root, list_file) for name, list_file in LIST_FILES.items()}
    if split == "train":
        listed = {clip for clips in lists.values() for clip in clips}
        clips = [clip for clip in _clips_of_words(root, known_words) if clip not in listed]
    else:
        clips = lists[split]
    if words is not None:
        clips = [clip for clip in clips if _word(clip) in words]
    clips.sort()
    if not clips:
        raise ValueError(f"{root}: no clip in the split {split!r}{' for these words' if words is not None else ''}.")
    missing = [clip for clip in clips if not (root / clip).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{root}: {len(missing)} of {len(clips)} clips in {LIST_FILES[split]} are not there: {first_names(missing)}. "
            "Unpack the archive again in full."
        )
    return audio_dataset(
        [root / clip for clip in clips],
        word=[_word(clip) for clip in clips],
        speaker=[_speaker(clip) for clip in clips],
    )


def _read_list(root: Path, list_file: str) -> list[str]:
    path = root / list_file
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such list. Give the folder into which the archive was unpacked; it holds "
            f"{' and '.join(LIST_FILES.values())} beside the folders of the words."
        )
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _clips_of_words(root: Path, words: Sequence[str]) -> list[str]:
    return [f"{word}/{file.name}" for word in words for file in (root / word).glob("[!.]*.wav")]


def _word(clip: str) -> str:
    return clip.split("/")[0]


def _speaker(clip: str) -> str:
    speaker, mark, _ = clip.split("/")[-1].partition(SPEAKER_MARK)
    if not mark:
        raise ValueError(
            f"{clip}: the file name does not tell the speaker; it should be SPEAKER{SPEAKER_MARK}TAKE.wav."
        )
    return speaker
