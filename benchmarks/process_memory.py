"""Memory of this process, and work in processes that have done nothing else before. On Linux only."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


CLEAR_PEAK = "5"
MMAP_VARIABLE = "MALLOC_MMAP_THRESHOLD_"
# Bytes; glibc's own, which it no longer raises once it is set.
MMAP_THRESHOLD = "131072"


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of a module in a new process, in which freed memory shows at once.

    Returns:
        What the function returns.
    """
    with _returning_freed_memory(), multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(function, arguments)


@contextmanager
def _returning_freed_memory() -> Iterator[None]:
    """Lets new processes give memory back: glibc would keep it for the next arrays, which then would not show."""
    before = os.environ.get(MMAP_VARIABLE)
    os.environ[MMAP_VARIABLE] = MMAP_THRESHOLD
    try:
        yield
    finally:
        if before is None:
            del os.environ[MMAP_VARIABLE]
        else:
            os.environ[MMAP_VARIABLE] = before


def reset_peak() -> int:
    """Lets the peak start from what the process has now.

    Returns:
        What it has, in bytes.
    """
    Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)
    return _memory("VmRSS")


def peak() -> int:
    """Bytes that the process had at most since `reset_peak`."""
    return _memory("VmHWM")


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return 1024 * int(value.split()[0])
    raise OSError(f"/proc/self/status does not tell {name}; memory can be measured on Linux only.")
