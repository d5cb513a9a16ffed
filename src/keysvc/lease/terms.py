"""The terms of leases: how long they are, and how long everybody else waits for their end."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Seconds since some moment, on a clock that goes on while the process stands still."""

boottime: Final[Clock] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""The clock of leases. Not the event loop's, which may be an earlier reading; not the wall's, which may be set."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one holder's leases.

    Parameters:
        lease_seconds: from the sending of a renewal to the end of the lease.
        renew_seconds: how often it is renewed, when nothing happens.
        stale_seconds: how long remembered answers may be given after the end of a lease that could not be renewed.
        clock_rate: at most so much faster does one machine's clock go than another's.
        margin_seconds: added to every wait for somebody else's lease.

    Raises:
        ValueError: names the parameter, and what is allowed.
    """

    lease_seconds: float = 3.0
    renew_seconds: float = 0.5
    stale_seconds: float = 0.0
    clock_rate: float = 1.2
    margin_seconds: float = 0.05

    def __post_init__(self) -> None:
        """Check that leases can be kept."""
        _check("lease_seconds", self.lease_seconds, 0.2, 600)
        _check("renew_seconds", self.renew_seconds, 0.01, self.lease_seconds / 3)
        _check("stale_seconds", self.stale_seconds, 0, 86_400)
        _check("clock_rate", self.clock_rate, 1, 10)
        _check("margin_seconds", self.margin_seconds, 0, 60)

    @property
    def lease_ms(self) -> int:
        """For how long after a renewal was sent this holder may answer from memory, in milliseconds."""
        return math.ceil((self.lease_seconds + self.stale_seconds) * 1000)

    @property
    def renewal_limit_seconds(self) -> float:
        """A renewal that takes longer has failed: there is time for another one before the lease ends."""
        return self.lease_seconds / 3

    def wait_seconds(self, lease_ms: int) -> float:
        """How long to wait, on our clock, until somebody else's lease has ended on theirs."""
        return self.clock_rate * lease_ms / 1000 + self.margin_seconds

    def collect_seconds(self, lease_ms: int) -> float:
        """After how long without a renewal a member counts as dead."""
        return 3 * self.wait_seconds(lease_ms)


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must be {least:g} to {most:g}")
