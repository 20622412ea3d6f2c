"""Recipes: YAML and JSON files with options of a command."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml


RECIPE_SUFFIXES = (".yaml", ".yml", ".json")
# Text of the value `None`.
NONE = "none"
ONE_RECIPE = "There may be one recipe, before all options."


class _RecipeLoader(yaml.SafeLoader):
    """Reads scalars as in YAML 1.2: `no` is text and `5e-4` a number, while YAML 1.1 reads false and text."""

    yaml_implicit_resolvers: dict = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [self.construct_object(key) for key, _ in node.value]
        for number, (key, _) in enumerate(node.value):
            if names[number] in names[:number]:
                raise yaml.constructor.ConstructorError(
                    problem=f"{names[number]!r} stands twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


for _kind, _pattern, _first in (
    ("null", r"null|~|", ["n", "N", "~", ""]),
    ("bool", r"true|false", ["t", "T", "f", "F"]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=e))(e[-+]?[0-9]+)?", list("-+.0123456789")),
):
    _RecipeLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})$", re.IGNORECASE), _first
    )


def load_recipe(path: str | Path) -> dict[str, object]:
    """Reads the options of a recipe.

    Args:
        path: File with a mapping of options; .yaml, .yml or .json.

    Returns:
        Values by the name of the option, with underscores.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not a recipe; the message has the line.
    """
    path = Path(path)
    if path.suffix not in RECIPE_SUFFIXES:
        raise ValueError(f"{str(path)!r} is no option and no recipe; recipes end in {', '.join(RECIPE_SUFFIXES)}.")
    if not path.is_file():
        raise FileNotFoundError(f"The recipe {str(path)!r} does not exist.")
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, _RecipeLoader)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}, line {line}: {error.problem}.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no options. Give one in each line, such as `max_steps: 1000`.")
    return {str(name).replace("-", "_"): value for name, value in content.items()}


def recipe_options(recipe: Mapping[str, object]) -> list[str]:
    """Converts a recipe to the options of a command line.

    Args:
        recipe: Values by the name of the option; `None` becomes "none".
    """
    options: list[str] = []
    for name, value in recipe.items():
        texts = [_as_text(item) for item in value] if isinstance(value, list) else [_as_text(value)]
        if len(texts) == 1 and texts[0].startswith("-"):
            # argparse takes a separate argument that begins with "-" for an option.
            options.append(f"--{name}={texts[0]}")
        else:
            options += [f"--{name}", *texts]
    return options


def split_recipe(arguments: Sequence[str]) -> tuple[dict[str, object], list[str]]:
    """Splits a command line into its recipe and its options.

    Args:
        arguments: Options, after a recipe or without one.

    Returns:
        Values of the recipe by the name of the option, and the options.

    Raises:
        FileNotFoundError: If the recipe does not exist.
        ValueError: If the first argument is neither an option nor a recipe, the recipe cannot be read, or the argument
            after it is not an option.
    """
    if not arguments or arguments[0].startswith("-"):
        return {}, list(arguments)
    recipe, options = load_recipe(arguments[0]), list(arguments[1:])
    if options and not options[0].startswith("-"):
        raise ValueError(f"unexpected argument {options[0]!r}. {ONE_RECIPE}")
    return recipe, options


def merged_options(recipe: Mapping[str, object], options: Sequence[str]) -> list[str]:
    """Merges the options of a recipe and of a command line.

    Args:
        recipe: Values by the name of the option, with underscores.
        options: Options of the command line, which override those of the recipe. A list replaces the whole list.

    Returns:
        Options of the recipe that are not overridden, and then those of the command line.
    """
    given = {option_name(option) for option in options if option.startswith("--")}
    kept = {name: value for name, value in recipe.items() if not given & {name, f"no_{name}"}}
    return [*recipe_options(kept), *options]


def option_name(argument: str) -> str:
    """Returns the name of the option in an argument: "max_steps" for "--max-steps=3"."""
    return argument.removeprefix("--").partition("=")[0].replace("-", "_")


def _as_text(value: object) -> str:
    if value is None:
        return NONE
    return value if isinstance(value, str) else json.dumps(value)
