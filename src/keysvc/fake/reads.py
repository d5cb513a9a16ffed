"""Reads of the fake: what Verify looks up, lists, and who has acknowledged a change."""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from keysvc.core.address import pack_ranges, parse_range
from keysvc.core.audit import AuditEvent
from keysvc.core.errors import NotBuilt
from keysvc.core.key import Key, Revocation, Secret
from keysvc.core.listing import AuditFilter, KeyFilter, Listed, Position
from keysvc.core.revision import Revision
from keysvc.core.verdict import About, Profile, Record, Snapshot, WorkspaceRecord, refusal_of
from keysvc.core.workspace import Workspace
from keysvc.fake.changes import TIMELINE
from keysvc.fake.state import State
from keysvc.lease.news import Census, Log, Member


class Lookups:
    """Finds what Verify needs.

    Parameters:
        describe: writes what answers tell of a key.
    """

    def __init__(self, state: State, describe: Callable[[About], bytes]) -> None:
        self._state = state
        self._describe = describe

    async def find(self, secret_id: str) -> Snapshot:
        """One secret with its key and workspace."""
        nothing = Snapshot(self._state.revision(self._state.seq), self._state.now())
        if secret_id not in self._state.proofs:
            return nothing
        key_id, proof = self._state.proofs[secret_id]
        key = self._state.keys[key_id]
        secret = key.secret(secret_id)
        if secret is None:
            return nothing
        record = self._record(self._state.workspaces[key.workspace], key, secret)
        return replace(nothing, record=record, digest=proof.digest, pepper=proof.pepper)

    def _record(self, workspace: Workspace, key: Key, secret: Secret) -> Record:
        home = WorkspaceRecord(
            workspace.id,
            workspace.name,
            workspace.suspended,
            workspace.allowed_scopes,
            workspace.roles,
            workspace.revision.seq,
        )
        about = About(
            str(key.id),
            secret.id,
            key.workspace,
            key.environment,
            key.owner,
            key.role,
            key.metadata,
            key.expire_time,
            secret.retire_time,
        )
        revocations = [each for each in (secret.revocation, key.revocation) if each is not None]
        return Record(
            Profile(home, key.environment, key.role, key.scopes, key.workspaces),
            key.id.int,
            secret.id,
            about=self._describe(about),
            ip_ranges=pack_ranges(map(parse_range, key.ip_allowlist)),
            expire_time=key.expire_time,
            retire_time=secret.retire_time,
            refusal=_refusal(revocations, suspended=key.suspended),
            changed_seq=key.revision.seq,
        )


def _refusal(revocations: list[Revocation], *, suspended: bool) -> str:
    """The refusal that the state of key and secret gives."""
    are_final = [each.final for each in revocations]
    return refusal_of(revoking=bool(are_final) and not any(are_final), revoked=any(are_final), suspended=suspended)


class Listings:
    """Reads for people and tools."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def find_key(self, key_id: UUID) -> Key | None:
        """A key."""
        return self._state.key(key_id)

    async def list_keys(self, asked: KeyFilter, after: Position | None, limit: int) -> Listed:
        """Keys, newest first."""
        if asked.idle_since is not None:
            raise NotBuilt("FakeKeysvc has no idle_since in List: it counts no usage")
        now = self._state.now()
        keys = [each for key in self._state.keys.values() if _is_asked(each := replace(key, at=now), asked)]
        keys.sort(key=lambda key: (key.create_time, key.id), reverse=True)
        page = [key for key in keys if after is None or (key.create_time, key.id) < (after.time, after.id)]
        if len(page) <= limit:
            return Listed(tuple(page), None)
        last = page[limit - 1]
        return Listed(tuple(page[:limit]), Position(last.create_time, last.id))

    async def find_workspace(self, name: str) -> Workspace | None:
        """A workspace."""
        return self._state.workspaces.get(name)

    async def list_workspaces(
        self, names: tuple[str, ...] | None, organization: str | None, after: str | None, limit: int
    ) -> list[Workspace]:
        """Workspaces by name."""
        found = [
            workspace
            for name, workspace in sorted(self._state.workspaces.items())
            if (names is None or name in names)
            and (organization is None or name.startswith(f"{organization}/"))
            and (after is None or name > after)
        ]
        return found[:limit]

    async def list_audit_events(
        self, asked: AuditFilter, after: Position | None, limit: int
    ) -> list[tuple[AuditEvent, Revision | None]]:
        """Audit events, newest first, with their revisions."""
        events = [each for each in self._state.events if _is_told(each, asked)]
        events.sort(key=lambda event: (event.time, event.stamp.event_id), reverse=True)
        page = [each for each in events if after is None or (each.time, each.stamp.event_id) < (after.time, after.id)]
        return [(each, None if each.seq is None else self._state.revision(each.seq)) for each in page[:limit]]


def _is_asked(key: Key, asked: KeyFilter) -> bool:
    """Whether a key is what a list of keys asks for."""
    for name in ("state", "environment", "owner", "role"):
        wanted = getattr(asked, name)
        if wanted is not None and getattr(key, name) != wanted:
            return False
    return (
        (asked.workspaces is None or key.workspace in asked.workspaces)
        and (asked.tag is None or asked.tag in key.tags)
        and (asked.hint_prefix is None or any(each.hint.startswith(asked.hint_prefix) for each in key.secrets))
        and (asked.display_name_prefix is None or key.display_name.startswith(asked.display_name_prefix))
        and (asked.expire_before is None or _is_before(key.expire_time, asked.expire_before))
    )


def _is_before(time: datetime | None, end: datetime) -> bool:
    return time is not None and time < end


def _is_told(event: AuditEvent, asked: AuditFilter) -> bool:
    """Whether an event is what a list of audit events asks for."""
    return (
        (asked.workspaces is None or event.workspace in asked.workspaces)
        and (asked.key_id is None or event.key_id == asked.key_id)
        and (asked.actor is None or event.stamp.actor == asked.actor)
        and (asked.method is None or event.stamp.method == asked.method)
        and (asked.start_time is None or event.time >= asked.start_time)
        and (asked.end_time is None or event.time < asked.end_time)
    )


class Registry:
    """Who must have acknowledged a change: nobody, since nobody answers from memory."""

    _SESSION: Final = 1

    def __init__(self, state: State) -> None:
        self._state = state

    async def wake(self, seq: int) -> None:
        """Tell nobody."""

    async def count(self, limit_seconds: float) -> Census:  # noqa: ARG002 (it takes no time)
        """No members."""
        log = Log(self._state.epoch, TIMELINE, self._state.seq, self._state.now())
        return Census(log, 0, (), self._SESSION)

    async def has_change(self, revision: Revision, at: datetime) -> bool:  # noqa: ARG002 (nothing is ever lost)
        """Whether the log still has a change."""
        return revision.epoch == self._state.epoch and revision.seq <= self._state.seq

    async def mark_final(self, seqs: Collection[int]) -> None:
        """Nobody answers any more as if some changes had not been made."""
        for key_id, key in self._state.keys.items():
            for seq in seqs:
                key = key.with_final(self._state.revision(seq))  # noqa: PLW2901 (one after the other)
            self._state.keys[key_id] = key

    async def collect(self, member: Member) -> None:
        """Delete nobody."""

    async def find_open(self) -> Collection[int]:
        """Whoever makes a change marks it."""
        return ()
