"""Progress bars where the standard error is no terminal."""

import io
import logging
import sys

import datasets
import pytest
from tqdm.auto import tqdm

from hf_prunable.runtime import console
from hf_prunable.runtime.console import ProgressLines, console_output


@pytest.fixture
def clock(monkeypatch):
    """A clock for the lines, which stands still unless it is turned."""

    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
def written(clock):
    stream = io.StringIO()
    return stream, ProgressLines(stream, clock=clock)


def count(lines, clock, seconds, **options):
    for _ in tqdm(range(100), file=lines, mininterval=0.0, **options):
        clock.now += seconds


def test_a_bar_shows_a_line_now_and_then_and_its_end(written, clock):
    stream, lines = written
    count(lines, clock, 0.5, desc="Map")
    shown = stream.getvalue().splitlines()
    assert [line.split("|")[0] for line in shown] == ["Map:  30%", "Map:  60%", "Map:  90%", "Map: 100%"]
    assert "\r" not in stream.getvalue()


def test_a_short_bar_shows_nothing(written, clock):
    stream, lines = written
    count(lines, clock, 0.1, desc="Loading weights")
    # The next one of the name is another bar.
    clock.now += 1000
    count(lines, clock, 0.1, desc="Loading weights")
    assert stream.getvalue() == ""


def test_bars_in_turn_are_told_apart(written, clock):
    stream, lines = written
    with tqdm(total=10, desc="outer", file=lines, mininterval=0.0) as outer:
        for _ in range(10):
            count(lines, clock, 0.02, desc="inner", leave=False)
            outer.update()
    shown = [line.split(":")[0] for line in stream.getvalue().splitlines()]
    assert shown == ["outer", "outer"]


def test_other_text_passes(written, clock):
    stream, lines = written
    lines.write("before\n")
    lines.write("\rMap:  10%|#")
    print("between", file=lines)
    lines.write("\rMap:  20%|#")
    lines.write("\n")
    print("after", file=lines)
    print(file=lines)
    assert stream.getvalue() == "before\nbetween\nafter\n\n"


def test_other_processes_show_no_bars(clock):
    stream = io.StringIO()
    lines = ProgressLines(stream, is_shown=False, clock=clock)
    count(lines, clock, 100.0)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_standard_error_is_replaced_where_it_is_no_terminal(monkeypatch, is_terminal):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with console_output():
        assert isinstance(sys.stderr, ProgressLines) is not is_terminal
        assert sys.stderr.getvalue() == ""
    assert sys.stderr is stream


def test_bars_of_other_libraries_are_lines(monkeypatch, clock):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    with console_output():
        datasets.Dataset.from_dict({"a": [1, 2]}).map(lambda row: row, load_from_cache_file=False)
    assert "Map: 100%" in stream.getvalue() and "\r" not in stream.getvalue()


@pytest.mark.parametrize("rank, level", [("0", logging.INFO), ("1", logging.WARNING)])
def test_one_process_shows_messages(monkeypatch, rank, level):
    monkeypatch.setenv("RANK", rank)
    with console_output():
        assert logging.getLogger("hf_prunable").level == level
