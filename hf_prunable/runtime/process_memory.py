"""Peak memory of this process. Linux only."""

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


def peak() -> int:
    """Returns the peak resident memory of this process since `reset_peak`, in bytes."""
    return _memory("VmHWM")


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return 1024 * int(value.split()[0])
    raise OSError(f"/proc/self/status has no entry {name}; memory can be measured on Linux only.")
