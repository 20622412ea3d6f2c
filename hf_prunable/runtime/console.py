"""Messages and progress bars of a command on the standard error."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from .user_errors import process_rank


# Minimum time between two lines of a progress bar; a bar that ends earlier shows none.
LINE_SECONDS = 15.0
# Text that tqdm writes to move the cursor between nested bars.
CURSOR_MOVES = re.compile(r"(?:\n|\x1b\[A)*")


class ProgressLines:
    """A text stream that writes progress bars as lines, for a log file.

    A progress bar returns to the start of its line at each refresh. Here, a bar writes a line every 15 s and at its end.
    Other text is written unchanged.

    Args:
        stream: Stream to write to.
        is_shown: Whether progress bars are written at all.
        clock: Function that returns the time in seconds.
    """

    def __init__(self, stream: TextIO, is_shown: bool = True, clock: Callable[[], float] = time.monotonic):
        self._stream, self._is_shown, self._clock = stream, is_shown, clock
        self._is_in_bar = False
        # Time of the last line of each bar, or of its start, by its description; and the bars that have written a line.
        self._last_shown: dict[str, float] = {}
        self._with_lines: set[str] = set()

    def write(self, text: str) -> int:
        """Writes text; the refresh of a progress bar only if a line is due.

        Args:
            text: Text, which contains a carriage return if it is a refresh.
        """
        if "\r" in text:
            self._is_in_bar = True
            self._refresh(text.rpartition("\r")[2].strip())
        elif not (self._is_in_bar and CURSOR_MOVES.fullmatch(text)):
            self._is_in_bar = False
            self._stream.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _refresh(self, bar: str) -> None:
        if not bar or not self._is_shown:
            return
        description = re.split(r"\d", bar, maxsplit=1)[0].strip()
        now = self._clock()
        is_done = "100%" in bar
        due = now - self._last_shown.setdefault(description, now) >= LINE_SECONDS
        if due or (is_done and description in self._with_lines):
            self._stream.write(f"{bar}\n")
            self._stream.flush()
            self._last_shown[description] = now
            self._with_lines.add(description)
        if is_done:
            del self._last_shown[description]
            self._with_lines.discard(description)


@contextmanager
def console_output() -> Iterator[None]:
    """Shows messages of this library on the standard error, and progress bars as lines unless it is a terminal.

    In a distributed run, the first process shows all of them and the others only warnings.
    """
    is_first = process_rank() == 0
    stream = sys.stderr
    if not stream.isatty():
        sys.stderr = cast(TextIO, ProgressLines(stream, is_first))
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_prunable").setLevel(logging.INFO if is_first else logging.WARNING)
    try:
        yield
    finally:
        sys.stderr = stream
