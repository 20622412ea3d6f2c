"""Errors in the user's input: one line on the standard error and exit status 2."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


EXIT_STATUS = 2
# Time in seconds in which the launcher of a distributed run stops the other processes if the first one has failed.
GRACE_SECONDS = 10.0
# Values of the environment variable TRANSFORMERS_VERBOSITY with which wrong input raises a traceback.
DEBUG_LEVELS = ("debug", "detail")


def process_rank() -> int:
    """Returns the rank of this process as set by launchers such as torchrun; 0 for a single process."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def exit_with_error(program: str, message: str) -> NoReturn:
    """Prints an error as one line and ends the process with exit status 2.

    In a distributed run, the first process prints at once, and the launcher stops the others when it has failed. A process
    that is not stopped within 10 s has an error that the first process does not have, and prints it.

    Args:
        program: Name of the command, such as "hf-prunable prune".
        message: Text of the error; line breaks become spaces.
    """
    rank = process_rank()
    if rank > 0:
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(EXIT_STATUS))
        time.sleep(GRACE_SECONDS)
        program = f"{program} (rank {rank})"
    sys.stderr.write(f"{program}: error: {' '.join(message.split())}\n")
    sys.exit(EXIT_STATUS)


@contextmanager
def user_errors(program: str, *types: type[Exception]) -> Iterator[None]:
    """Reports exceptions for wrong input as one line and ends the process with exit status 2.

    The block should contain only code that checks and loads the user's input. Errors in the work that follows keep their
    traceback. With TRANSFORMERS_VERBOSITY=debug, all errors do.

    Args:
        program: Name of the command, such as "hf-prunable prune".
        *types: Exception types for wrong input, in addition to `ValueError`, `OSError` and `ImportError`.
    """
    with one_line_errors(program, ValueError, OSError, ImportError, *types):
        yield


@contextmanager
def one_line_errors(program: str, *types: type[Exception]) -> Iterator[None]:
    """Reports exceptions of the given types as one line and ends the process with exit status 2.

    With TRANSFORMERS_VERBOSITY=debug, they keep their traceback.

    Args:
        program: Name of the command, such as "hf-prunable prune".
        *types: Exception types that are reported in this way.
    """
    try:
        yield
    except types as error:
        if os.environ.get("TRANSFORMERS_VERBOSITY") in DEBUG_LEVELS:
            raise
        exit_with_error(program, str(error) or type(error).__name__)
