"""The cold path of Verify: look-ups by secret id, gathered, all of a statement in one snapshot.

Misses do not gather by themselves: the event loop hands out one call at a time, so the first would always travel alone.
One task empties one set of waiting ids. While it is busy, others collect; then they all go in the next statement, after
a short window. When it is idle a look-up leaves at once. Nobody joins a statement that has been sent: its snapshot may
be from before the call began.

It has a connection of its own, without SQLAlchemy: per key that costs a fifth.
"""

import asyncio
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow

from keysvc.core.address import parse_range
from keysvc.core.errors import Overloaded, Unavailable
from keysvc.core.keystring import Environment
from keysvc.core.revision import Revision
from keysvc.core.scope import granted
from keysvc.core.verdict import Record, Snapshot
from keysvc.store.database import Reachability, abandon, connect_arguments

WAITING_MAX: Final = 10_000
BATCH_MAX: Final = 1_000

_APPLICATION_NAME: Final = "keysvc verify"

_SELECT = """
SELECT c.epoch, c.seq, clock_timestamp(), s.id, s.digest, s.pepper, s.retire_time,
       s.revoke_time IS NOT NULL OR k.revoke_time IS NOT NULL, k.id, k.environment, k.owner, k.role, k.scopes,
       k.ip_allowlist, k.metadata, k.workspaces, k.expire_time, k.suspended, w.name, w.suspended, w.allowed_scopes,
       w.roles
  FROM revocation_clock c
  LEFT JOIN (secret s JOIN key k ON k.id = s.key_id JOIN workspace w ON w.id = k.workspace_id) ON s.id = ANY(%s)
"""


class Lookups:
    """Finds what Verify needs about a secret, as of a moment after the call began.

    Parameters:
        url: whatever libpq takes: ``postgresql://…``.
        limit_seconds: how long a statement may take, connecting included, before all who wait are refused.
        gather_seconds: how long look-ups collect while it is busy.
    """

    def __init__(self, url: str, *, limit_seconds: float, gather_seconds: float = 0.002) -> None:
        self._url = url
        self._limit_seconds = limit_seconds
        self._gather_seconds = gather_seconds
        self._waiting: dict[str, asyncio.Future[Snapshot]] = {}
        self._drain: asyncio.Task[None] | None = None
        self._connection: psycopg.AsyncConnection[TupleRow] | None = None
        self._reachability = Reachability(_APPLICATION_NAME)

    async def find(self, secret_id: str) -> Snapshot:
        """Read one secret with its key and workspace, in a statement sent after this call began.

        Raises:
            Unavailable: the database did not answer in time.
            Overloaded: too many look-ups are waiting.
        """
        future = self._waiting.get(secret_id)
        if future is None:
            if len(self._waiting) >= WAITING_MAX:
                raise Overloaded("too many look-ups are waiting")
            future = self._waiting[secret_id] = asyncio.get_running_loop().create_future()
        if self._drain is None:
            self._drain = asyncio.create_task(self._empty())
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Let the statement under way finish, then close the connection."""
        if self._drain is not None:
            await asyncio.wait({self._drain})
        if self._connection is not None:
            await self._connection.close()

    async def _empty(self) -> None:
        """Send statements until nobody waits."""
        try:
            while self._waiting:
                ids = list(self._waiting)[:BATCH_MAX]
                batch = {secret_id: self._waiting.pop(secret_id) for secret_id in ids}
                try:
                    snapshots = await self._read(ids)
                except Exception as error:  # noqa: BLE001 (each waiting call raises it)
                    # All who wait, not this batch alone: the next statement would make them wait as long again.
                    for future in (*batch.values(), *self._waiting.values()):
                        future.set_exception(error)
                        future.exception()  # seen, even if its call has been cancelled
                    self._waiting.clear()
                    return
                for secret_id, future in batch.items():
                    future.set_result(snapshots[secret_id])
                if self._waiting or len(ids) > 1:
                    await asyncio.sleep(self._gather_seconds)
        finally:
            self._drain = None

    async def _read(self, ids: list[str]) -> dict[str, Snapshot]:
        """One statement within the limit; a connection that was lost while idle is replaced once."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limit_seconds
        cause: psycopg.Error | None = None
        for is_last in (False, True):
            task = loop.create_task(self._select(ids))
            await asyncio.wait({task}, timeout=deadline - loop.time())
            if not task.done():
                abandon(task, [self._connection] if self._connection else [])
                self._connection = None
                cause = None
                break
            try:
                snapshots = task.result()
            except psycopg.Error as error:
                # Not the lost connection alone: one whose prepared statement has become invalid would stay useless.
                if self._connection is not None:
                    self._connection.pgconn.finish()
                    self._connection = None
                cause = error
                if is_last and not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
                    raise
            else:
                self._reachability.found()
                return snapshots
        self._reachability.lost(cause)
        raise Unavailable("the database cannot be reached")

    async def _select(self, ids: list[str]) -> dict[str, Snapshot]:
        """Connect if need be, and ask."""
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(
                self._url,
                autocommit=True,
                prepare_threshold=0,
                **connect_arguments(_APPLICATION_NAME, self._limit_seconds),
            )
        cursor = self._connection.cursor(binary=True)
        await cursor.execute(_SELECT, (ids,))
        rows = await cursor.fetchall()
        nothing = Snapshot(Revision(*rows[0][:2]), rows[0][2])
        found = {row[3]: _snapshot_of(row) for row in rows if row[3] is not None}
        return {secret_id: found.get(secret_id, nothing) for secret_id in ids}


def _snapshot_of(row: tuple[Any, ...]) -> Snapshot:
    """A row of ``_SELECT`` that found something."""
    epoch, seq, at, secret_id, digest, pepper, retire_time, revoked, key_id, environment, owner, role, scopes = row[:13]
    ip_allowlist, metadata, workspaces, expire_time, suspended, name, workspace_suspended, allowed, roles = row[13:]
    record = Record(
        key_id=key_id,
        secret_id=secret_id,
        workspace=name,
        environment=Environment(environment),
        owner=owner,
        role=role,
        grants=granted(role, scopes, roles),
        caps=tuple(allowed),
        ip_allowlist=tuple(map(parse_range, ip_allowlist)),
        metadata=metadata,
        workspaces=tuple(workspaces),
        expire_time=expire_time,
        retire_time=retire_time,
        revoked=revoked,
        suspended=suspended,
        workspace_suspended=workspace_suspended,
    )
    return Snapshot(Revision(epoch, seq), at, record, digest, pepper)
