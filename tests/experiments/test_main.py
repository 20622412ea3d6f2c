"""Experiments by short names."""

import importlib
import sys
from pathlib import Path

import pytest

from experiments import __main__ as entry


def test_every_name_is_a_module_with_a_command(monkeypatch):
    for name, module in entry.EXPERIMENTS.items():
        loaded = importlib.import_module(f"experiments.{module}")
        assert callable(loaded.main) and f"python -m experiments {name} " in loaded.__doc__
    folder = Path(entry.__file__).parent
    commands = {
        path.stem for path in folder.glob("*.py") if "def main()" in path.read_text() and path.stem != "__main__"
    }
    assert commands == set(entry.EXPERIMENTS.values())
    monkeypatch.setattr(sys, "argv", ["experiments", "evidense"])
    with pytest.raises(SystemExit, match="no experiment 'evidense'; choose from evidence"):
        entry.main()
