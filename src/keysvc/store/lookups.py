"""The cold path of Verify: look-ups by secret id, gathered, all of a statement in one snapshot.

Misses do not gather by themselves: the event loop hands out one call at a time, so the first would always travel alone.
One task empties one set of waiting ids. While it is busy, others collect; then they all go in the next statement, after
a short window. When it is idle a look-up leaves at once. Nobody joins a statement that has been sent: its snapshot may
be from before the call began.

It has a connection of its own, without SQLAlchemy: per key that costs a fifth.
"""

import asyncio
from typing import Any, Final

from keysvc.core.address import parse_range
from keysvc.core.errors import Overloaded
from keysvc.core.keystring import Environment
from keysvc.core.revision import Revision
from keysvc.core.verdict import Record, Snapshot, WorkspaceRecord
from keysvc.store.line import Line

WAITING_MAX: Final = 10_000
BATCH_MAX: Final = 1_000

_SELECT = """
SELECT c.epoch, c.seq, clock_timestamp(), s.id, s.digest, s.pepper, s.retire_time, k.id, k.environment, k.owner, k.role,
       k.scopes, k.ip_allowlist, k.metadata, k.workspaces, k.expire_time, k.suspended, k.seq,
       s.revoke_seq, EXISTS (SELECT FROM key_change WHERE seq = s.revoke_seq AND NOT final),
       k.revoke_seq, EXISTS (SELECT FROM key_change WHERE seq = k.revoke_seq AND NOT final),
       w.id, w.name, w.suspended, w.allowed_scopes, w.roles, w.seq
  FROM revocation_clock c
  LEFT JOIN (secret s
             JOIN pepper p ON p.fingerprint = s.pepper AND p.retire_time IS NULL
             JOIN key k ON k.id = s.key_id
             JOIN workspace w ON w.id = k.workspace_id) ON s.id = ANY(%s)
"""


class Lookups:
    """Finds what Verify needs about a secret, as of a moment after the call began.

    Parameters:
        url: whatever libpq takes: ``postgresql://…``.
        limit_seconds: how long a statement may take, connecting included, before all who wait are refused.
        gather_seconds: how long look-ups collect while it is busy.
    """

    def __init__(self, url: str, *, limit_seconds: float, gather_seconds: float = 0.002) -> None:
        self._line = Line(url, "keysvc verify", limit_seconds)
        self._gather_seconds = gather_seconds
        self._waiting: dict[str, asyncio.Future[Snapshot]] = {}
        self._drain: asyncio.Task[None] | None = None

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
        await self._line.close()

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
        rows = await self._line.ask(_SELECT, (ids,))
        nothing = Snapshot(Revision(*rows[0][:2]), rows[0][2])
        found = {row[3]: _snapshot_of(row) for row in rows if row[3] is not None}
        return {secret_id: found.get(secret_id, nothing) for secret_id in ids}


def _snapshot_of(row: tuple[Any, ...]) -> Snapshot:
    """A row of ``_SELECT`` that found something."""
    epoch, seq, at, secret_id, digest, pepper, retire_time, key_id, environment, owner, role = row[:11]
    scopes, ip_allowlist, metadata, workspaces, expire_time, suspended, changed_seq = row[11:18]
    # For secret and key: the change that revoked it, and whether that is still to be confirmed.
    revocations = [is_open for revoke_seq, is_open in (row[18:20], row[20:22]) if revoke_seq is not None]
    workspace_id, name, workspace_suspended, caps, roles, workspace_changed_seq = row[22:]
    home = WorkspaceRecord(workspace_id, name, workspace_suspended, tuple(caps), roles, workspace_changed_seq)
    record = Record(
        key_id=key_id,
        secret_id=secret_id,
        home=home,
        environment=Environment(environment),
        owner=owner,
        role=role,
        scopes=tuple(scopes),
        ip_allowlist=tuple(map(parse_range, ip_allowlist)),
        metadata=metadata,
        workspaces=tuple(workspaces),
        expire_time=expire_time,
        retire_time=retire_time,
        revoking=bool(revocations) and all(revocations),
        revoked=not all(revocations),
        suspended=suspended,
        changed_seq=changed_seq,
    )
    return Snapshot(Revision(epoch, seq), at, record, digest, pepper)
