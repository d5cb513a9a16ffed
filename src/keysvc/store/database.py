"""Connections to PostgreSQL, with a time limit that holds even when the network says nothing at all.

The limit is the caller's protection: whatever happens to the database, an answer comes. ``asyncio.timeout`` around a
query does not give that: psycopg reacts to the cancellation by asking the server to cancel, and waits for a server that
is frozen. Here the work runs in a task of its own, and when time is up its connection is cut under it.

Time spent waiting for one of our own connections does not count: that is load, and ends. When the database turns out to
be away, all who wait hear it at once, instead of finding out one after the other.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
import structlog
from psycopg.errors import LockNotAvailable, ReadOnlySqlTransaction
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from keysvc.core.errors import Overloaded, Unavailable
from keysvc.store.lane import Lane

T = TypeVar("T")
Held: TypeAlias = list[psycopg.AsyncConnection[Any]]

_log = structlog.get_logger("keysvc.store")

ATTEMPTS_MAX: Final = 4
_PAUSE_SECONDS: Final = 0.02

SESSION_OPTIONS: Final = " ".join(
    f"-c {setting}"
    for setting in (
        "synchronous_commit=on",
        "default_transaction_isolation=read\\ committed",
        "lock_timeout=1s",
        "statement_timeout=10s",
        "idle_in_transaction_session_timeout=10s",
        "tcp_keepalives_idle=10",
        "tcp_keepalives_interval=5",
        "tcp_keepalives_count=2",
        "DateStyle=ISO",
        "IntervalStyle=postgres",
        "TimeZone=UTC",
    )
)
"""For every session, whatever the database's own defaults are: what commits is durable, a statement that nobody waits
for any more ends by itself, a kept lock is told from a database that is away, a session whose server the network has
swallowed is not kept for hours (20 s instead, before there are too many), times are read as they were written."""


def connect_arguments(application_name: str, limit_seconds: float) -> dict[str, Any]:
    """Arguments of every connection to the database.

    Parameters:
        application_name: what operators see in ``pg_stat_activity``.
        limit_seconds: after so long without acknowledgement the kernel gives a connection up.
    """
    return {
        "application_name": application_name,
        "options": SESSION_OPTIONS,
        "client_encoding": "utf8",
        "target_session_attrs": "read-write",
        "tcp_user_timeout": int(limit_seconds * 1000),
    }


class Reachability:
    """Tells the log when the database goes away and when it is back, once each.

    Parameters:
        application_name: of the connections.
    """

    def __init__(self, application_name: str) -> None:
        self._application_name = application_name
        self._was_reached = False
        self._is_told = False

    def lost(self, cause: BaseException | None) -> None:
        """Something found the database away. Before it was ever reached whoever starts keysvc hears of that instead.

        Parameters:
            cause: what the driver said; None: nothing came in time.
        """
        if self._was_reached and not self._is_told:
            told = str(cause).strip().partition("\n")[0] if cause else "no answer in time"
            _log.error("database away", connections=self._application_name, cause=told)
            self._is_told = True

    def found(self) -> None:
        """Something got an answer."""
        if self._is_told:
            _log.info("database back", connections=self._application_name)
        self._was_reached, self._is_told = True, False


class Database:
    """Connections for everything but the look-ups of Verify: some for transactions, and some for single reads.

    Parameters:
        url: whatever libpq takes: ``postgresql://…``.
        limit_seconds: how long one piece of work may take.
        connections_max: how many transactions there may be at once.
        readings_max: how many single reads there may be at once; 0: they take turns with the transactions.
        application_name: what operators see in ``pg_stat_activity``.
    """

    def __init__(
        self,
        url: str,
        *,
        limit_seconds: float,
        connections_max: int = 4,
        readings_max: int = 2,
        application_name: str = "keysvc",
    ) -> None:
        self._limit_seconds = limit_seconds
        self._reachability = Reachability(application_name)

        async def connect() -> psycopg.AsyncConnection[Any]:
            return await psycopg.AsyncConnection.connect(url, **connect_arguments(application_name, limit_seconds))

        create = partial(
            create_async_engine,
            "postgresql+psycopg://",
            async_creator=connect,
            max_overflow=0,
            pool_use_lifo=True,
            hide_parameters=True,
        )
        self._engine = create(pool_size=connections_max)
        self._transactions = self._readings = Lane(connections_max)
        # Always without a transaction: to begin and end one, or to change between the two, takes as long as the read.
        if readings_max:
            self._reading = create(pool_size=readings_max, isolation_level="AUTOCOMMIT", pool_reset_on_return=None)
            self._readings = Lane(readings_max)
        else:
            self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Let what is under way finish, then close all connections."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._limit_seconds)
        await self._engine.dispose()
        await self._reading.dispose()

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run ``work`` that only reads, each statement by itself; again on another connection if one is lost.

        Raises:
            Unavailable: the database did not answer in time.
            Overloaded: too much work is waiting.
        """
        return await self.run_alone(lambda connection, _attempt: work(connection))

    async def run_alone(self, work: Callable[[AsyncConnection, int], Awaitable[T]]) -> T:
        """As ``run``, but each statement is a transaction of its own, which commits by itself."""

        async def attempt(number: int, held: Held) -> T:
            async with self._reading.connect() as connection:
                held.append(await _driver(connection))
                return await work(connection, number)

        return await asyncio.shield(self._spawn(self._in_turn(self._readings, attempt)))

    async def run(self, work: Callable[[AsyncConnection, int], Awaitable[T]], *, commit: bool) -> T:
        """Run ``work`` in a transaction, shielded: the cancellation of an RPC does not stop what has begun.

        A lost connection, a deadlock or a server that is going away makes it run again, on another connection. So with
        ``commit`` the work must be such that running it again after a commit of unknown outcome is right.

        Parameters:
            work: gets a connection and the number of the attempt, from 0.
            commit: commit afterwards.

        Raises:
            Unavailable: the database did not answer in time. With ``commit`` it is then unknown what happened.
            Overloaded: too much work is waiting.
        """

        async def attempt(number: int, held: Held) -> T:
            async with self._engine.connect() as connection:
                held.append(await _driver(connection))
                result = await work(connection, number)
                if commit:
                    await connection.commit()
                return result

        return await asyncio.shield(self._spawn(self._in_turn(self._transactions, attempt)))

    async def _in_turn(self, lane: Lane, attempt: Callable[[int, Held], Coroutine[Any, Any, T]]) -> T:
        """Wait for a connection to be free, and use it."""
        await lane.enter()
        try:
            result = await self._attempts(attempt)
        except Unavailable as error:
            self._reachability.lost(error.__cause__)
            lane.refuse(error.message)
            raise
        else:
            self._reachability.found()
            return result
        finally:
            lane.leave()

    def _spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task that is kept until it ends, whoever still waits for it."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Its caller may have been cancelled; then nobody asks how it ended.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _attempts(self, attempt: Callable[[int, Held], Coroutine[Any, Any, T]]) -> T:
        """Try until it works, the time is up or the attempts are used.

        Parameters:
            attempt: gets its number, and a list for the connection that it holds, which ``abandon`` needs.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limit_seconds
        cause: BaseException | None = None
        for number in range(ATTEMPTS_MAX):
            if number:
                await asyncio.sleep(_PAUSE_SECONDS * number)
            held: Held = []
            task = self._spawn(attempt(number, held))
            await asyncio.wait({task}, timeout=max(0.0, deadline - loop.time()))
            if not task.done():
                abandon(task, held)
                cause = None
                break
            try:
                return task.result()
            except DBAPIError as error:
                # Later it may be our own lost transaction that keeps the lock, so that nobody knows what was done.
                if isinstance(error.orig, LockNotAvailable) and not number:
                    raise Overloaded("another change of the same thing takes too long") from None
                if not _is_passing(error):
                    raise
                cause = error.orig
        raise Unavailable("the database cannot be reached") from cause


async def _driver(connection: AsyncConnection) -> psycopg.AsyncConnection[Any]:
    """The driver's connection under one of SQLAlchemy's."""
    return (await connection.get_raw_connection()).driver_connection  # type: ignore[return-value]


def abandon(task: asyncio.Task[Any], held: Held) -> None:
    """Cut a task's connection and let it go; nobody waits for it any more.

    Whoever waits at a cut connection hears at once that it is lost, however silent the server is, and ends. It is not
    closed here: libpq would free what a statement under way still reads, and that kills the process; and that statement
    may belong to a task that cannot be cancelled, since SQLAlchemy shields its rollbacks.
    """
    for connection in held:
        with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)
    if not held:
        task.cancel()
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


def _is_passing(error: DBAPIError) -> bool:
    """Whether another attempt may work: the connection was lost, a deadlock was broken, the server is going away."""
    if isinstance(error, OperationalError | InterfaceError):
        return True
    return error.connection_invalidated or (
        isinstance(error, InternalError) and isinstance(error.orig, ReadOnlySqlTransaction)
    )
