"""The process group of a distributed command: leaving it at the end of the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed


@contextmanager
def leave_process_group() -> Iterator[None]:
    """Makes the process leave its group, if it has joined one, at the end of the block, also if that raises an exception.

    A process that ends with communication threads still running can crash at exit. No process waits for another here:
    the first one may still be writing results when the others end, and after an exception the others may never come.
    """
    try:
        yield
    except BaseException:
        # NCCL ends its communicators in all processes together, and would wait for those that have not failed.
        if _has_group() and torch.distributed.get_backend() == "gloo":
            torch.distributed.destroy_process_group()
        raise
    if _has_group():
        torch.distributed.destroy_process_group()


def _has_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
