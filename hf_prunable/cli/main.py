"""The command `hf-prunable`, which starts the other commands.

    hf-prunable prune recipe.yaml --max_steps 1000

`python -m hf_prunable` does the same without the console script.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from .. import __version__
from ..runtime.command_parser import CommandParser, suggestion
from ..runtime.interruptions import stoppable


PROGRAM = "hf-prunable"
# Each is a module of this package, which is imported when it is asked for.
COMMANDS = {
    "demo": "prune a small model one-shot on synthetic speech, without the Hub",
    "prune": "prune a model, one-shot without training or by trained gates",
    "tradeoff": "measure the loss at several sizes, before a target is chosen",
    "finetune-speech-commands": "keep a model's first layers and fine-tune them on Speech Commands",
    "export": "write a model as an ONNX file",
    "push": "push a finished model to the Hub",
    "superb": "compare SUPERB results with published ones",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command.

    Args:
        arguments: Name of the command and its own arguments; `None` for those of this process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = "\n".join(f"  {name:<26}{text}" for name, text in COMMANDS.items())
    parser = CommandParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} COMMAND ...",
        description=f"Smaller WavLM, HuBERT and wav2vec 2.0 models.\n\ncommands:\n{commands}",
        epilog=f"`{PROGRAM} COMMAND --help` lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    command = parser.read(arguments[:1]).command
    if command is None:
        parser.error(f"name a command: {', '.join(COMMANDS)}.")
    if command not in COMMANDS:
        hint = suggestion(command, list(COMMANDS)) or f"Commands are {', '.join(COMMANDS)}."
        parser.error(f"there is no command {command!r}. {hint}")
    with stoppable(f"{PROGRAM} {command}"):
        import_module(f".{command.replace('-', '_')}", __package__).main(arguments[1:])


if __name__ == "__main__":
    main()
