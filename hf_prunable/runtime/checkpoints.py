"""What a run that was killed left behind: which training checkpoints are whole, and which settings they belong to."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from .files import write_text_atomically


logger = logging.get_logger(__name__)

SETTINGS_FILE = "settings.json"


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest training checkpoint that was written to its end; newer ones that were cut short are deleted.

    Args:
        folder: That the Trainer writes its checkpoints to.
    """
    checkpoints = {
        int(path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")): path
        for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    }
    for _, checkpoint in sorted(checkpoints.items(), reverse=True):
        fault = checkpoint_fault(checkpoint)
        if fault is None:
            return checkpoint
        logger.warning(f"{checkpoint} was cut short ({fault}). Going back to the checkpoint before.")
        shutil.rmtree(checkpoint)
    return None


def checkpoint_fault(checkpoint: Path) -> str | None:
    """What a training checkpoint lacks, or `None` for a whole one.

    The Trainer writes its state last, so that a checkpoint with a readable state has everything; each file is looked at
    all the same, for those that were cut short by a full disk or a copy.
    """
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{TRAINER_STATE_NAME} is missing or unreadable"
    for path in sorted(checkpoint.rglob("*")):
        # A zip archive has its directory at its end.
        if path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
            return f"{path.name} is damaged"
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt"):
                    pass
            except SafetensorError as error:
                return f"{path.name} is damaged: {error}"
    return None


def remember_settings(folder: Path, settings: dict[str, Any], override: bool = False) -> None:
    """Writes down what a run was started with, or compares it with what an interrupted run was started with.

    Args:
        folder: The run's working folder; made where it is missing.
        settings: Of plain values.
        override: Go on with these settings where they differ.

    Raises:
        ValueError: If they differ; each difference is named.
    """
    path = folder / SETTINGS_FILE
    # As JSON gives it back: a tuple is a list there.
    settings = json.loads(json.dumps(settings))
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        differences = [
            f"`{name}` was {before.get(name)!r} and is {settings.get(name)!r}"
            for name in sorted(before.keys() | settings.keys())
            if before.get(name) != settings.get(name)
        ]
        if differences and not override:
            raise ValueError(
                f"{str(folder)!r} holds an interrupted run of other settings: {'; '.join(differences)}. Go on with the "
                "settings of that run, give `--override` to go on with the new ones, or delete the folder to start anew."
            )
        if not differences:
            return
        logger.warning(f"Going on with changed settings: {'; '.join(differences)}.")
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(settings, indent=2) + "\n")
