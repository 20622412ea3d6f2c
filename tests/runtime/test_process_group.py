"""Processes leave their group at the end of a command, whatever the end is, and do not wait for each other."""

import subprocess
import sys
import time

import pytest
import torch.distributed as dist

from hf_prunable.runtime.process_group import leave_process_group
from tests.helpers.processes import with_root


@pytest.fixture
def join(tmp_path):
    """Makes this process join a group of its own, which is left after the test."""
    yield lambda: dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    if dist.is_initialized():
        dist.destroy_process_group()


def test_a_group_that_is_joined_inside_is_left(join):
    with leave_process_group():
        join()
        assert dist.is_initialized()
    assert not dist.is_initialized()


def test_a_single_process_needs_no_group():
    with leave_process_group():
        pass
    assert not dist.is_initialized()


@pytest.mark.parametrize("error", [RuntimeError("failed"), SystemExit(2), KeyboardInterrupt()])
def test_an_exception_passes_and_the_group_is_left(join, error):
    with pytest.raises(type(error)) as raised, leave_process_group():
        join()
        raise error
    assert raised.value is error and not dist.is_initialized()


def test_nccl_is_left_after_success_only(join, monkeypatch):
    """Its communicators end together: a failed process would wait for the others."""
    monkeypatch.setattr(dist, "get_backend", lambda: "nccl")
    with pytest.raises(RuntimeError, match="failed"), leave_process_group():
        join()
        raise RuntimeError("failed")
    assert dist.is_initialized()
    with leave_process_group():
        pass
    assert not dist.is_initialized()


PROGRAM = """
import sys, time
import torch.distributed as dist
from hf_prunable.runtime.process_group import leave_process_group

rank, store, end = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with leave_process_group():
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    dist.barrier()
    if rank == 1 and end == "failure":
        sys.exit(2)
    if rank == 0:
        # As the first process does that writes the results.
        sys.stdin.read()
"""


@pytest.mark.parametrize("end, status", [("success", 0), ("failure", 2)])
def test_a_process_that_is_done_does_not_wait_for_the_other(tmp_path, end, status):
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(tmp_path / "store"), end],
            env=with_root(),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    )
    second.communicate(timeout=120)
    assert second.returncode == status
    time.sleep(0.2)
    assert first.poll() is None
    _, error = first.communicate("", timeout=120)
    assert first.returncode == 0 and "terminate called" not in error
