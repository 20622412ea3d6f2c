"""Options of a command: dataclass fields, given one by one or in a recipe, a .yaml or .json file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from .command_parser import CommandParser, shown_name
from .recipes import NONE, merged_options, option_name, split_recipe
from .user_errors import user_errors


REMAINING_OPTIONS = "more options of transformers.TrainingArguments"


@dataclass(frozen=True)
class OptionTable:
    """How a command presents its options.

    Attributes:
        groups: Names of the options that `--help` shows, by the title of their group.
        help_texts: Texts that replace those of the fields, by the name of the option.
        refused: Options that have no effect in the command, with what to do instead.
    """

    groups: Mapping[str, Sequence[str]]
    help_texts: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class OptionParser(CommandParser, HfArgumentParser):
    """Reads the options of a command from its command line, which may begin with a recipe.

    Args:
        program: Name of the command, such as "hf-prunable prune".
        description: Text above the options in the help.
        classes: Dataclasses whose fields are the options.
        table: Groups and texts of the help, and the options that are refused.
    """

    def __init__(self, program: str, description: str, classes: Sequence[type], table: OptionTable):
        usage = f"{program} [RECIPE.yaml] [--option value ...]"
        super().__init__(classes, prog=program, usage=usage, description=description, add_help=False)
        self.table = table
        self.add_argument("--help", "-h", action="help", help="show these options")
        self.add_argument(
            "--help_all", "--help-all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS, help="show all options"
        )
        hints = {name: hint for kind in classes for name, hint in get_type_hints(kind).items()}
        # Options for which "none" is no text but `None`.
        self._nullable: set[str] = set()
        for action in self._actions:
            action.help = table.help_texts.get(action.dest, action.help)
            alternatives = get_args(hints.get(action.dest))
            if action.type is string_to_bool:
                # `--name` alone means true, also where the default is left open.
                action.nargs, action.const = "?", True
            if str in alternatives and list[str] in alternatives:
                action.nargs = "+"
            elif type(None) in alternatives:
                self._nullable.add(action.dest)

    def parse(self, arguments: Sequence[str]) -> tuple[Any, ...]:
        """Reads a command line; wrong input ends the process with one line and exit status 2.

        Args:
            arguments: Options, after a recipe or without one. An option overrides that of the recipe.

        Returns:
            One object of each class.
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
        """Ends the process with an error if there is no option of a name, or if it has no effect here.

        Args:
            names: Names of options, with underscores.
            recipe: File that they come from; `None` for the command line.
        """
        for name in names:
            reason = self.table.refused.get(name.removeprefix("no_")) or self.table.refused.get(name)
            if reason is not None:
                self.error(f"{shown_name(name, recipe)} has no effect here. {reason}")
        super().check_names(names, recipe)

    def option_names(self) -> list[str]:
        """Names of the options that have an effect, with underscores."""
        return [name for name in super().option_names() if name.removeprefix("no_") not in self.table.refused]

    def where_options_are(self) -> str:
        """A sentence that says where all options are listed."""
        return f"`{self.prog} --help_all` lists all options."

    def format_help(self) -> str:
        """The help with the grouped options."""
        return self._format_groups(self._grouped_actions())

    def format_help_all(self) -> str:
        """The help with all options that have an effect."""
        groups = self._grouped_actions()
        shown = {action.dest for actions in groups.values() for action in actions}
        rest = [action for action in self._first_actions().values() if action.dest not in shown]
        return self._format_groups({**groups, REMAINING_OPTIONS: rest})

    def _without_nulls(self, options: Sequence[str]) -> list[str]:
        """Takes `--name none` out of options, and makes `None` the default of those."""
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
        """The action of each option by its name, without `--no_...` and without options that have no effect."""
        actions: dict[str, argparse.Action] = {}
        for action in self._actions:
            if action.dest not in self.table.refused:
                actions.setdefault(action.dest, action)
        return actions

    def _grouped_actions(self) -> dict[str, list[argparse.Action]]:
        actions = self._first_actions()
        return {title: [actions[name] for name in names] for title, names in self.table.groups.items()} | {
            "help": [actions["help"], actions["help_all"]]
        }

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
        print(parser.format_help_all(), end="")
        parser.exit()
