"""Peak memory of this process and of others. Linux only."""

from __future__ import annotations

from pathlib import Path


# Resets the peak resident set size, see proc(5).
CLEAR_PEAK = "5"


def reset_peak() -> int:
    """Resets the peak memory of this process to its current memory.

    Returns:
        Current resident memory in bytes.

    Raises:
        OSError: If the system has no such measurement.
    """
    Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)
    return _memory("VmRSS")


def peak(process: int | str = "self") -> int:
    """Returns the peak resident memory of a process in bytes, since it began or `reset_peak` was called in it.

    Args:
        process: Id of the process; "self" for this one.
    """
    return _memory("VmHWM", process)


def _memory(name: str, process: int | str = "self") -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return 1024 * int(value.split()[0])
    raise OSError(f"/proc/{process}/status has no entry {name}; memory can be measured on Linux only.")
