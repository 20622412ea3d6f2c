"""Names in messages: lists shortened to one line, and names that can be printed."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice


# Enough to recognise what is meant, and few enough for one line.
NAMES_SHOWN = 5


def first_names(names: Collection[str]) -> str:
    """Joins the first names of a collection and says how many were left out.

    Args:
        names: Names in the order in which they are shown.

    Returns:
        At most `NAMES_SHOWN` names, such as "a, b, c, d, e and 2 more".
    """
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(islice(names, NAMES_SHOWN)) + more


def printable(name: str) -> str:
    """Replaces what cannot be written as UTF-8, such as bytes of a file name in another encoding, by escapes.

    Args:
        name: File name as Python's `os` module gives it.
    """
    return name.encode("utf-8", "backslashreplace").decode()
