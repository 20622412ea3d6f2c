"""Runs that are stopped from outside, by a signal or a full disk: one line that says what is kept."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from safetensors import SafetensorError

from .run_folder import RunFolder
from .user_errors import DEBUG_LEVELS, exit_with_error, process_rank


# Signals that end a process by default, besides SIGINT, which Python raises as `KeyboardInterrupt`.
STOP_SIGNALS = [signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
# Errors of a file system that takes no more: full, over the quota of the user, or over the largest size of a file.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Messages of safetensors, and of torch, which does not give the error of the system.
SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
FAILED_WRITE = re.compile(r"PytorchStreamWriter failed|file write failed|unexpected pos \d+ vs")
# Status that shells give a process that a signal has ended: 130 for SIGINT, 143 for SIGTERM.
SIGNAL_STATUS = 128


class Stopped(BaseException):
    """The process was asked to end.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@dataclass
class Progress:
    """What is known of a run when it is stopped.

    Attributes:
        folder: Folder of the run; `None` before there is one.
    """

    folder: RunFolder | None = None

    def what_is_kept(self) -> str:
        """Returns a sentence on what is kept; empty before there is a folder."""
        return "" if self.folder is None else self.folder.what_is_kept()


@contextmanager
def stoppable(program: str) -> Iterator[Progress]:
    """Ends the process with one line when it is stopped or a file cannot be written, with what is kept of the run.

    Ctrl-C, SIGTERM and SIGHUP end it with the status that shells give such processes (130, 143, 129). A signal that is
    ignored, as SIGHUP under `nohup`, stays so. In a distributed run, SIGTERM and SIGHUP end a process at once, because it may
    be waiting for others. Errors other than failed writes are raised.

    Args:
        program: Name of the command, such as "hf-prunable prune".

    Yields:
        What is known of the run, for the block to fill in.
    """
    progress = Progress()
    with _raised_signals():
        try:
            yield progress
        except SystemExit:
            raise
        except BaseException as error:
            number = stopping_signal(error)
            if number is not None:
                _exit_by_signal(program, number, progress)
            failure = write_failure(error, progress.folder)
            if failure is None or os.environ.get("TRANSFORMERS_VERBOSITY") in DEBUG_LEVELS:
                raise
            exit_with_error(program, f"{failure} {progress.what_is_kept()}")


def stopping_signal(error: BaseException) -> int | None:
    """Returns the number of the signal that an error goes back to; `None` for another error.

    A signal to all processes of a run also ends the workers that read audio. Their end raises an error while that of the
    signal is on its way.

    Args:
        error: Error, whose causes are looked at too.
    """
    for cause in _chain(error):
        if isinstance(cause, Stopped):
            return cause.number
        if isinstance(cause, KeyboardInterrupt):
            return signal.SIGINT
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and what it was raised from or during."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def write_failure(error: BaseException, folder: RunFolder | None = None) -> str | None:
    """Says in a sentence that a file could not be written; returns `None` for an error of another kind.

    Args:
        error: Error, whose causes are looked at too.
        folder: Folder of the run; any failed access to a file in its working folder counts. `None` for no folder.
    """
    for cause in _chain(error):
        number = cause.errno if isinstance(cause, OSError) else None
        if isinstance(cause, SafetensorError) and (match := SYSTEM_ERROR.search(str(cause))):
            number = int(match[1])
        if number in FULL or (isinstance(cause, RuntimeError) and FAILED_WRITE.search(str(cause))):
            return f"A file could not be written, as on a full disk: {_first_line(cause)}. Make room."
        if isinstance(cause, OSError) and folder is not None and _is_inside(cause.filename, folder):
            return f"The working folder cannot be used: {_first_line(cause)}. Make this file usable, or delete it."
    return None


def _is_inside(name: object, folder: RunFolder) -> bool:
    return isinstance(name, str | os.PathLike) and os.path.realpath(name).startswith(f"{folder.working_dir}{os.sep}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")


def _exit_by_signal(program: str, number: int, progress: Progress) -> None:
    if process_rank() == 0:
        # The terminal may be gone.
        with suppress(OSError):
            sys.stderr.write(
                f"{program}: stopped by {signal.Signals(number).name}. {progress.what_is_kept()}".rstrip() + "\n"
            )
    # While Python shuts down, a second Ctrl-C and the end of the workers that read audio are no news.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.exit(SIGNAL_STATUS + number)


@contextmanager
def _raised_signals() -> Iterator[None]:
    """Raises `Stopped` in this process, but not in processes forked from it, for signals that would end it."""
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise Stopped(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    is_alone = int(os.environ.get("WORLD_SIZE", "1")) == 1 and threading.current_thread() is threading.main_thread()
    replaced = [number for number in STOP_SIGNALS if is_alone and signal.getsignal(number) is signal.SIG_DFL]
    for number in replaced:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)
