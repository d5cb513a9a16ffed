"""All that goes wrong."""

from typing import Final

from tests.nemesis import client_faults
from tests.nemesis.database_faults import PostgresAborted, PostgresKilled, PostgresRestarted, Terminated
from tests.nemesis.fault import Fault
from tests.nemesis.network_faults import Blackholed, Cut, Delayed, Frozen, FrozenThere, HalfClosed
from tests.nemesis.quiet import Quiet
from tests.nemesis.server_faults import Blocked, Clock, Joining, Killed, Nothing, RevokerKilled, Stopped, StoppedForLong
from tests.nemesis.workers import WorkerKilled, Workers, WorkerStopped

FAULTS: Final[tuple[type[Fault], ...]] = (
    Quiet,
    Nothing,
    Stopped,
    StoppedForLong,
    Killed,
    PostgresRestarted,
    PostgresAborted,
    PostgresKilled,
    Terminated,
    Cut,
    HalfClosed,
    Frozen,
    FrozenThere,
    Delayed,
    Blackholed,
    Blocked,
    Clock,
    Joining,
    RevokerKilled,
    Workers,
    WorkerKilled,
    WorkerStopped,
    *client_faults.FAULTS,
)
