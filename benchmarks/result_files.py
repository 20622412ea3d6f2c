"""What a benchmark leaves: its figures for programs, and a table for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.utils import logging

from hf_prunable.runtime.files import write_text_atomically


logger = logging.get_logger("hf_prunable.benchmarks")


def save_result(folder: Path, name: str, values: dict[str, Any], table: str) -> None:
    """Writes NAME.json and NAME.md, and shows the table.

    Args:
        folder: Made where it is missing.
        name: Of the files.
        values: The figures.
        table: As Markdown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / f"{name}.json", json.dumps(values, indent=1) + "\n")
    write_text_atomically(folder / f"{name}.md", table)
    logger.warning(table)
