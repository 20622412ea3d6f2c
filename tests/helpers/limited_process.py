"""Calls in a fork of this process, with a limit of memory and of time."""

import json
import os
import resource
import signal
from pathlib import Path


PAGE = resource.getpagesize()


def limited(function, *args, memory=2**31, seconds=60):
    """What a call returns, in a form that JSON has, or the exception's name and message.

    Args:
        function: Function to call.
        *args: Its arguments.
        memory: Bytes of address space that the call may take, above those of this process.
        seconds: Time after which the process is killed.

    Returns:
        A dict with "result", or with "error" and "message".
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
            resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
            signal.alarm(seconds)
            outcome = {"result": function(*args)}
        except BaseException as error:
            outcome = {"error": type(error).__name__, "message": str(error)[:2000]}
        with os.fdopen(writer, "w") as file:
            json.dump(outcome, file)
        # Without the end of all that the parent has begun.
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(text) if text else {"error": "killed", "message": f"exit status {status}, limit {seconds} s"}


def is_out_of_bounds(outcome):
    """Whether a call wanted more memory or time than it had."""
    message = outcome.get("message", "")
    return outcome.get("error") in ("MemoryError", "killed", "ArrowMemoryError") or "allocate" in message
