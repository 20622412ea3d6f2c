"""Options of a command, which are dataclass fields: parsed from a command line and from a recipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from .command_parser import CommandParser, shown_name
from .recipes import NONE, merged_options, option_name, split_recipe
from .user_errors import user_errors


ABOUT_OPTIONS = (
    "A recipe is a .yaml or .json file of options; options after it override it. `--option` alone switches a yes/no option\n"
    "on, and `--option false` switches it off. `--help_all` lists all options."
)
REMAINING_OPTIONS = "more options of transformers.TrainingArguments"


@dataclass(frozen=True)
class OptionTable:
    """Presentation of the options of a command.

    Attributes:
        groups: Names of the options that `--help` lists, by the title of their group.
        help_texts: Help texts that replace those of the dataclass fields, by the name of the option.
        refused: Advice for options that have no effect in the command, by the name of the option.
        rare_groups: Names of further options that `--help_all` lists, by the title of their group.
    """

    groups: Mapping[str, Sequence[str]]
    help_texts: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    rare_groups: Mapping[str, Sequence[str]] = field(default_factory=dict)


class OptionParser(CommandParser, HfArgumentParser):
    """Parses the command line of a command, which may begin with a recipe, into dataclasses.

    A yes/no option is true without a value. "none" is the value `None` for options whose type allows it.

    Args:
        program: Name of the command, such as "hf-prunable prune".
        description: Text of the help above the options.
        classes: Dataclasses; their fields are the options.
        table: Presentation of the options.
    """

    def __init__(self, program: str, description: str, classes: Sequence[type], table: OptionTable):
        usage = f"{program} [RECIPE.yaml] [--option value ...]"
        description = f"{description}\n\n{ABOUT_OPTIONS}"
        super().__init__(classes, prog=program, usage=usage, description=description, add_help=False)
        self.table = table
        self.add_argument("--help", "-h", action="help", help="Show the options in groups.")
        self.add_argument(
            "--help_all", "--help-all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS, help="Show all options."
        )
        hints = {name: hint for kind in classes for name, hint in get_type_hints(kind).items()}
        self._nullable: set[str] = set()
        for action in self._actions:
            action.help = table.help_texts.get(action.dest, action.help)
            alternatives = get_args(hints.get(action.dest))
            if action.type is string_to_bool:
                # `HfArgumentParser` requires a value if the default is `None`.
                action.nargs, action.const = "?", True
            if str in alternatives and list[str] in alternatives:
                action.nargs = "+"
            elif type(None) in alternatives:
                self._nullable.add(action.dest)

    def parse(self, arguments: Sequence[str]) -> tuple[Any, ...]:
        """Parses a command line; wrong input ends the process with one line and exit status 2.

        Args:
            arguments: Options, after a recipe or without one. An option overrides that of the recipe.

        Returns:
            One instance of each dataclass.
        """
        with user_errors(self.prog):
            recipe, options = split_recipe(arguments)
            self.check_names(list(recipe), arguments[0] if recipe else None)
            self.check_options(options)
            *parsed, unknown = self.parse_args_into_dataclasses(
                self._without_nulls(merged_options(recipe, options)),
                return_remaining_strings=True,
                look_for_args_file=False,
            )
            self.check_unknown(unknown)
            return tuple(parsed)

    def check_names(self, names: Sequence[str], recipe: str | None = None) -> None:
        """Ends the process with an error if an option does not exist or has no effect in the command.

        Args:
            names: Names of options, with underscores.
            recipe: File that holds the options; `None` for the command line.
        """
        for name in names:
            reason = self.table.refused.get(name.removeprefix("no_")) or self.table.refused.get(name)
            if reason is not None:
                self.error(f"{shown_name(name, recipe)} has no effect here. {reason}")
        super().check_names(names, recipe)

    def option_names(self) -> list[str]:
        """Returns the names of the options that have an effect, with underscores."""
        return [name for name in super().option_names() if name.removeprefix("no_") not in self.table.refused]

    def where_options_are(self) -> str:
        """Returns a sentence that names the option that lists all options."""
        return f"`{self.prog} --help_all` lists all options."

    def format_help(self) -> str:
        """Returns the help with the options of the groups."""
        return self._format_groups(self._grouped_actions(self.table.groups))

    def format_help_all(self) -> str:
        """Returns the help with all options that have an effect."""
        groups = self._grouped_actions({**self.table.groups, **self.table.rare_groups})
        shown = {action.dest for actions in groups.values() for action in actions}
        rest = [action for action in self._first_actions().values() if action.dest not in shown]
        return self._format_groups({**groups, REMAINING_OPTIONS: rest})

    def _without_nulls(self, options: Sequence[str]) -> list[str]:
        """Removes `--name none` from options of which `None` is a value, and makes it their default."""
        kept: list[list[str]] = []
        for option in options:
            if option.startswith("--") or not kept:
                kept.append(option.split("=", 1) if option.endswith(f"={NONE}") else [option])
            else:
                kept[-1].append(option)
        nulls = [
            option_name(name) for name, *values in kept if values == [NONE] and option_name(name) in self._nullable
        ]
        self.set_defaults(**dict.fromkeys(nulls))
        return [text for option in kept if option_name(option[0]) not in nulls for text in option]

    def _first_actions(self) -> dict[str, argparse.Action]:
        """Returns the actions of the options that have an effect, by name, without their `--no_...` forms."""
        actions: dict[str, argparse.Action] = {}
        for action in self._actions:
            if action.dest not in self.table.refused:
                actions.setdefault(action.dest, action)
        return actions

    def _grouped_actions(self, groups: Mapping[str, Sequence[str]]) -> dict[str, list[argparse.Action]]:
        actions = self._first_actions()
        return {title: [actions[name] for name in names] for title, names in groups.items()}

    def _format_groups(self, groups: Mapping[str, Sequence[argparse.Action]]) -> str:
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, [])
        formatter.add_text(self.description)
        for title, actions in groups.items():
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        return formatter.format_help()


class _HelpAll(argparse.Action):
    """Prints the help with all options and ends the process."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        assert isinstance(parser, OptionParser)
        sys.stdout.write(parser.format_help_all())
        parser.exit()
