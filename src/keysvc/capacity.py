"""How many processes serve, and how many connections to the database each of them has."""

import os
import socket
from dataclasses import dataclass
from typing import Final, Self

WORKERS_MAX: Final = 256
"""More is a slip of the finger."""

CONNECTIONS_LEAST: Final = 5
"""Look-ups, the lease, barriers and wake-ups have one each, and all else has one."""

CONNECTIONS_ENOUGH: Final = 12
"""With more, a worker is hardly quicker."""

CONNECTIONS_MAX: Final = 1000

_CORES_MAX: Final = 16
_TOGETHER: Final = 91
"""PostgreSQL lets roles like ours have 97 by default: one more is the supervisor's, five are left for people."""

_LINES: Final = 4
"""Look-ups, the lease, barriers and wake-ups: whatever else is asked, they wait for nothing."""

_BACKGROUND: Final = 2
"""For what nobody waits for, one for transactions and one for single reads, where there are enough."""


def usable_cores() -> int:
    """How many processors this process may use, as far as it is wise to take them all: up to 16."""
    if not hasattr(socket, "SO_REUSEPORT"):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _CORES_MAX)


def connections_each(workers: int) -> int:
    """How many connections each worker has by default: 16 of them fit a PostgreSQL as it is by default."""
    return max(CONNECTIONS_LEAST, min(CONNECTIONS_ENOUGH, _TOGETHER // workers))


@dataclass(frozen=True, slots=True)
class Lanes:
    """What the connections of a process are for, beside those that have one purpose each.

    Parameters:
        transactions: for changes and lists.
        readings: for single reads; 0: they take turns with the transactions.
        background: two more are for what nobody waits for; otherwise it takes turns with the rest.
    """

    transactions: int = 4
    readings: int = 2
    background: bool = True

    @classmethod
    def of(cls, connections: int) -> Self:
        """Share out all connections of a process.

        Parameters:
            connections: at least ``CONNECTIONS_LEAST``.
        """
        left = connections - _LINES
        background = left > _BACKGROUND + 2
        if background:
            left -= _BACKGROUND
        readings = max(left // 3, min(left - 1, 1))
        return cls(left - readings, readings, background)


SEPARATE: Final = Lanes()
"""For ``CONNECTIONS_ENOUGH``."""

SOLE: Final = Lanes(1, 0, background=False)
"""For a process that does one thing after the other."""
