"""One attempt of one change: what it may lock, read and save.

Order of locks, everywhere: workspace row, key row, the callers' lock, the clock last.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, bindparam, exists, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from keysvc.core import key as key_rules
from keysvc.core import workspace as workspace_rules
from keysvc.core.audit import Stamp, changed_fields, describe_key, describe_workspace, set_fields
from keysvc.core.key import Key, MintedFor, SealedCopy, Secret
from keysvc.core.pepper import PepperState, Proof
from keysvc.core.restriction import is_key_restricted, is_workspace_restricted
from keysvc.core.revision import Revision
from keysvc.core.workspace import SYSTEM_WORKSPACE, Workspace
from keysvc.lease.barrier import Commit
from keysvc.store.closing import LogEntry, Write, closing_statement
from keysvc.store.rows import (
    CLOCK_COLUMNS,
    EPOCH,
    KEY_COLUMNS,
    KEY_SOURCE,
    WORKSPACE_COLUMNS,
    key_values,
    keys_of,
    secret_values,
    workspace_of,
    workspace_values,
)
from keysvc.store.schema import (
    audit_event,
    key,
    key_activity,
    lease_member,
    pepper,
    request,
    revocation_clock,
    secret,
    workspace,
)

D = TypeVar("D", Key, Secret)

CALLERS_LOCK: Final = 0x6B65797376630001
"""Advisory lock held while the last usable operator key is looked for, so that two cannot be revoked at once."""


PEPPERS_LOCK: Final = 0x6B65797376630003
"""Advisory lock held while it is decided which pepper signs, or is accepted."""

_EVERYTHING: Final = (SYSTEM_WORKSPACE, None, None)
"""The target of a change that concerns the whole deployment."""


class AlreadyCommittedError(Exception):
    """An earlier attempt of this transaction was committed, although its answer was lost."""


class Transaction:
    """One attempt of one change. Lock first; what was locked decides; then save or insert one thing.

    Parameters:
        connection: in a transaction that the owner commits.
        stamp: who makes the change.
        timeline: SQL of the database's timeline.
        is_first: no attempt has been made before.
    """

    def __init__(self, connection: AsyncConnection, stamp: Stamp, *, timeline: str, is_first: bool) -> None:
        self._connection = connection
        self._stamp = stamp
        self._timeline = timeline
        self._is_first = is_first
        self._commit: Commit | None = None
        self._clock: tuple[datetime, UUID] | None = None

    @property
    def at(self) -> datetime:
        """The database's clock when it was last read, by locking or by ``read_clock``."""
        return self._read_before()[0]

    @property
    def start(self) -> Revision:
        """The revision of what has not changed since its creation."""
        return Revision(self._read_before()[1], 0)

    def _read_before(self) -> tuple[datetime, UUID]:
        if self._clock is None:
            raise RuntimeError("a change has no time before it has locked something or read the clock")
        return self._clock

    async def read_clock(self) -> None:
        """Read the database's clock, for a creation that locks nothing."""
        row = (await self._connection.execute(select(*CLOCK_COLUMNS))).one()
        self._clock = row.at, row.epoch

    async def read_commit(self) -> Commit:
        """Where the change is committed; with revision 0, if Verify's answers do not depend on anything in it."""
        if self._commit is None:
            timeline: ColumnElement[str] = literal_column(self._timeline)
            clock = select(revocation_clock.c.epoch, timeline, revocation_clock.c.lease_ms_max, func.clock_timestamp())
            epoch, *rest = (await self._connection.execute(clock)).one()
            self._commit = Commit(Revision(epoch, 0), *rest)
        return self._commit

    async def settle(self) -> None:
        """Raise ``AlreadyCommittedError`` if an earlier attempt was committed."""
        if self._is_first:
            return
        query = select(exists().where(audit_event.c.id == self._stamp.event_id))
        if (await self._connection.execute(query)).scalar_one():
            raise AlreadyCommittedError

    async def lock_workspace(self, name: str) -> Workspace | None:
        """Lock a workspace against every other change of it and against creation of keys in it."""
        return await self._locked_workspace(_WORKSPACE.with_for_update(), name)

    async def lock_workspace_for_key(self, name: str) -> Workspace | None:
        """Lock a workspace for the creation of a key.

        Creations in one workspace queue, so that each counts the keys of those before it. A shared lock for workspaces
        without a limit would be quicker, and would starve those who want to suspend a busy one: PostgreSQL lets new
        sharers in while an exclusive lock is waited for.
        """
        return await self._locked_workspace(_WORKSPACE_FOR_KEY, name)

    async def lock_key(self, key_id: UUID) -> Key | None:
        """Lock a key and its secrets."""
        row = (await self._connection.execute(_KEY_LOCKED, {"key_id": key_id})).one_or_none()
        await self.settle()
        if row is None:
            return None
        self._clock = row.at, row.epoch
        return (await keys_of(self._connection, [row]))[0]

    async def lock_callers(self) -> list[Key]:
        """Take the callers' lock; all keys of ``keysvc/system`` that are not revoked."""
        await self._connection.execute(select(func.pg_advisory_xact_lock(CALLERS_LOCK)))
        await self.settle()
        query = (
            select(*KEY_COLUMNS)
            .select_from(KEY_SOURCE)
            .where(workspace.c.name == SYSTEM_WORKSPACE, key.c.revoke_time.is_(None))
        )
        return await keys_of(self._connection, await self._connection.execute(query))

    async def count_keys(self, within: Workspace, at_most: int) -> int:
        """How many keys of a workspace are not revoked; counts no further than ``at_most``."""
        some = (
            select(key.c.id)
            .where(key.c.workspace_id == within.id, key.c.revoke_time.is_(None))
            .limit(at_most)
            .subquery()
        )
        return (await self._connection.execute(select(func.count()).select_from(some))).scalar_one()

    async def claim_request(self, digest: bytes, claim: MintedFor, repeatable: timedelta) -> MintedFor:
        """Claim a ``request_id`` for a new secret; answers the first claim, which is this one if there was none.

        A claim of a transaction that is still under way is waited for.

        Parameters:
            repeatable: after so long a first claim is answered without its sealed copy, even if that is still there.
        """
        row = upsert(request).values(
            digest=digest,
            body_digest=claim.body_digest,
            key_id=claim.key_id,
            secret_id=claim.secret_id,
            create_time=self.at,
            sealed=claim.sealed and claim.sealed.text,
            sealed_pepper=claim.sealed and claim.sealed.pepper,
        )
        if (await self._connection.execute(row.on_conflict_do_nothing().returning(request.c.digest))).one_or_none():
            return claim
        await self.settle()
        first = (await self._connection.execute(select(request).where(request.c.digest == digest))).one()
        is_late = first.sealed is None or first.create_time + repeatable <= self.at
        sealed = None if is_late else SealedCopy(first.sealed_pepper, first.sealed)
        return MintedFor(first.key_id, first.secret_id, first.body_digest, sealed)

    async def find_key(self, key_id: UUID) -> Key:
        """A key that exists."""
        return (await keys_of(self._connection, await self._connection.execute(_KEY, {"key_id": key_id})))[0]

    async def find_workspace(self, name: str) -> Workspace:
        """A workspace that exists."""
        return workspace_of((await self._connection.execute(_WORKSPACE, {"name": name})).one())

    async def insert_workspace(self, new: Workspace) -> Workspace | None:
        """Insert a workspace; None if the name is taken."""
        values = {"id": new.id, "name": new.name, "create_time": new.create_time, "seq": 0, **workspace_values(new)}
        row = upsert(workspace).values(values).on_conflict_do_nothing().returning(workspace.c.id)
        if (await self._connection.execute(row)).one_or_none() is None:
            await self.settle()
            return None
        await self._close([], entry=None, target=(new.name, None, None), after=set_fields(describe_workspace(new)))
        return new

    async def save_workspace(self, before: Workspace, after: Workspace) -> Workspace:
        """Save a locked workspace as it shall be from now on; answers it with version, time and revision."""
        after = replace(after, version=before.version + 1, update_time=self.at)
        judged = any(getattr(before, name) != getattr(after, name) for name in workspace_rules.VERIFY_DEPENDS_ON)
        was, is_now = changed_fields(describe_workspace(before), describe_workspace(after))
        revision = await self._close(
            [Write(workspace, workspace_values(after), after.id)],
            entry=LogEntry("workspaces", after.id, is_workspace_restricted(before, after)) if judged else None,
            target=(after.name, None, None),
            before=was,
            after=is_now,
        )
        return replace(after, revision=revision or after.revision)

    async def insert_key(self, new: Key, *, within: Workspace, proof: Proof) -> Key:
        """Insert a key with its one secret.

        It takes no revision: its id is random and new, so nobody can have remembered that it does not exist.
        """
        (minted,) = new.secrets
        row = {
            "id": new.id,
            "workspace_id": within.id,
            "environment": new.environment,
            "creator": new.creator,
            "create_time": new.create_time,
            "seq": 0,
            **key_values(new),
        }
        writes = [
            Write(key, row),
            Write(secret, {"seq": 0, **_secret_row(new.id, minted, proof)}),
            Write(key_activity, {"key_id": new.id, "active_time": new.create_time}),
        ]
        target = (new.workspace, new.id, None)
        await self._close(writes, entry=None, target=target, after=set_fields(describe_key(new)))
        return new

    async def save_key(
        self, before: Key, after: Key, *, secret_id: str | None = None, proof: Proof | None = None
    ) -> Key:
        """Save a locked key and its secrets as they shall be from now on; answers the key as saved.

        Parameters:
            secret_id: the secret that the change is about, for its audit event.
            proof: of the secret that ``after`` has and ``before`` has not.
        """
        after = replace(after, version=before.version + 1, update_time=self.at)
        known = {each.id: each for each in before.secrets}
        changed = [each for each in after.secrets if known.get(each.id) != each]
        writes = [Write(key, key_values(after), after.id)]
        for each in changed:
            if each.id in known:
                writes.append(Write(secret, secret_values(each), each.id))
            elif proof is not None:
                writes.append(Write(secret, _secret_row(after.id, each, proof)))
        judged = any(getattr(before, name) != getattr(after, name) for name in key_rules.VERIFY_DEPENDS_ON)
        was, is_now = changed_fields(describe_key(before), describe_key(after))
        revision = await self._close(
            writes,
            entry=LogEntry("keys", after.id, is_key_restricted(before, after)) if judged else None,
            target=(after.workspace, after.id, secret_id),
            before=was,
            after=is_now,
        )
        if revision is None:
            return after
        secrets = tuple(_dated(each, revision) if each in changed else each for each in after.secrets)
        return replace(_dated(after, revision), secrets=secrets)

    async def lock_pepper(self, fingerprint: bytes) -> PepperState | None:
        """Lock the fingerprints of peppers; the state of one, if it is known here."""
        await self.read_clock()
        await self._connection.execute(select(func.pg_advisory_xact_lock(PEPPERS_LOCK)))
        await self.settle()
        row = (await self._connection.execute(select(pepper).where(pepper.c.fingerprint == fingerprint))).one_or_none()
        if row is None:
            return None
        living = (
            select(func.count())
            .select_from(secret.join(key))
            .where(secret.c.pepper == fingerprint, secret.c.revoke_time.is_(None), key.c.revoke_time.is_(None))
        )
        return PepperState(
            fingerprint,
            row.signing,
            row.create_time,
            row.retire_time,
            (await self._connection.execute(living)).scalar_one(),
        )

    async def activate_pepper(self, fingerprint: bytes) -> None:
        """Let a pepper sign from now on."""
        await self._connection.execute(update(pepper).where(pepper.c.signing).values(signing=False))
        row = upsert(pepper).values(fingerprint=fingerprint, signing=True, create_time=self.at)
        await self._connection.execute(
            row.on_conflict_do_update(index_elements=["fingerprint"], set_={"signing": True})
        )
        await self._close([], entry=None, target=_EVERYTHING, after={"pepper": fingerprint.hex(), "signing": True})

    async def retire_pepper(self, fingerprint: bytes) -> Revision:
        """Accept no secret under a pepper any more."""
        await self._connection.execute(
            update(pepper).where(pepper.c.fingerprint == fingerprint).values(retire_time=self.at)
        )
        after = {"pepper": fingerprint.hex(), "retire_time": self.at.isoformat()}
        return await self._change_all(after)

    async def forget_everything(self, epoch: UUID | None) -> Revision:
        """Let everybody forget what they remember.

        Parameters:
            epoch: a new one: no revision from before means anything any more.
        """
        after = {"bump": True} if epoch is None else {"bump": True, "epoch": epoch.hex}
        return await self._change_all(after, epoch)

    async def find_revision(self) -> Revision:
        """The revision of this change, which an earlier attempt has made."""
        query = select(EPOCH, audit_event.c.seq).where(audit_event.c.id == self._stamp.event_id)
        return Revision(*(await self._connection.execute(query)).one())

    async def limit_leases(self, lease_ms_max: int) -> list[str]:
        """Allow leases up to so long; hosts that have longer ones, in which case nothing is changed."""
        await self.read_clock()
        # Whoever joins waits for this lock.
        await self._connection.execute(select(revocation_clock).with_for_update())
        longer = select(lease_member.c.host).where(lease_member.c.lease_ms > lease_ms_max)
        hosts = list((await self._connection.execute(longer.order_by(lease_member.c.host))).scalars())
        if not hosts:
            await self._connection.execute(update(revocation_clock).values(lease_ms_max=lease_ms_max))
            await self._close([], entry=None, target=_EVERYTHING, after={"lease_ms_max": lease_ms_max})
        return hosts

    async def _change_all(self, after: dict[str, Any], epoch: UUID | None = None) -> Revision:
        """Close a change that concerns all keys."""
        entry = LogEntry("all", None, is_restrictive=True)
        revision = await self._close([], entry=entry, target=_EVERYTHING, after=after, epoch=epoch)
        return revision or self.start

    async def _locked_workspace(self, query: Select[Any], name: str) -> Workspace | None:
        row = (await self._connection.execute(query, {"name": name})).one_or_none()
        await self.settle()
        if row is None:
            return None
        self._clock = row.at, row.epoch
        return workspace_of(row)

    async def _close(  # noqa: PLR0913 (all that a change leaves behind)
        self,
        writes: Sequence[Write],
        *,
        entry: LogEntry | None,
        target: tuple[str, UUID | None, str | None],
        after: dict[str, Any],
        before: dict[str, Any] | None = None,
        epoch: UUID | None = None,
    ) -> Revision | None:
        """Close the change; its revision, if there is an entry in the log.

        What it writes is locked already, so the clock is the last lock that is taken; it is held for this statement and
        the commit.

        Parameters:
            writes, entry, epoch: see ``closing_statement``.
            target: workspace, key and secret of the audit event.
            before, after: of the audit event.
        """
        name, key_id, secret_id = target
        event = {
            "id": self._stamp.event_id,
            "time": self.at,
            "actor": self._stamp.actor,
            "method": self._stamp.method,
            "workspace": name,
            "key_id": key_id,
            "secret_id": secret_id,
            "before": before,
            "after": after,
            "reason": self._stamp.reason,
            "request_id": self._stamp.request_id,
            "source_ip": self._stamp.source_ip,
        }
        statement, values = closing_statement(writes, entry, event, timeline=self._timeline, epoch=epoch)
        row = (await self._connection.execute(statement, values)).one()
        if entry is None:
            return None
        revision = Revision(row.epoch, row.seq)
        self._commit = Commit(revision, row.timeline, row.lease_ms_max, self.at, entry.is_restrictive)
        return revision


def _dated(changed: D, revision: Revision) -> D:
    """A key or secret with the revision of the change, and with that of its revocation if this is it."""
    revocation = changed.revocation
    if revocation is not None and revocation.revision is None:
        revocation = replace(revocation, revision=revision)
    return replace(changed, revision=revision, revocation=revocation)


def _secret_row(key_id: UUID, new: Secret, proof: Proof) -> dict[str, Any]:
    """A new row of ``secret``, but for its revision."""
    return {
        "id": new.id,
        "key_id": key_id,
        "hint": new.hint,
        "pepper": proof.pepper,
        "digest": proof.digest,
        "create_time": new.create_time,
        "predecessor_retire_time": new.predecessor_retire_time,
        **secret_values(new),
    }


_WORKSPACE: Final = select(*WORKSPACE_COLUMNS).where(workspace.c.name == bindparam("name"))
_WORKSPACE_FOR_KEY: Final = _WORKSPACE.with_for_update(key_share=True)
_KEY: Final = select(*KEY_COLUMNS).select_from(KEY_SOURCE).where(key.c.id == bindparam("key_id"))
_KEY_LOCKED: Final = _KEY.with_for_update(of=key)
