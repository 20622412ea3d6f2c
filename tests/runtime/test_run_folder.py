"""The folder of a run: links, one process at a time, and a result that no second run takes away."""

import os
import signal
import time

import pytest

from hf_prunable.runtime.run_folder import LOCK_FILE, RunFolder


def in_another_process(function):
    """Starts a function in a process of its own and returns the process's id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            function()
            status = 0
        except ValueError:
            status = 3
        finally:
            os._exit(status)
    return child


def wait_for(path):
    for _ in range(1000):
        if path.exists():
            return
        time.sleep(0.01)
    raise TimeoutError(path)


def exit_status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def holder(tmp_path):
    """A process that holds the working folder of `out` until it is killed."""

    def hold():
        RunFolder(tmp_path / "out").hold()
        (tmp_path / "held").touch()
        time.sleep(60)

    child = in_another_process(hold)
    wait_for(tmp_path / "held")
    yield child
    if (tmp_path / "held").exists():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def make(path):
    """A run that writes a result."""
    folder = RunFolder(path)
    folder.hold()
    (folder.new_result() / "weights").write_text("w")
    folder.finish()


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed(tmp_path, exists):
    (tmp_path / "disk").mkdir()
    if exists:
        (tmp_path / "disk" / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    make(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "real" / "weights").read_text() == "w"
    assert os.listdir(tmp_path / "disk") == ["real"] and sorted(os.listdir(tmp_path)) == ["disk", "link"]


def test_a_chain_of_links_and_a_relative_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to("third")
    make("first")
    assert (tmp_path / "third" / "weights").is_file() and not (tmp_path / "third").is_symlink()


@pytest.mark.parametrize("place", ["loop", ".", "..", "/", "file", "full", "inside/file/x"])
def test_places_that_cannot_be_used_are_refused_before_anything_is_written(tmp_path, monkeypatch, place):
    here = tmp_path / "here"
    (here / "inside").mkdir(parents=True)
    (here / "loop").symlink_to("loop")
    (here / "file").touch()
    (here / "inside" / "file").touch()
    (here / "full").mkdir()
    (here / "full" / "kept").touch()
    monkeypatch.chdir(here)
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="[Gg]ive the name|Delete it"):
        RunFolder(place).check()
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_a_working_folder_that_is_none(tmp_path, kind):
    partial = tmp_path / "out.partial"
    (tmp_path / "elsewhere").mkdir()
    if kind == "file":
        partial.write_text("notes")
    else:
        partial.symlink_to(tmp_path / ("elsewhere" if kind == "link" else "nowhere"))
    with pytest.raises(ValueError, match="out.partial' is a file, a link or a mount point.*Move it away"):
        RunFolder(tmp_path / "out").check()
    assert kind != "file" or partial.read_text() == "notes"


def test_a_second_process_is_told_who_holds_the_folder(tmp_path, holder):
    with pytest.raises(ValueError, match=rf"out' is being made by process {holder} on .+, since \d{{4}}-.*Wait for"):
        RunFolder(tmp_path / "out").hold()
    assert (tmp_path / "out.partial" / LOCK_FILE).is_file()


def test_the_lock_ends_with_its_process(tmp_path, holder):
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    (tmp_path / "held").unlink()
    # Its file is still there, and names a process that is gone.
    assert str(holder) in (tmp_path / "out.partial" / LOCK_FILE).read_text()
    make(tmp_path / "out")
    assert (tmp_path / "out" / "weights").is_file() and not (tmp_path / "out.partial").exists()


def test_a_process_may_go_on_with_its_own_folder(tmp_path):
    RunFolder(tmp_path / "out").hold()
    make(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_that_was_deleted_is_locked_anew(tmp_path, holder):
    folder = RunFolder(tmp_path / "other")
    folder.hold()
    (tmp_path / "other.partial" / LOCK_FILE).unlink()
    (tmp_path / "other.partial").rmdir()
    folder.hold()
    child = in_another_process(RunFolder(tmp_path / "other").hold)
    assert exit_status(child) == 3


def test_a_result_that_another_run_has_put_there_meanwhile_is_kept(tmp_path):
    folder = RunFolder(tmp_path / "out")
    folder.check()
    assert exit_status(in_another_process(lambda: make(tmp_path / "out"))) == 0
    with pytest.raises(ValueError, match="is not empty"):
        folder.hold()
    assert sorted(os.listdir(tmp_path)) == ["out"] and os.listdir(tmp_path / "out") == ["weights"]


def test_of_two_runs_at_a_time_one_wins_and_nothing_is_lost(tmp_path):
    for number in range(20):
        path = tmp_path / str(number)
        children = [in_another_process(lambda path=path: make(path)) for _ in range(2)]
        assert sorted(map(exit_status, children)) == [0, 3]
        assert os.listdir(path) == ["weights"] and not (tmp_path / f"{number}.partial").exists()


def test_without_locks_there_is_a_warning(tmp_path, monkeypatch, caplog):
    def lockf(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("hf_prunable.runtime.run_folder.fcntl.lockf", lockf)
    make(tmp_path / "out")
    assert "cannot be locked" in caplog.text and "no second run has the same `output_dir`" in caplog.text


def test_a_result_begins_empty(tmp_path):
    folder = RunFolder(tmp_path / "out")
    folder.hold()
    (folder.new_result("small") / "half").touch()
    (folder.new_result("large") / "whole").touch()
    assert os.listdir(folder.new_result("small")) == []
    assert (folder.working_dir / "result" / "large" / "whole").is_file()
    folder.new_result()
    assert os.listdir(folder.working_dir / "result") == []


def test_what_is_kept(tmp_path):
    folder = RunFolder(tmp_path / "out")
    assert folder.what_is_kept() == "Nothing was written; the same command begins again."
    folder.hold()
    assert f"is kept in {tmp_path / 'out.partial'}, and the same command goes on" in folder.what_is_kept()
    folder.new_result()
    folder.finish()
    assert folder.what_is_kept() == f"The finished output is in {tmp_path / 'out'}."


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder"])
def test_what_is_in_the_place_of_the_lock_is_named_and_kept(tmp_path, kind):
    (tmp_path / "out.partial").mkdir()
    lock, notes = tmp_path / "out.partial" / LOCK_FILE, tmp_path / "notes"
    if kind == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(notes)
    if kind == "link":
        notes.write_text("notes")
    with pytest.raises(ValueError, match="lock' cannot be used as a lock: .*Delete it"):
        RunFolder(tmp_path / "out").hold()
    assert notes.exists() == (kind == "link") and (kind != "link" or notes.read_text() == "notes")
