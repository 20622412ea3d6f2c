"""Benchmarks by short names."""

import importlib
import sys
from types import ModuleType

import pytest

from benchmarks import __main__ as entry


def test_benchmarks_by_name(monkeypatch, command, capsys):
    called = []
    fake = ModuleType("benchmarks.inference")
    fake.main = lambda: called.append(sys.argv)
    monkeypatch.setitem(sys.modules, "benchmarks.inference", fake)
    command("inference", "--seconds", 1)
    entry.main()
    assert called == [["python -m benchmarks inference", "--seconds", "1"]]
    for arguments, message in (((), "Give the name"), (("speed",), "no benchmark 'speed'")):
        command(*arguments)
        with pytest.raises(SystemExit, match=f"{message}.*inference, training, startup, convexity"):
            entry.main()
    command("--help")
    entry.main()
    assert "inference, training, startup, convexity, step_overhead" in capsys.readouterr().out
    for module in entry.BENCHMARKS.values():
        assert callable(importlib.import_module(f"benchmarks.{module}").main)
