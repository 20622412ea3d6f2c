"""What came of a job in a process of its own, for the test that reads it."""

import traceback


def outcome(do, job):
    """What `do(job)` returns, a dict, or the exception's name, message and trace."""
    try:
        return do(job)
    # Whatever it is: the test reads it, and holds its name and message against what it expects.
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error), "trace": traceback.format_exc()}
