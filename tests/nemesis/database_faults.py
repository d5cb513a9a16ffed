"""PostgreSQL goes wrong."""

import asyncio
import signal
from typing import ClassVar

from tests.nemesis.cluster import LEASE_SECONDS
from tests.nemesis.fault import Fault, Repeated


class _PostgresEnded(Fault):
    """PostgreSQL ends, and is started again at once."""

    how: ClassVar[signal.Signals]
    seconds = 1.5 * LEASE_SECONDS

    async def begin(self) -> None:
        """Restart it."""
        await asyncio.to_thread(self.cluster.end_postgres, self.how)
        await asyncio.to_thread(self.cluster.revive_postgres)
        self.count += 1

    async def end(self) -> None:
        """Nothing is left to do."""


class PostgresRestarted(_PostgresEnded):
    """PostgreSQL is restarted: it ends all connections and writes everything down."""

    name = "postgres restarted"
    how = signal.SIGINT


class PostgresAborted(_PostgresEnded):
    """PostgreSQL is ended without a shutdown, and recovers."""

    name = "postgres aborted"
    how = signal.SIGQUIT


class PostgresKilled(_PostgresEnded):
    """PostgreSQL is killed, its backends finish by themselves, and it recovers."""

    name = "postgres killed"
    how = signal.SIGKILL


class Terminated(Repeated):
    """PostgreSQL ends all connections of all servers, again and again."""

    name = "connections terminated"
    pause_seconds = 0.4

    async def once(self) -> None:
        """End them."""
        await asyncio.shield(asyncio.to_thread(self.cluster.terminate_backends))
