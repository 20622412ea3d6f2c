"""Parser of the commands: errors of one line, and a help that lists each option once."""

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
    """Formats an option by one of its spellings, with the type of its value and its default.

    Args:
        prog: Name of the command.
    """

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=OPTION_WIDTH, width=HELP_WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        # The long one of `-h` and `--help`, the first one of `--max_steps` and `--max-steps`.
        name = max(action.option_strings, key=len)
        # A yes/no option needs no value.
        if action.nargs in (0, "?"):
            return name
        value = action.metavar or METAVARS.get(action.type, "VALUE")
        return f"{name} {value} ..." if action.nargs == "+" else f"{name} {value}"

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.required and action.option_strings:
            return f"{text} (required)"
        is_open = action.default is None or action.default is False or action.default in (argparse.SUPPRESS, "", [])
        if is_open or action.nargs == 0:
            return text
        values = action.default if isinstance(action.default, list) else [action.default]
        return f"{text} (default: {' '.join(map(_as_typed, values))})"


def _as_typed(value: object) -> str:
    """Formats a default as it is given on a command line."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, float):
        return f"{value:g}"
    return "true" if value is True else str(value)


class CommandParser(argparse.ArgumentParser):
    """A parser that reports wrong input in one line, with exit status 2, and suggests an option for a misspelt one.

    Args:
        *args: Passed to `argparse.ArgumentParser`.
        **kwargs: Passed to `argparse.ArgumentParser`.
    """

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
        """Ends the process with an error if an option does not exist.

        argparse would first report that a required option is missing, even if it is there and misspelt.

        Args:
            arguments: Arguments of the command.
        """
        self.check_names([option_name(argument) for argument in arguments if argument.startswith("--")])

    def check_unknown(self, arguments: Sequence[str]) -> None:
        """Ends the process with an error if there are arguments that belong to no option.

        Args:
            arguments: Arguments that are left after parsing.
        """
        for argument in arguments:
            hint = ONE_RECIPE if argument.endswith(RECIPE_SUFFIXES) else self.where_options_are()
            self.error(f"unexpected argument {argument!r}. {hint}")

    def check_names(self, names: Sequence[str], recipe: str | None = None) -> None:
        """Ends the process with an error if an option does not exist.

        Args:
            names: Names of options, with underscores.
            recipe: File that holds the options; `None` for the command line.
        """
        known = self.option_names()
        for name in names:
            if name not in known:
                hint = suggestion(name, known) or self.where_options_are()
                self.error(f"there is no option {shown_name(name, recipe)}. {hint}")

    def option_names(self) -> list[str]:
        """Returns the names of all options, with underscores."""
        spellings = (name for name in self._option_string_actions if name.startswith("--"))
        return list(dict.fromkeys(map(option_name, spellings)))

    def where_options_are(self) -> str:
        """Returns a sentence that names the option that lists all options."""
        return f"`{self.prog} --help` lists the options."

    def error(self, message: str) -> NoReturn:
        """Prints one line and ends the process with exit status 2."""
        exit_with_error(self.prog, SPELLINGS.sub(r"\1", message))


def shown_name(name: str, recipe: str | None) -> str:
    """Formats the name of an option for an error message.

    Args:
        name: Name of the option, with underscores.
        recipe: File that holds the option; `None` for the command line.
    """
    return f"`--{name}`" if recipe is None else f"`{name}` in {recipe}"


def suggestion(name: str, known: Sequence[str]) -> str:
    """Returns a question for the name that is most similar to a misspelt one; "" if none is similar.

    Args:
        name: Misspelt name.
        known: Correct names.
    """
    near = get_close_matches(name, known, n=1)
    return f"Did you mean `{near[0]}`?" if near else ""
