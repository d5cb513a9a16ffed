"""How long processors have worked for a process: what depends least on how busy the machine is with others."""

import os
import time
from contextlib import suppress

import psutil


def processor_seconds(pid: int) -> float:
    """For a process and those that it has started, so far."""
    total = 0.0
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        # A backend of PostgreSQL may end while it is looked at.
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


class Watch:
    """How much of the machine went to others since it was made: what makes figures worse that is not ours."""

    def __init__(self) -> None:
        self._busy = _busy_seconds()
        self._began = time.monotonic()

    def others(self, own_seconds: float) -> float:
        """The part, from 0 to 1, of all processors' time.

        Parameters:
            own_seconds: how long they worked for what is measured, and for measuring it.
        """
        possible = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        return max(_busy_seconds() - self._busy - own_seconds, 0.0) / possible


def _busy_seconds() -> float:
    """How long all processors have worked so far, for whatever."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice
