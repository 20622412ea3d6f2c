"""Decides which libraries a process imports at its start."""

from __future__ import annotations

import sys
from pathlib import Path


# First arguments of `hf-prunable` with which it needs neither torch nor transformers.
LIGHT_ARGUMENTS: tuple[list[str], ...] = ([], ["--help"], ["-h"], ["--version"], ["superb"])


def needs_models() -> bool:
    """Returns whether this process may load models.

    It is false for `hf-prunable superb` and for the help of `hf-prunable`, which therefore start without torch and
    transformers.
    """
    program = sys.argv[0] if sys.argv else ""
    if program == "-m" and "-m" in sys.orig_argv:
        # The value of `sys.argv[0]` while Python imports the package of the module to run.
        program = sys.orig_argv[sys.orig_argv.index("-m") + 1]
        if program == "hf_prunable.superb":
            return False
    return Path(program).stem not in ("hf-prunable", "hf_prunable") or sys.argv[1:2] not in LIGHT_ARGUMENTS
