"""What a process of this library needs at its start."""

from __future__ import annotations

import sys
from pathlib import Path


# First arguments of `hf-prunable` with which it works on text alone.
LIGHT_ARGUMENTS: tuple[list[str], ...] = ([], ["--help"], ["-h"], ["--version"], ["superb"])


def needs_models() -> bool:
    """Whether this process may load models.

    Returns:
        False for `hf-prunable superb` and the help of `hf-prunable`, which start without torch and transformers; True
        for any other process.
    """
    program = sys.argv[0] if sys.argv else ""
    if program == "-m" and "-m" in sys.orig_argv:
        # As it is while Python imports the package of the module that it was asked to run.
        program = sys.orig_argv[sys.orig_argv.index("-m") + 1]
        if program == "hf_prunable.superb":
            return False
    return Path(program).stem not in ("hf-prunable", "hf_prunable") or sys.argv[1:2] not in LIGHT_ARGUMENTS
