"""Files of a checkpoint, in a folder or on the Hub."""

from __future__ import annotations

from transformers.utils import cached_file


def find_checkpoint_file(source: str, name: str, *, local_files_only: bool = False) -> str | None:
    """Returns the path of a file of a checkpoint; `None` if there is no such file, or the Hub cannot be reached.

    Args:
        source: Folder or Hub id of the checkpoint.
        name: Name of the file.
        local_files_only: Whether to look on this machine only.
    """
    return cached_file(
        source,
        name,
        local_files_only=local_files_only,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
