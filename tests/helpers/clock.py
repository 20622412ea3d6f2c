"""A clock that a test turns."""


class Clock:
    """Stands for the module `time`; `now` is what it shows."""

    now = 100.0

    def perf_counter(self):
        return self.now
