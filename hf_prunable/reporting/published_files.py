"""The files of a model folder that are published: an allow-list of names, regular files only, and a look into them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils import CONFIG_NAME, FEATURE_EXTRACTOR_NAME, SAFE_WEIGHTS_INDEX_NAME, logging

from ..modeling.configuration import SHIM_FILE
from ..modeling.other_weights import OTHER_WEIGHTS_FILE
from ..runtime.messages import first_names
from .finetuning_report import FinetuningReport
from .model_card_parts import (
    CARD_FILE,
    CONFUSION_PICTURE,
    CURVE_PICTURE,
    EVAL_RESULTS_FOLDER,
    FIDELITY_PICTURE,
    PRICES_PICTURE,
    PROFILE_PICTURE,
    SHAPE_PICTURE,
)
from .pruning_report import PruningReport
from .public_text import ACCESS_TOKEN


# The name is that of the command's module.
logger = logging.get_logger("hf_prunable.hub")

# Names that are published; nothing else is, such as the Trainer's pickled arguments and states.
PUBLISHED_NAMES = frozenset(
    {
        CONFIG_NAME,
        SAFE_WEIGHTS_INDEX_NAME,
        FEATURE_EXTRACTOR_NAME,
        "processor_config.json",
        "generation_config.json",
        # Tokenizers of CTC models.
        *(
            "vocab.json",
            "vocab.txt",
            "merges.txt",
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
        ),
        *("added_tokens.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja"),
        PruningReport.FILE_NAME,
        FinetuningReport.FILE_NAME,
        *(SHAPE_PICTURE, CURVE_PICTURE, FIDELITY_PICTURE, PRICES_PICTURE, PROFILE_PICTURE, CONFUSION_PICTURE),
        OTHER_WEIGHTS_FILE,
        *(CARD_FILE, SHIM_FILE, "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE"),
    }
)
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
BINARY_SUFFIXES = (".safetensors", ".png", ".model")
ADDRESS_WITH_CREDENTIALS = re.compile(r"\w://(?!git@)[^\s/@\"'<>()]+@[\w\[]")
# Home folders on common systems, with separators as they are or as JSON escapes them.
SEPARATOR = r"(?:\\?/|\\{1,2})"
HOME_FOLDER = re.compile(
    rf"(?<![\w.-])(?:[A-Za-z]:{SEPARATOR}Users|{SEPARATOR}(?:Users|(?:(?:export|var){SEPARATOR})?home)){SEPARATOR}[\w.-]+"
)


class PushError(RuntimeError):
    """A folder cannot be pushed, or was not pushed."""


def published_files(folder: Path) -> list[str]:
    """Lists the files of a model folder that are published, in alphabetical order.

    Args:
        folder: Folder of a complete model.

    Raises:
        PushError: If the folder contains no complete model, or a file names a home folder or holds credentials.
    """
    regular, others = _entries(folder)
    if CONFIG_NAME not in regular:
        raise PushError(
            f"{folder} contains no model: there is no {CONFIG_NAME} as a regular file. Give the output folder of a finished "
            "run; links are not followed."
        )
    published = sorted(name for name in regular if _is_published(name))
    weights = [name for name in published if WEIGHTS.fullmatch(name)]
    shards = _shards(folder / SAFE_WEIGHTS_INDEX_NAME) if SAFE_WEIGHTS_INDEX_NAME in regular else set()
    missing = sorted(shards.difference(weights))
    if missing or not weights:
        what = first_names(missing) or "weights as safetensors"
        raise PushError(f"{folder} contains no complete model: {what} missing. Save it with `save_pretrained`.")
    for name in published:
        _check_content(folder / name)
    if left := sorted({*regular, *others}.difference(published)):
        logger.warning(f"Not pushed from {folder}: {first_names(left)}.")
    return published


def _shards(index: Path) -> set[str]:
    """Returns the names of the files that an index of weights names."""
    try:
        return set(map(str, json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PushError(f"{index} is damaged: {error!r}. Save the model again.") from error


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Returns the names of regular files, those of benchmark results with their folder, and of all other entries."""
    regular: list[str] = []
    others: list[str] = []
    for entry in _scan(folder):
        if entry.is_file(follow_symlinks=False):
            regular.append(entry.name)
        elif entry.name == EVAL_RESULTS_FOLDER and entry.is_dir(follow_symlinks=False):
            for result in _scan(entry.path):
                names = regular if result.is_file(follow_symlinks=False) else others
                names.append(f"{EVAL_RESULTS_FOLDER}/{result.name}")
        else:
            others.append(entry.name)
    return regular, others


def _scan(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    if os.path.isdir(folder):
        with os.scandir(folder) as entries:
            yield from entries


def _is_published(name: str) -> bool:
    parent, _, file = name.rpartition("/")
    if parent:
        return file.endswith(".yaml") and not file.startswith(".")
    return file in PUBLISHED_NAMES or WEIGHTS.fullmatch(file) is not None


def _check_content(path: Path) -> None:
    """Raises `PushError` if a file is damaged, names a home folder or holds credentials."""
    text = ""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                text = json.dumps(file.metadata())
        except SafetensorError as error:
            raise PushError(f"{path} is damaged: {error}. Save the model again.") from error
    elif path.suffix not in BINARY_SUFFIXES:
        text = path.read_text(encoding="utf-8", errors="replace")
    home = HOME_FOLDER.search(text) or _own_home().search(text)
    found = {
        "an access token": ACCESS_TOKEN.search(text),
        "an address with credentials": ADDRESS_WITH_CREDENTIALS.search(text),
        f"the path of a home folder, {home and home[0]}": home,
    }
    if kinds := [kind for kind, match in found.items() if match]:
        raise PushError(f"{path} holds {' and '.join(kinds)}. Take it out of the file, and push again.")
    if path.suffix == ".json":
        try:
            json.loads(text)
        except ValueError as error:
            raise PushError(f"{path} is damaged: {error}. Save the model again.") from error


def _own_home() -> re.Pattern[str]:
    """Returns a pattern of this user's home folder, as it is and as JSON escapes it."""
    home = os.path.expanduser("~").rstrip("/\\~") or "\0"
    return re.compile(rf"(?:{re.escape(home)}|{re.escape(json.dumps(home)[1:-1])})(?![\w.-])")
