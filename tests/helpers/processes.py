"""Where processes that tests start find the repository and the modules of this folder."""

import os
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]


def helper_command(name, *launcher):
    """The command that runs a module of this folder, which takes further arguments.

    Args:
        name: Name of the module.
        *launcher: Arguments of Python that start the module through another one, such as torchrun.
    """
    return [sys.executable, *launcher, "-m", f"{__package__}.{name}"]


def with_root(environment=os.environ):
    """An environment in which Python finds the repository's packages, whatever the working directory."""
    paths = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}
