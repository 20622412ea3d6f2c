"""What a command shows while it runs: messages, and progress bars, which are lines where there is no terminal."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from .user_errors import process_rank


# Seconds between two lines of a bar; a bar that is done sooner shows none.
LINE_SECONDS = 15.0
# What tqdm writes to move the cursor between bars.
CURSOR_MOVES = re.compile(r"(?:\n|\x1b\[A)*")


class ProgressLines:
    """A text stream on which the refreshes of progress bars become lines.

    A bar, of tqdm or of anything else that returns to the start of a line, shows a line each 15 s and one at its end.
    All other text passes as it is.

    Args:
        stream: Stream that is written to.
        is_shown: Whether bars are shown at all.
        clock: Seconds since any fixed moment.
    """

    def __init__(self, stream: TextIO, is_shown: bool = True, clock: Callable[[], float] = time.monotonic):
        self._stream, self._is_shown, self._clock = stream, is_shown, clock
        self._is_in_bar = False
        # When each bar last showed a line, or began; and which have shown one. Bars are told apart by their description.
        self._last_shown: dict[str, float] = {}
        self._with_lines: set[str] = set()

    def write(self, text: str) -> int:
        """Writes a text, or takes note of a bar's refresh."""
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
    """Shows this library's messages on the standard error, and progress bars in a form that suits it.

    In a distributed run the first process shows everything, and the others their warnings.
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
