"""Function calls in fresh processes, for measurements of memory."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar


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
    spawning = multiprocessing.get_context("spawn")
    # Unlike those of `multiprocessing.Pool`, its processes may start others.
    with _returning_freed_memory(), ProcessPoolExecutor(1, mp_context=spawning) as executor:
        return executor.submit(function, *arguments, **options).result()


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
