"""How messages speak of many things at once."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice


# As many names as a reader looks at in one line.
NAMES_SHOWN = 5


def first_names(names: Collection[str]) -> str:
    """The first few of many names and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(islice(names, NAMES_SHOWN)) + more
