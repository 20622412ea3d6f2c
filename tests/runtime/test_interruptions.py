"""Runs that are stopped: the status of a shell, and one line on what is kept."""

import errno
import os
import resource
import signal
import time

import pytest
import torch
from safetensors.torch import save_file

from hf_prunable.runtime.interruptions import stoppable, write_failure
from hf_prunable.runtime.run_folder import RunFolder


# Largest size of a file in bytes while writing fails.
LIMIT = 2**20


@pytest.fixture(autouse=True)
def signals_are_not_ignored():
    """As they may be where pytest runs in the background or under nohup."""
    defaults = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)
    # Handlers run between two instructions.
    time.sleep(0.1)


@pytest.mark.parametrize("name, status", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_a_run_with_one_line(tmp_path, capsys, name, status):
    with pytest.raises(SystemExit) as caught, stoppable("prune") as progress:
        progress.folder = RunFolder(tmp_path / "out")
        progress.folder.hold()
        send(signal.Signals[name])
    assert caught.value.code == status
    kept = f"What was finished is kept in {tmp_path / 'out.partial'}, and the same command goes on from there."
    assert capsys.readouterr().err == f"prune: stopped by {name}. {kept}\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_before_there_is_a_folder_the_line_is_short(capsys):
    with pytest.raises(SystemExit), stoppable("export"):
        send(signal.SIGTERM)
    assert capsys.readouterr().err == "export: stopped by SIGTERM.\n"


def test_the_inner_of_two_blocks_speaks(tmp_path, capsys):
    with pytest.raises(SystemExit), stoppable("outer"), stoppable("inner"):
        send(signal.SIGTERM)
    assert capsys.readouterr().err == "inner: stopped by SIGTERM.\n"


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable("prune"):
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_process_ends_by_the_signal():
    ready, is_ready = os.pipe()
    with stoppable("prune"):
        child = os.fork()
        if child == 0:
            # Python forgets signals that arrive while it forks.
            os.write(is_ready, b"x")
            time.sleep(30)
            os._exit(0)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    os.close(ready)
    os.close(is_ready)


def test_processes_of_a_distributed_run_end_at_once(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with stoppable("prune"):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


WRITES = {
    "text": lambda path: path.write_bytes(bytes(2 * LIMIT)),
    "torch": lambda path: torch.save({"a": torch.zeros(LIMIT)}, path),
    "safetensors": lambda path: save_file({"a": torch.zeros(LIMIT)}, path),
    "quota": lambda path: os_error(errno.EDQUOT),
    "cause": lambda path: raise_from(OSError(errno.ENOSPC, "No space left on device")),
}


@pytest.fixture
def small_files():
    """Files of this process may not become larger than `LIMIT`, which fails as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def os_error(number):
    raise OSError(number, os.strerror(number))


def raise_from(cause):
    raise ValueError("generation failed") from cause


@pytest.mark.parametrize("kind", WRITES)
def test_a_full_disk_is_told_in_one_line(tmp_path, capsys, small_files, kind):
    with pytest.raises(SystemExit) as caught, stoppable("prune") as progress:
        progress.folder = RunFolder(tmp_path / "out")
        progress.folder.hold()
        WRITES[kind](tmp_path / "file")
    line = capsys.readouterr().err
    assert caught.value.code == 2 and line.count("\n") == 1
    assert line.startswith("prune: error: A file could not be written, as on a full disk: ")
    assert "Make room. What was finished is kept in " in line


def test_a_working_folder_with_strange_content(tmp_path):
    folder = RunFolder(tmp_path / "out")
    folder.hold()
    (folder.working_dir / "stage_1").touch()
    with pytest.raises(OSError) as caught:
        (folder.working_dir / "stage_1" / "checkpoint-1").mkdir()
    assert "The working folder cannot be used: " in write_failure(caught.value, folder)
    assert write_failure(caught.value) is None


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("shapes differ"), FileNotFoundError(2, "no", "/etc/x")]
)
def test_other_errors_keep_their_traceback(tmp_path, error):
    with pytest.raises(type(error)), stoppable("prune") as progress:
        progress.folder = RunFolder(tmp_path / "out")
        raise error


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_workers_that_end_by_the_same_signal_do_not_hide_it(capsys, name, status):
    with pytest.raises(SystemExit) as caught, stoppable("prune"):
        try:
            send(signal.Signals[name])
        finally:
            # As torch does when a process that reads audio is gone.
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")
    assert caught.value.code == status and capsys.readouterr().err == f"prune: stopped by {name}.\n"


def test_a_second_interrupt_is_no_news_while_python_shuts_down(capsys):
    with pytest.raises(SystemExit) as caught, stoppable("outer"), stoppable("inner"):
        send(signal.SIGINT)
    send(signal.SIGINT)
    assert caught.value.code == 130 and capsys.readouterr().err == "inner: stopped by SIGINT.\n"
