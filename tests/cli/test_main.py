"""The command that starts the others."""

import subprocess
import sys

import pytest

from hf_prunable import __version__
from hf_prunable.cli.main import COMMANDS, main
from tests.helpers.processes import with_root


def test_help_has_a_line_for_each_command(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    shown = capsys.readouterr().out
    assert exit.value.code == 0
    for name, text in COMMANDS.items():
        assert [line for line in shown.splitlines() if line.split() == [name, *text.split()]], name


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"hf-prunable {__version__}\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "name a command: demo, prune, tradeoff, finetune-speech-commands, export, push, superb"),
        (["prun"], "there is no command 'prun'. Did you mean `prune`?"),
        (["xyz"], "there is no command 'xyz'. Commands are demo, prune, "),
        (["--verison"], "there is no option `--verison`. Did you mean `version`?"),
    ],
)
def test_wrong_input(capsys, arguments, message):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.startswith(f"hf-prunable: error: {message}") and error.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_a_module_that_runs_on_its_own(command):
    module = f"hf_prunable.cli.{command.replace('-', '_')}"
    done = subprocess.run([sys.executable, "-m", module, "--help"], env=with_root(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: hf-prunable {command} ")


@pytest.mark.parametrize("module", ["hub", "superb"])
def test_older_module_names(module):
    command = [sys.executable, "-m", f"hf_prunable.{module}", "--help"]
    done = subprocess.run(command, env=with_root(), capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: hf-prunable ")
