"""Files that benchmarks and experiments write: a summary as JSON, a Markdown table, and the complete values beside them."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from transformers.utils import logging

from hf_prunable.runtime.files import write_text_atomically


logger = logging.get_logger("hf_prunable.benchmarks")

# Folder for complete values, which are too large for the repository.
RAW_FOLDER = "raw"


def write_json(path: Path, values: Any) -> None:
    """Writes indented JSON.

    Args:
        path: Output file; missing folders are created.
        values: JSON-serializable values.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(values, indent=1) + "\n")


def without_keys(values: Any, keys: Collection[str]) -> Any:
    """Copies nested dictionaries and lists without some keys.

    Args:
        values: JSON-serializable values.
        keys: Dictionary keys to leave out, at any depth.
    """
    if isinstance(values, dict):
        return {key: without_keys(value, keys) for key, value in values.items() if key not in keys}
    if isinstance(values, list | tuple):
        return [without_keys(value, keys) for value in values]
    return values


def save_result(folder: Path, name: str, values: dict[str, Any], table: str, raw_keys: Collection[str] = ()) -> None:
    """Writes NAME.json and NAME.md, and logs the table.

    Args:
        folder: Output folder; created if missing.
        name: File name without extension.
        values: JSON-serializable values.
        table: Table of the main values, as Markdown.
        raw_keys: Keys of `values`, at any depth, that NAME.json leaves out. If any are given, raw/NAME.json holds the
            complete values.
    """
    if raw_keys:
        write_json(folder / RAW_FOLDER / f"{name}.json", values)
    write_json(folder / f"{name}.json", without_keys(values, raw_keys))
    write_text_atomically(folder / f"{name}.md", table)
    logger.warning(table)
