"""What starts without the heavy libraries."""

import subprocess
import sys

import pytest

from hf_prunable.runtime.startup import needs_models
from tests.helpers.processes import with_root


@pytest.mark.parametrize(
    "argv, original, expected",
    [
        (["/usr/bin/hf-prunable"], [], False),
        (["/usr/bin/hf-prunable", "--help"], [], False),
        (["/usr/bin/hf-prunable", "superb", "results.json"], [], False),
        (["/usr/bin/hf-prunable", "prune", "--help"], [], True),
        (["-m", "--version"], ["python", "-m", "hf_prunable", "--version"], False),
        (["-m", "results.json"], ["python", "-X", "dev", "-m", "hf_prunable.superb", "results.json"], False),
        (["-m"], ["python", "-m", "hf_prunable.cli.prune"], True),
        (["-m"], ["python", "-m", "mypackage"], True),
        (["script.py", "--help"], ["python", "script.py", "--help"], True),
        ([""], ["python"], True),
        ([], [], True),
    ],
)
def test_who_needs_models(monkeypatch, argv, original, expected):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", original)
    assert needs_models() is expected


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["superb", "--help"]])
def test_help_and_superb_load_neither_torch_nor_transformers(arguments):
    command = [sys.executable, "-X", "importtime", "-m", "hf_prunable", *arguments]
    done = subprocess.run(command, env=with_root(), capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and done.stdout and "hf_prunable.cli.main" in imported
    assert not imported & {"torch", "transformers", "numpy", "datasets"}


def test_the_import_registers_the_classes():
    code = "import hf_prunable, transformers; print(transformers.AutoConfig.for_model('prunable_wavlm').model_type)"
    done = subprocess.run([sys.executable, "-c", code], env=with_root(), capture_output=True, text=True)
    assert done.stdout == "prunable_wavlm\n"
