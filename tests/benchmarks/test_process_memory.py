"""Function calls in fresh processes."""

import os

from benchmarks import process_memory


def test_a_fresh_process_is_another_one():
    environment = dict(os.environ)
    assert process_memory.in_fresh_process(os.getpid) != os.getpid()
    found = process_memory.in_fresh_process(os.getenv, process_memory.MMAP_VARIABLE)
    assert found == process_memory.MMAP_THRESHOLD and os.environ == environment
