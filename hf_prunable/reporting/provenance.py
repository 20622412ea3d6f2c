"""Which software and which command made a result."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from ..runtime.invocation import started_command


LIBRARIES = ("hf_prunable", "torch", "transformers", "accelerate")
# `hub_token` of transformers.TrainingArguments, which may be shortened.
SECRET_OPTION = re.compile(r"--hub[-_]t[a-z]*")
SECRET = "..."


def library_versions() -> dict[str, str]:
    """Versions of what a result depends on, by the name of the library."""
    return {library: version(library) for library in LIBRARIES}


def source_commit() -> str | None:
    """The git commit that this library runs from, and whether files were changed since.

    Returns:
        Such as "3f2a... with local changes"; `None` where it is installed and no checkout, or there is no git.
    """
    root = Path(__file__).resolve().parents[2]
    # Where it is installed into an environment inside another checkout, that one's commit says nothing.
    if _git(root, "rev-parse", "--show-toplevel") != str(root):
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{commit} with local changes" if commit and changes else commit


def published_name(value: str) -> str:
    """The name of a file or folder that is given by an absolute path; any other value as it is."""
    path = Path(value)
    return path.name if path.is_absolute() and path.name else value


def command_line(arguments: Sequence[str]) -> str:
    """The command that starts a script again, with the options of a recipe written out.

    It is published with a model: of a token it shows nothing, and of an absolute path the last part.

    Args:
        arguments: The script and its options, or the script and a recipe in a .yaml or .json file, as in `sys.argv`.
    """
    program, options = started_command(arguments)
    shown: list[str] = []
    for option in options:
        name, equals, value = option.partition("=")
        if shown and SECRET_OPTION.fullmatch(shown[-1]):
            option = SECRET
        elif equals and SECRET_OPTION.fullmatch(name):
            option = f"{name}={SECRET}"
        elif equals and name.startswith("--"):
            option = f"{name}={published_name(value)}"
        else:
            option = published_name(option)
        shown.append(option)
    return shlex.join([*program, *shown])


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; `None` where it fails or is not installed."""
    try:
        completed = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return completed.stdout.strip() if completed.returncode == 0 else None
