"""Writing files and folders that are either complete or absent, whenever the process is interrupted."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers.utils import logging

from .digests import tensors_digest
from .messages import printable


logger = logging.get_logger(__name__)

# Key of the tensors' digest in the header of a safetensors file.
DIGEST = "tensors_digest"


class DamagedFileError(ValueError):
    """A file of an interrupted run that is not as it was written."""


def check_output_directory(path: str | os.PathLike) -> None:
    """Checks that a finished folder can be moved to a path later, so that a long run does not fail at its end.

    Args:
        path: Output folder; it must be empty or not exist, and parents that do not exist must be possible to create.

    Raises:
        ValueError: If something other than an empty folder is at the path, the path is the current folder or a mount
            point, its parent is not writable, or its name is not UTF-8.
    """
    target = Path(os.path.realpath(path))
    if printable(str(target)) != str(target):
        raise ValueError(
            f"The output folder '{printable(str(target))}' has a name that is not UTF-8, which safetensors cannot read and a "
            "model card cannot hold. Give another name."
        )
    if target.is_symlink():
        raise ValueError(f"The output folder {str(path)!r} is a link that leads to itself. Delete it.")
    if target.exists() and not target.is_dir():
        raise ValueError(f"The output folder {str(path)!r} is a file. Give the name of a new or an empty folder.")
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(
            f"The output folder {str(path)!r} is not empty. Give the name of a new or an empty folder, or empty this "
            "one."
        )
    if target == Path.cwd() or os.path.ismount(target):
        raise ValueError(
            f"The output folder {str(path)!r} is the current folder or a mount point, which cannot be replaced by "
            "a finished folder. Give the name of a new folder inside it."
        )
    ancestor = next(folder for folder in target.parents if folder.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
        raise ValueError(
            f"The output folder {str(path)!r} cannot be made: {str(ancestor)!r} is no folder, or is not writable. Give "
            "the name of a new folder elsewhere."
        )


@contextmanager
def staged_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Creates a temporary folder beside `path` and renames it to `path` when the block ends without an exception.

    After an exception, the temporary folder is deleted and `path` is unchanged. If only the renaming fails, the
    temporary folder stays and the error names it. Of several processes, only one may call this.

    Args:
        path: Output folder; it must be empty or not exist. Parents that do not exist are created.

    Yields:
        The temporary folder, to write into.

    Raises:
        ValueError: See `check_output_directory`.
        OSError: If the finished folder cannot be renamed.
    """
    check_output_directory(path)
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    # The process id alone is not unique: ids repeat in a restarted container, beside the folder of a killed process.
    staging = target.parent / f".{target.name}.staging-{os.getpid()}-{secrets.token_hex(4)}"
    staging.mkdir()
    try:
        yield staging
    except BaseException:
        shutil.rmtree(staging)
        raise
    move_into_place(staging, target)


def move_into_place(folder: str | os.PathLike, path: str | os.PathLike) -> None:
    """Renames a finished folder to its final path, which is one atomic step on one file system.

    Args:
        folder: Finished folder, on the file system of `path`.
        path: Final path without links at its end; an empty folder there is replaced.

    Raises:
        OSError: If the folder cannot be renamed; it stays where it is, and the message names it.
    """
    target = Path(path)
    try:
        if target.is_dir():
            target.rmdir()
        Path(folder).rename(target)
    except OSError as error:
        raise OSError(f"{str(path)!r} is complete, but stays in {str(folder)!r}: {error}. Move it by hand.") from error


def remove(path: Path) -> None:
    """Deletes a file, a link or a folder with its content, if it is there.

    Args:
        path: What to delete; what a link leads to is kept.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text_atomically(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in one atomic step: a reader sees the old content or the new one, never a part of it.

    Args:
        path: Output file.
        text: Content, which is encoded in UTF-8 with "\\n" as the end of a line.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def is_whole(path: str | os.PathLike) -> bool:
    """Returns whether a file of `save_tensors_atomically` is there and as it was written; warns of a damaged one.

    Args:
        path: File, which may be missing.
    """
    if not os.path.exists(path):
        return False
    try:
        read_tensors(path)
    except DamagedFileError as error:
        logger.warning(f"{error}. It is made again.")
        return False
    return True


def save_tensors_atomically(
    path: str | os.PathLike, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file in one atomic step: a reader sees the old content or the new one, never a part of it.

    The header also gets a digest of the tensors, which `read_tensors` compares.

    Args:
        path: Output file.
        tensors: Tensors by name; they may share memory and need not be contiguous.
        metadata: Texts by name for the header of the file.
    """
    metadata = {**(metadata or {}), DIGEST: tensors_digest(tensors)}
    with replacing(path) as partial:
        # safetensors refuses tensors that share memory or are not contiguous.
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, partial, metadata)


def read_tensors(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Reads a file of `save_tensors_atomically`.

    Args:
        path: File, of this or of an earlier version, which wrote no digest.

    Returns:
        Copies of the tensors by name, in memory of their own, and the texts of the header by name.

    Raises:
        DamagedFileError: If the file is no safetensors file, or its tensors have changed.
        OSError: If the file cannot be read.
    """
    if os.path.isdir(path):
        # The error of safetensors does not name the file.
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    try:
        with safe_open(path, framework="pt") as file:
            # Copies, because the file's tensors may lie in memory in a way that changes the last bits of products.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise DamagedFileError(f"{os.fspath(path)} is damaged: {error}") from error
    if metadata.get(DIGEST) not in (None, tensors_digest(tensors)):
        raise DamagedFileError(f"{os.fspath(path)} is damaged: its tensors are not those that were written")
    return tensors, metadata


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Replaces a file in one atomic step when the block ends without an exception; else the file stays as it was.

    Args:
        path: Output file.

    Yields:
        Path of a temporary file beside it, to write to.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
