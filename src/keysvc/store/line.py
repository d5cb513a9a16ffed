"""One connection of one purpose: statements one after the other, each a transaction of its own, without SQLAlchemy.

What must not wait for anything else has a line of its own: the look-ups of Verify, the renewals of the lease.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from keysvc.core.errors import Unavailable
from keysvc.store.database import Reachability, abandon, connect_arguments


class Line:
    """One connection, replaced when it is lost.

    Parameters:
        url: whatever libpq takes: ``postgresql://…``.
        name: what operators see in ``pg_stat_activity``.
        limit_seconds: how long a statement may take, connecting included.
    """

    def __init__(self, url: str, name: str, limit_seconds: float) -> None:
        self._url = url
        self._name = name
        self._limit_seconds = limit_seconds
        self._connection: psycopg.AsyncConnection[TupleRow] | None = None
        self._turn = asyncio.Lock()
        self._reachability = Reachability(name)
        self.session = 0
        """Changes with every connection."""

    async def ask(
        self,
        statement: str,
        values: Sequence[Any] | Mapping[str, Any] = (),
        *,
        limit_seconds: float | None = None,
        is_repeatable: bool = True,
    ) -> list[TupleRow]:
        """Execute a statement in a transaction of its own, begun after this call; its rows.

        Parameters:
            limit_seconds: where it is not that of the line.
            is_repeatable: if the connection turns out to be lost, it may be executed again on another one.

        Raises:
            Unavailable: no answer came in time. The connection is cut, so that none can come later.
        """
        async with self._turn:
            return await self._ask(statement, values, limit_seconds or self._limit_seconds, 2 if is_repeatable else 1)

    async def close(self) -> None:
        """Let the statement under way finish, then close the connection."""
        async with self._turn:
            if self._connection is not None:
                await self._connection.close()
                self._connection = None

    async def _ask(self, statement: str, values: Any, limit_seconds: float, attempts: int) -> list[TupleRow]:  # noqa: ANN401
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_seconds
        cause: psycopg.Error | None = None
        for attempt in range(1, attempts + 1):
            task = loop.create_task(self._execute(statement, values))
            try:
                await asyncio.wait({task}, timeout=deadline - loop.time())
            finally:
                if not task.done():
                    self._abandon(task)
            if not task.done():
                cause = None
                break
            try:
                rows = task.result()
            except psycopg.Error as error:
                # Not the lost connection alone: one whose prepared statement has become invalid would stay useless.
                if self._connection is not None:
                    self._connection.pgconn.finish()
                    self._connection = None
                cause = error
                if attempt == attempts and not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
                    raise
            else:
                self._reachability.found()
                return rows
        self._reachability.lost(cause)
        raise Unavailable("the database cannot be reached") from cause

    def _abandon(self, task: "asyncio.Task[list[TupleRow]]") -> None:
        """Cut the connection under a statement, and close it once that has noticed."""
        connection, self._connection = self._connection, None
        abandon(task, [connection] if connection else [])
        if connection is not None:
            task.add_done_callback(lambda _: connection.pgconn.finish())

    async def _execute(self, statement: str, values: Any) -> list[TupleRow]:  # noqa: ANN401
        """Connect if need be, and execute."""
        if self._connection is None:
            self.session += 1
            self._connection = await psycopg.AsyncConnection.connect(
                self._url,
                autocommit=True,
                prepare_threshold=0,
                **connect_arguments(self._name, self._limit_seconds),
            )
        cursor = self._connection.cursor(binary=True)
        await cursor.execute(statement, values)
        return await cursor.fetchall() if cursor.description else []
