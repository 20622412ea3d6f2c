"""Peak memory of a process, and function calls in fresh processes. Linux only."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar


# Resets the peak resident set size, see proc(5).
CLEAR_PEAK = "5"
MMAP_VARIABLE = "MALLOC_MMAP_THRESHOLD_"
# Bytes; the default of glibc, which is no longer raised dynamically once it is set.
MMAP_THRESHOLD = "131072"

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_fresh_process(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result:
    """Calls a function in a new process, in which freed memory is returned to the system at once.

    Args:
        function: Function at the top level of a module.
        arguments: Positional arguments of the function; must be picklable.
        options: Keyword arguments of the function; must be picklable.

    Returns:
        The return value of the function.
    """
    with _returning_freed_memory(), multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(function, arguments, options)


@contextmanager
def _returning_freed_memory() -> Iterator[None]:
    """Makes new processes return freed memory. Without it, glibc reuses that memory and later peaks look too small."""
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
    """Resets the peak memory of this process to its current memory.

    Returns:
        Current resident memory in bytes.
    """
    Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)
    return _memory("VmRSS")


def peak() -> int:
    """Returns the peak resident memory of this process since `reset_peak`, in bytes."""
    return _memory("VmHWM")


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return 1024 * int(value.split()[0])
    raise OSError(f"/proc/self/status has no entry {name}; memory can be measured on Linux only.")
