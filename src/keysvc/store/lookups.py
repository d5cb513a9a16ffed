"""The cold path of Verify: look-ups by secret id, gathered, all of a statement in one snapshot.

Misses do not gather by themselves: the event loop hands out one call at a time, so the first would always travel alone.
One task empties one set of waiting ids. While it is busy, others collect; then they all go in the next statement, after
a short window. When it is idle a look-up leaves at once. Nobody joins a statement that has been sent: its snapshot may
be from before the call began.

It has a connection of its own, without SQLAlchemy: per key that costs a fifth.
"""

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from keysvc.core.address import pack_ranges, parse_range
from keysvc.core.errors import Overloaded
from keysvc.core.keystring import Environment
from keysvc.core.revision import Revision
from keysvc.core.verdict import About, Profile, Record, Snapshot, WorkspaceRecord, refusal_of
from keysvc.store.line import Line

CROWD: Final = 512
CROWD_SECONDS: Final = 0.1
"""Where so many wait, and the first of them for so long, more comes in than can be answered: whoever comes then is
better off to hear that at once. A crowd that has just come may be one batch."""

WAITING_MAX: Final = 10_000
"""Never do more wait."""

BATCH_MAX: Final = 128
"""Of one statement: while its rows are read, nothing else is answered."""

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
        describe: writes what answers tell of a key.
        limit_seconds: how long a statement may take, connecting included, before all who wait are refused.
        gather_seconds: how long look-ups collect while it is busy.
    """

    def __init__(
        self, url: str, describe: Callable[[About], bytes], *, limit_seconds: float, gather_seconds: float = 0.002
    ) -> None:
        self._describe = describe
        self._line = Line(url, "keysvc verify", limit_seconds)
        self._gather_seconds = gather_seconds
        self._waiting: dict[str, tuple[float, asyncio.Future[Snapshot]]] = {}
        """Since when, and who waits for it."""
        self._drain: asyncio.Task[None] | None = None

    async def find(self, secret_id: str) -> Snapshot:
        """Read one secret with its key and workspace, in a statement sent after this call began.

        Raises:
            Unavailable: the database did not answer in time.
            Overloaded: too many look-ups are waiting.
        """
        _, future = self._waiting.get(secret_id, (0, None))
        if future is None:
            now = asyncio.get_running_loop().time()
            if len(self._waiting) >= CROWD and self._is_crowded(now):
                raise Overloaded("too many look-ups are waiting")
            future = asyncio.get_running_loop().create_future()
            self._waiting[secret_id] = now, future
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
                ids = list(islice(self._waiting, BATCH_MAX))
                batch = {secret_id: self._waiting.pop(secret_id) for secret_id in ids}
                try:
                    snapshots = await self._read(ids)
                except Exception as error:  # noqa: BLE001 (each waiting call raises it)
                    # All who wait, not this batch alone: the next statement would make them wait as long again.
                    for _, future in (*batch.values(), *self._waiting.values()):
                        future.set_exception(error)
                        future.exception()  # seen, even if its call has been cancelled
                    self._waiting.clear()
                    return
                for secret_id, (_, future) in batch.items():
                    future.set_result(snapshots[secret_id])
                if len(ids) > 1 or 0 < len(self._waiting) < BATCH_MAX:
                    await asyncio.sleep(self._gather_seconds if len(self._waiting) < BATCH_MAX else 0)
        finally:
            self._drain = None

    def _is_crowded(self, now: float) -> bool:
        """Whether there are so many that one more would wait for too long."""
        since, _ = next(iter(self._waiting.values()))
        return now - since > CROWD_SECONDS or len(self._waiting) >= WAITING_MAX

    async def _read(self, ids: list[str]) -> dict[str, Snapshot]:
        rows = await self._line.ask(_SELECT, (ids,))
        nothing = Snapshot(Revision(*rows[0][:2]), rows[0][2])
        found = {row[3]: _snapshot_of(row, self._describe) for row in rows if row[3] is not None}
        return {secret_id: found.get(secret_id, nothing) for secret_id in ids}


def _snapshot_of(row: tuple[Any, ...], describe: Callable[[About], bytes]) -> Snapshot:
    """A row of ``_SELECT`` that found something."""
    epoch, seq, at, secret_id, digest, pepper, retire_time, key_id, environment, owner, role = row[:11]
    scopes, ip_allowlist, metadata, workspaces, expire_time, suspended, changed_seq = row[11:18]
    # For secret and key: the change that revoked it, and whether that is still to be confirmed.
    revocations = [is_open for revoke_seq, is_open in (row[18:20], row[20:22]) if revoke_seq is not None]
    workspace_id, name, workspace_suspended, caps, roles, workspace_changed_seq = row[22:]
    is_revoking = bool(revocations) and all(revocations)
    refusal = refusal_of(revoking=is_revoking, revoked=not all(revocations), suspended=suspended)
    home = WorkspaceRecord(workspace_id, name, workspace_suspended, tuple(caps), roles, workspace_changed_seq)
    profile = Profile(home, Environment(environment), role, tuple(scopes), tuple(workspaces))
    about = About(key_id, secret_id, name, profile.environment, owner, role, metadata, expire_time, retire_time)
    record = Record(
        profile,
        key_id.int,
        secret_id,
        about=describe(about),
        ip_ranges=pack_ranges(map(parse_range, ip_allowlist)),
        expire_time=expire_time,
        retire_time=retire_time,
        refusal=refusal,
        changed_seq=changed_seq,
    )
    return Snapshot(Revision(epoch, seq), at, record, digest, pepper)
