"""Output that is either complete or not there."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file


def check_output_directory(path: str | os.PathLike) -> None:
    """Checks that `staged_directory` can put a folder at a path: to be called before hours of work.

    Raises:
        ValueError: If there is something at the path that is not an empty folder, or no folder can be made there.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_dir():
        raise ValueError(f"The output folder {str(path)!r} is a file. Give the name of a new or an empty folder.")
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(
            f"The output folder {str(path)!r} is not empty. Give the name of a new or an empty folder, or empty this "
            "one."
        )
    if target == Path.cwd() or os.path.ismount(target):
        raise ValueError(
            f"The output folder {str(path)!r} is the current folder or a mount point, which cannot be put in place as "
            "a whole. Give the name of a new folder inside it."
        )
    ancestor = next(folder for folder in target.parents if folder.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
        raise ValueError(
            f"The output folder {str(path)!r} cannot be made: {str(ancestor)!r} is no folder to write to."
        )


@contextmanager
def staged_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary folder beside `path`, which takes that name when the block ends without an exception.

    After an exception, the temporary folder is removed and `path` is as it was. If the work is done and only the
    renaming fails, the temporary folder stays, and the error names it. With several processes, only one may do this.

    Args:
        path: A new or an empty folder; missing parents are made.

    Raises:
        ValueError: If there is something at the path that is not an empty folder, or no folder can be made there.
        OSError: If the finished folder cannot be renamed.
    """
    check_output_directory(path)
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    # The number of a process alone would meet what a killed container left behind, where numbers start over.
    staging = target.parent / f".{target.name}.staging-{os.getpid()}-{secrets.token_hex(4)}"
    staging.mkdir()
    try:
        yield staging
    except BaseException:
        shutil.rmtree(staging)
        raise
    move_into_place(staging, target)


def move_into_place(folder: str | os.PathLike, path: str | os.PathLike) -> None:
    """Gives a finished folder its final name, in one step that happens or does not.

    Args:
        folder: On the same file system as `path`.
        path: A new or an empty folder.

    Raises:
        OSError: If the folder cannot be renamed; it stays where it is.
    """
    target = Path(path)
    try:
        if target.is_dir():
            target.rmdir()
        Path(folder).rename(target)
    except OSError as error:
        raise OSError(f"{str(path)!r} is complete, but stays in {str(folder)!r}: {error}. Move it by hand.") from error


def write_text_atomically(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8 so that a reader sees the old content or the new one, and nothing in between."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def save_tensors_atomically(
    path: str | os.PathLike, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file so that a reader sees the old content or the new one, and nothing in between."""
    with replacing(path) as partial:
        # Tensors that share memory or are not contiguous cannot be saved.
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, partial, metadata)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives the name of a file to write, which takes the place of `path` when the block ends without an exception."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
