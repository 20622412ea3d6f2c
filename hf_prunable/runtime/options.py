"""Options of a script: each by its name, or all of them in a recipe, a .yaml or .json file."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser


RECIPES = (".yaml", ".yml", ".json")


def parse_options(*classes: type) -> tuple[Any, ...]:
    """The options of this process's command line.

    Args:
        *classes: Dataclasses whose fields are the options.

    Returns:
        One object of each class.

    Raises:
        ValueError: If a recipe holds an option that no class has.
    """
    parser = HfArgumentParser(classes)
    recipe = recipe_file(sys.argv[1:])
    if recipe is None:
        return parser.parse_args_into_dataclasses()
    read = parser.parse_json_file if recipe.suffix == ".json" else parser.parse_yaml_file
    return read(str(recipe))


def recipe_file(arguments: Sequence[str]) -> Path | None:
    """The recipe that a script was called with; `None` where it was called with options.

    Args:
        arguments: What follows the script's name.
    """
    return Path(arguments[0]) if len(arguments) == 1 and arguments[0].endswith(RECIPES) else None


def recipe_options(recipe: Path) -> list[str]:
    """A recipe as the options that say the same."""
    options = []
    # JSON is YAML.
    for name, value in yaml.safe_load(recipe.read_text(encoding="utf-8")).items():
        if value is not None:
            options += [f"--{name}", *map(_as_text, value if isinstance(value, list) else [value])]
    return options


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
