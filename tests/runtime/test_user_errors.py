"""Errors of the user's input in real processes: one line, exit status 2, and once for all ranks."""

import os
import subprocess
import sys
import time

import pytest

from tests.helpers.processes import ROOT


MODULE = ROOT / "hf_prunable" / "runtime" / "user_errors.py"
# The module alone: the package imports libraries that print warnings of their own.
PROGRAM = f"""
import os, sys
sys.path.insert(0, {str(MODULE.parent)!r})
import user_errors

user_errors.GRACE_SECONDS = float(os.environ.get("GRACE", "60"))
with user_errors.user_errors("the command", ZeroDivisionError):
    STATEMENT
"""
SILENT = {"TRANSFORMERS_VERBOSITY": "warning", "RANK": "0"}


def start(statement, **environment):
    command = [sys.executable, "-c", PROGRAM.replace("STATEMENT", statement)]
    return subprocess.Popen(command, env=os.environ | SILENT | environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "statement, line",
    [
        ("raise ValueError('wrong\\n  value')", "the command: error: wrong value"),
        ("open('/nowhere')", "the command: error: [Errno 2] No such file or directory: '/nowhere'"),
        ("import nowhere", "the command: error: No module named 'nowhere'"),
        ("1 / 0", "the command: error: division by zero"),
        ("raise ValueError", "the command: error: ValueError"),
    ],
)
def test_wrong_input_is_one_line(statement, line):
    process = start(statement)
    assert process.communicate()[1] == f"{line}\n"
    assert process.returncode == 2


@pytest.mark.parametrize(
    "statement, environment",
    [("raise KeyError('x')", {}), ("raise ValueError('x')", {"TRANSFORMERS_VERBOSITY": "debug"})],
)
def test_another_error_keeps_its_traceback(statement, environment):
    process = start(statement, **environment)
    assert "Traceback" in process.communicate()[1]
    assert process.returncode == 1


@pytest.mark.parametrize(
    "statement, status",
    [("raise ValueError('wrong')", 1), ("raise ZeroDivisionError('the push failed')", 2), ("pass", 0)],
)
def test_only_the_errors_of_the_work_that_are_named_are_one_line(statement, status):
    work = f"""pass
with user_errors.one_line_errors("the command", ZeroDivisionError):
    {statement}
"""
    process = start(work)
    error = process.communicate()[1]
    assert process.returncode == status
    assert ("Traceback" in error) == (status == 1)
    assert (error == "the command: error: the push failed\n") == (status == 2)


def test_another_rank_is_silent_when_it_is_stopped():
    process = start("print('here', flush=True, file=sys.stderr); raise ValueError('wrong')", RANK="1")
    assert process.stderr.readline() == "here\n"
    # Until it waits.
    time.sleep(0.5)
    process.terminate()
    assert process.communicate()[1] == ""
    assert process.returncode == 2


def test_another_rank_that_is_not_stopped_prints_its_error():
    process = start("raise ValueError('wrong')", LOCAL_RANK="0", RANK="3", GRACE="0.1")
    assert process.communicate()[1] == "the command (rank 3): error: wrong\n"
    assert process.returncode == 2
