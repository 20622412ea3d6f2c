"""The benchmarks by short names: `python -m benchmarks NAME --help` tells what NAME measures.

The other modules here are started as `python -m benchmarks.MODULE`.
"""

from __future__ import annotations

import importlib
import sys


BENCHMARKS = {
    "inference": "inference",
    "training": "training",
    "startup": "startup",
    "convexity": "convexity_speed",
}


def main() -> None:
    names = f"{', '.join(BENCHMARKS)} (python -m benchmarks NAME --help tells more)"
    if len(sys.argv) < 2:
        sys.exit(f"Give the name of a benchmark: {names}.")
    name, *options = sys.argv[1:]
    if name in ("-h", "--help"):
        print(f"{__doc__}\nNames: {names}.")
        return
    if name not in BENCHMARKS:
        sys.exit(f"There is no benchmark {name!r}; choose from {names}.")
    sys.argv = [f"python -m benchmarks {name}", *options]
    importlib.import_module(f"benchmarks.{BENCHMARKS[name]}").main()


if __name__ == "__main__":
    main()
