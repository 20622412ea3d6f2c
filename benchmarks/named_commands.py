"""Commands of a package by short names, as in `python -m benchmarks inference`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping


def run_named_command(package: str, kind: str, modules: Mapping[str, str]) -> None:
    """Runs the `main` function of the module that the first command-line argument names.

    Args:
        package: Import name of the package.
        kind: What a command of the package is called in messages, in the singular.
        modules: Module name without the package, by short name.

    Raises:
        SystemExit: If the name is missing or unknown.
    """
    names = f"{', '.join(modules)} (python -m {package} NAME --help shows the options)"
    if len(sys.argv) < 2:
        sys.exit(f"Give the name of the {kind} to run: {names}.")
    name, *options = sys.argv[1:]
    if name in ("-h", "--help"):
        print(f"usage: python -m {package} NAME [options]\n\nNames: {names}.")
        return
    if name not in modules:
        sys.exit(f"There is no {kind} {name!r}; choose from {names}.")
    # argparse shows the first argument in its usage line.
    sys.argv = [f"python -m {package} {name}", *options]
    importlib.import_module(f"{package}.{modules[name]}").main()
