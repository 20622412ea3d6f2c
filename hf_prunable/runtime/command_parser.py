"""The parser that all commands share: an error is one line, and help names each option once."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from enum import Enum
from typing import Any, NoReturn

from .recipes import ONE_RECIPE, RECIPE_SUFFIXES, option_name
from .user_errors import exit_with_error


HELP_WIDTH, OPTION_WIDTH = 120, 36
METAVARS: dict[object, str] = {int: "N", float: "X", str: "TEXT"}
# argparse names an option by all its spellings, such as `--max_steps/--max-steps`.
SPELLINGS = re.compile(r"(--\w+)(?:/--[\w-]+)+")


class OptionFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows an option by its first spelling with the kind of its value, and a default where there is one.

    Args:
        prog: Name of the command.
    """

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=OPTION_WIDTH, width=HELP_WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        name = max(action.option_strings[:2], key=len)
        # A switch needs no value.
        if action.nargs in (0, "?"):
            return name
        value = action.metavar or METAVARS.get(action.type, "VALUE")
        return f"{name} {value} ..." if action.nargs == "+" else f"{name} {value}"

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.required and action.option_strings:
            return f"{text} (required)"
        if action.nargs == 0 or action.default in (None, False, argparse.SUPPRESS, "", []):
            return text
        values = action.default if isinstance(action.default, list) else [action.default]
        return f"{text} (default: {' '.join(map(_as_typed, values))})"


def _as_typed(value: object) -> str:
    """A default as it would be typed."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, float):
        return f"{value:g}"
    return "true" if value is True else str(value)


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line and exit status 2; a misspelt option comes with the one that was meant."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"formatter_class": OptionFormatter, "allow_abbrev": False, **kwargs})

    def read(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parses a command line; wrong input ends the process with one line and exit status 2.

        Args:
            arguments: Arguments of the command; `None` for those of this process.
        """
        arguments = sys.argv[1:] if arguments is None else arguments
        self.check_options(arguments)
        values, unknown = self.parse_known_args(arguments)
        self.check_unknown(unknown)
        return values

    def check_options(self, arguments: Sequence[str]) -> None:
        """Ends the process with an error if an argument is an option that there is not.

        argparse itself would first complain that a required option is missing, where it was misspelt.
        """
        self.check_names([option_name(argument) for argument in arguments if argument.startswith("--")])

    def check_unknown(self, arguments: Sequence[str]) -> None:
        """Ends the process with an error if any argument was left over."""
        for argument in arguments:
            hint = ONE_RECIPE if argument.endswith(RECIPE_SUFFIXES) else self.where_options_are()
            self.error(f"unexpected argument {argument!r}. {hint}")

    def check_names(self, names: Sequence[str], recipe: str | None = None) -> None:
        """Ends the process with an error if there is no option of a name.

        Args:
            names: Names of options, with underscores.
            recipe: File that they come from; `None` for the command line.
        """
        known = self.option_names()
        for name in names:
            if name not in known:
                hint = suggestion(name, known) or self.where_options_are()
                self.error(f"there is no option {shown_name(name, recipe)}. {hint}")

    def option_names(self) -> list[str]:
        """Names of all options, with underscores."""
        spellings = (name for name in self._option_string_actions if name.startswith("--"))
        return list(dict.fromkeys(map(option_name, spellings)))

    def where_options_are(self) -> str:
        """A sentence that says where all options are listed."""
        return f"`{self.prog} --help` lists the options."

    def error(self, message: str) -> NoReturn:
        """Prints one line and ends the process with exit status 2."""
        exit_with_error(self.prog, SPELLINGS.sub(r"\1", message))


def shown_name(name: str, recipe: str | None) -> str:
    """An option as the user gave it, in a recipe or on the command line."""
    return f"`--{name}`" if recipe is None else f"`{name}` in {recipe}"


def suggestion(name: str, known: Sequence[str]) -> str:
    """A question for the known name that a misspelt one is nearest to; "" where none is near."""
    near = get_close_matches(name, known, n=1)
    return f"Did you mean `{near[0]}`?" if near else ""
