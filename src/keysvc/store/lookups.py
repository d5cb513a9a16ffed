"""The cold path of Verify: look-ups by secret id, gathered, all of a statement in one snapshot.

Misses do not gather by themselves: the event loop hands out one call at a time, so the first would always travel alone.
One task empties one set of waiting ids. While it is busy, others collect; then they all go in the next statement, after
a short window. When it is idle a look-up leaves at once. Nobody joins a statement that has been sent: its snapshot may
be from before the call began.

It has a connection of its own, without SQLAlchemy: per key that costs a fifth.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple
from uuid import UUID

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
SELECT c.epoch::text, c.seq, clock_timestamp(), s.id, s.digest, s.pepper, s.retire_time, k.id::text, k.owner,
       to_json(k.ip_allowlist)::text, k.metadata::text, k.expire_time, k.suspended, k.seq,
       s.revoke_seq, EXISTS (SELECT FROM key_change WHERE seq = s.revoke_seq AND NOT final),
       k.revoke_seq, EXISTS (SELECT FROM key_change WHERE seq = k.revoke_seq AND NOT final),
       json_build_array(k.environment, k.role, k.scopes, k.workspaces,
                        w.id, w.name, w.suspended, w.allowed_scopes, w.roles, w.seq)::text
  FROM revocation_clock c
  LEFT JOIN (secret s
             JOIN pepper p ON p.fingerprint = s.pepper AND p.retire_time IS NULL
             JOIN key k ON k.id = s.key_id
             JOIN workspace w ON w.id = k.workspace_id) ON s.id = ANY(%s)
"""
"""What many rows have in common is one text in each: it is read once, and found again by itself."""


class _Waiting(NamedTuple):
    """A secret that is to be looked up.

    Parameters:
        since: when, by the loop's clock.
        calls: who waits for it.
    """

    since: float
    calls: "list[asyncio.Future[Snapshot]]"


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
        self._waiting: dict[str, _Waiting] = {}
        self._drain: asyncio.Task[None] | None = None

    async def find(self, secret_id: str) -> Snapshot:
        """Read one secret with its key and workspace, in a statement sent after this call began.

        Raises:
            Unavailable: the database did not answer in time.
            Overloaded: too many look-ups are waiting.
        """
        loop = asyncio.get_running_loop()
        waiting = self._waiting.get(secret_id)
        if waiting is None:
            now = loop.time()
            if len(self._waiting) >= CROWD and self._is_crowded(now):
                raise Overloaded("too many look-ups are waiting")
            waiting = self._waiting[secret_id] = _Waiting(now, [])
        # One for each call: who goes away takes nobody along.
        future: asyncio.Future[Snapshot] = loop.create_future()
        waiting.calls.append(future)
        if self._drain is None:
            self._drain = loop.create_task(self._empty())
        return await future

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
                    waiting = [*batch.values(), *self._waiting.values()]
                    self._waiting.clear()
                    for call in _calls(waiting):
                        call.set_exception(error)
                        call.exception()  # seen, even if the call is cancelled before it hears of it
                    return
                for secret_id, each in batch.items():
                    for call in _calls([each]):
                        call.set_result(snapshots[secret_id])
                if len(ids) > 1 or 0 < len(self._waiting) < BATCH_MAX:
                    await asyncio.sleep(self._gather_seconds if len(self._waiting) < BATCH_MAX else 0)
        finally:
            self._drain = None

    def _is_crowded(self, now: float) -> bool:
        """Whether there are so many that one more would wait for too long."""
        first = next(iter(self._waiting.values()))
        return now - first.since > CROWD_SECONDS or len(self._waiting) >= WAITING_MAX

    async def _read(self, ids: list[str]) -> dict[str, Snapshot]:
        rows = await self._line.ask(_SELECT, (ids,))
        nothing = Snapshot(_revision_of(*rows[0][:2]), rows[0][2])
        found = {row[3]: _snapshot_of(row, self._describe) for row in rows if row[3] is not None}
        return {secret_id: found.get(secret_id, nothing) for secret_id in ids}


def _calls(waiting: "Iterable[_Waiting]") -> "Iterator[asyncio.Future[Snapshot]]":
    """Those who still wait."""
    return (call for each in waiting for call in each.calls if not call.done())


def _snapshot_of(row: tuple[Any, ...], describe: Callable[[About], bytes]) -> Snapshot:
    """A row of ``_SELECT`` that found something."""
    epoch, seq, at, secret_id, digest, pepper, retire_time, key_id, owner, ip_allowlist = row[:10]
    metadata, expire_time, suspended, changed_seq = row[10:14]
    # For secret and key: the change that revoked it, and whether that is still to be confirmed.
    revocations = [is_open for revoke_seq, is_open in (row[14:16], row[16:18]) if revoke_seq is not None]
    is_revoking = bool(revocations) and all(revocations)
    refusal = refusal_of(revoking=is_revoking, revoked=not all(revocations), suspended=suspended)
    profile = _profile_of(row[18])
    about = About(
        key_id,
        secret_id,
        profile.home.name,
        profile.environment,
        owner,
        profile.role,
        json.loads(metadata),
        expire_time,
        retire_time,
    )
    record = Record(
        profile,
        int(key_id.replace("-", ""), 16),
        secret_id,
        about=describe(about),
        ip_ranges=_ip_ranges_of(ip_allowlist),
        expire_time=expire_time,
        retire_time=retire_time,
        refusal=refusal,
        changed_seq=changed_seq,
    )
    return Snapshot(_revision_of(epoch, seq), at, record, digest, pepper)


@lru_cache(maxsize=256)
def _revision_of(epoch: str, seq: int) -> Revision:
    return Revision(UUID(epoch), seq)


@lru_cache(maxsize=4096)
def _profile_of(text: str) -> Profile:
    environment, role, scopes, workspaces, workspace_id, name, suspended, caps, roles, changed_seq = json.loads(text)
    home = WorkspaceRecord(UUID(workspace_id), name, suspended, tuple(caps), roles, changed_seq)
    return Profile(home, Environment(environment), role, tuple(scopes), tuple(workspaces))


@lru_cache(maxsize=4096)
def _ip_ranges_of(text: str) -> bytes:
    return pack_ranges(map(parse_range, json.loads(text)))
