"""Counts the imports between the rooms of a package, a room being a folder or a file directly in it.

    python .ci/import_arrows.py [FOLDER]

FOLDER holds the package `hf_prunable`; the current folder by default. Needs import-linter's graph, grimp.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import grimp


PACKAGE = "hf_prunable"


def room_of(module: str) -> str:
    """The room that a module is in; the package's own `__init__` is one."""
    return module.split(".")[1] if "." in module else "__init__"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    sys.path.insert(0, str(folder))
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    imports = [(room_of(a), room_of(b)) for a in graph.modules for b in graph.find_modules_directly_imported_by(a)]
    between = Counter((a, b) for a, b in imports if a != b)
    rooms = {room_of(module) for module in graph.modules}
    print(f"{len(rooms)} rooms, {len(graph.modules)} modules, {len(imports)} imports between modules")
    print(f"{len(between)} arrows between rooms, which stand for {sum(between.values())} imports")
    both_ways = sorted((a, b) for a, b in between if a < b and (b, a) in between)
    print(f"{len(both_ways)} pairs of rooms that import each other: {both_ways}")
    for (a, b), count in sorted(between.items()):
        print(f"  {a} -> {b}: {count}")


if __name__ == "__main__":
    main()
