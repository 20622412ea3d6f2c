"""Errors of the user's input: one line on the standard error and exit status 2, printed by one process."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


EXIT_STATUS = 2
# Seconds that a process of a distributed run leaves the first process to print the error that both have met.
GRACE_SECONDS = 10.0
# Values of transformers' own environment variable that show the traceback of a refused input.
DEBUG_LEVELS = ("debug", "detail")


def process_rank() -> int:
    """The rank of this process, as launchers such as torchrun set it; 0 in a single process."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def exit_with_error(program: str, message: str) -> NoReturn:
    """Prints an error as one line and ends the process with exit status 2.

    The first process of a distributed run prints at once. The others wait until the launcher stops them, which is what
    happens when all of them meet the same error; one that is not stopped has met an error of its own, and prints it.

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
    """Turns the errors by which checks refuse input into one line and exit status 2.

    Only code that checks and loads what the user has given belongs into the block: an error of the work that follows
    keeps its traceback. With TRANSFORMERS_VERBOSITY=debug every error keeps it.

    Args:
        program: Name of the command, such as "hf-prunable prune".
        *types: Exceptions that report wrong input, besides `ValueError`, `OSError` and `ImportError`.
    """
    refusals: tuple[type[Exception], ...] = (ValueError, OSError, ImportError, *types)
    try:
        yield
    except refusals as error:
        if os.environ.get("TRANSFORMERS_VERBOSITY") in DEBUG_LEVELS:
            raise
        exit_with_error(program, str(error) or type(error).__name__)
