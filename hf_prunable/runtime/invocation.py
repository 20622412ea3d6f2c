"""The command that started this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .recipes import merged_options, split_recipe


PACKAGE = __package__.partition(".")[0]
CONSOLE_SCRIPT = PACKAGE.replace("_", "-")


def started_command(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits the command line of a process into the command and its options.

    Args:
        arguments: Script and its arguments, as in `sys.argv`.

    Returns:
        The command, such as ["hf-prunable", "prune"], with `accelerate launch` if there are several processes; and the
        options, including those of a recipe.
    """
    script, options = Path(arguments[0]), list(arguments[1:])
    if script.stem == CONSOLE_SCRIPT or (script.parent.name, script.name) == (PACKAGE, "__main__.py"):
        command, options = options[0], options[1:]
    elif script.parent.name == "cli" and script.parents[1].name == PACKAGE:
        command = script.stem.replace("_", "-")
    else:
        command = None
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    launcher = ["accelerate", "launch", "--num_processes", str(num_processes)] if num_processes > 1 else []
    if command is None:
        program = [*(launcher or ["python"]), script.name]
    elif launcher:
        program = [*launcher, "-m", f"{PACKAGE}.cli.{command.replace('-', '_')}"]
    else:
        program = [CONSOLE_SCRIPT, command]
    # Another program that calls this library can have other arguments than a recipe and options.
    with suppress(OSError, ValueError):
        options = merged_options(*split_recipe(options))
    return program, options
