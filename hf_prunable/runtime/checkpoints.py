"""Training checkpoints that an interrupted run left behind: finding the last complete one, deleting damaged ones."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from .files import remove


logger = logging.get_logger(__name__)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Finds the newest training checkpoint without a fault; nothing is deleted.

    Args:
        folder: Folder in which the Trainer writes its checkpoints; it need not exist.

    Returns:
        The checkpoint, or `None` if there is none without a fault.
    """
    return next((checkpoint for checkpoint in _newest_first(folder) if checkpoint_fault(checkpoint) is None), None)


def remove_damaged_checkpoints(folder: Path) -> None:
    """Deletes the damaged training checkpoints that are newer than the last whole one, with a warning for each.

    Args:
        folder: Folder in which the Trainer writes its checkpoints; it need not exist.
    """
    for checkpoint in _newest_first(folder):
        fault = checkpoint_fault(checkpoint)
        if fault is None:
            return
        logger.warning(f"{checkpoint} was cut short ({fault}). Going back to the checkpoint before.")
        remove(checkpoint)


def common_checkpoint(args: TrainingArguments) -> str | None:
    """Returns the training checkpoint to continue from; all processes must call this, and all get the same.

    The first process looks for it and deletes damaged checkpoints.

    Args:
        args: Training arguments with the folder of the checkpoints.

    Returns:
        Path of the checkpoint; `None` if there is none.
    """
    found: list[str | None] = [None]
    if args.process_index == 0:
        folder = Path(str(args.output_dir))
        remove_damaged_checkpoints(folder)
        checkpoint = last_whole_checkpoint(folder)
        found = [None if checkpoint is None else str(checkpoint)]
    return broadcast_object_list(found)[0] if args.world_size > 1 else found[0]


def checkpoint_fault(checkpoint: Path) -> str | None:
    """Checks whether a training checkpoint is complete.

    The Trainer writes its state last, so a checkpoint with a readable state was written to its end. Its other files are
    checked too, because a full disk or an interrupted copy can cut them short.

    Args:
        checkpoint: Folder of the checkpoint.

    Returns:
        What is missing or damaged, or `None` for a complete checkpoint.
    """
    try:
        state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return f"{TRAINER_STATE_NAME} is missing or unreadable"
    if not isinstance(state, dict) or not isinstance(state.get("global_step"), int):
        return f"{TRAINER_STATE_NAME} holds no state"
    # Files of weights, and folders of sharded ones.
    if not any("model" in path.name for path in checkpoint.iterdir()):
        return "its weights are missing"
    for path in sorted(checkpoint.rglob("*")):
        if path.suffix in (".pt", ".pth") and not _is_whole_archive(path):
            return f"{path.name} is damaged"
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt"):
                    pass
            except (SafetensorError, OSError) as error:
                return f"{path.name} is damaged: {error}"
    return None


def _is_whole_archive(path: Path) -> bool:
    """Returns whether all parts of a file that torch wrote have their checksums; reads the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError):
        return False


def _newest_first(folder: Path) -> list[Path]:
    """Checkpoints of a folder from the last step to the first; by number, because "checkpoint-9" sorts after "-10".

    Other entries, such as a "checkpoint-best", are left alone.
    """
    prefix = f"{PREFIX_CHECKPOINT_DIR}-"
    numbers = {path: path.name.removeprefix(prefix) for path in folder.glob(f"{prefix}*")}
    checkpoints = [path for path, number in numbers.items() if number.isascii() and number.isdigit()]
    return sorted(checkpoints, key=lambda path: int(numbers[path]), reverse=True)
