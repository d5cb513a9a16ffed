"""Changes of the fake: what ``keysvc.service.ports`` wants of a store, but for the upkeep of deployments."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast
from uuid import UUID

from keysvc.core import key as key_rules
from keysvc.core import workspace as workspace_rules
from keysvc.core.audit import AuditEvent, Stamp, changed_fields, describe_key, describe_workspace, set_fields
from keysvc.core.key import Key, MintedFor, Secret
from keysvc.core.pepper import Proof
from keysvc.core.restriction import is_key_restricted, is_workspace_restricted
from keysvc.core.revision import Revision
from keysvc.core.workspace import SYSTEM_WORKSPACE, Workspace
from keysvc.fake.state import State
from keysvc.lease.barrier import Commit
from keysvc.service import ports

T = TypeVar("T")
D = TypeVar("D", Key, Secret)

TIMELINE = ""
"""Nothing is ever promoted."""


class Changes:
    """Runs changes."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def run(
        self,
        stamp: Stamp,
        work: Callable[[ports.Transaction], Awaitable[T]],
        recall: Callable[[ports.Transaction], Awaitable[T]],
    ) -> T:
        """Make one change."""
        result, _ = await self.commit(stamp, work, recall)
        return result

    async def commit(
        self,
        stamp: Stamp,
        work: Callable[[ports.Transaction], Awaitable[T]],
        recall: Callable[[ports.Transaction], Awaitable[T]],  # noqa: ARG002 (no answer is ever lost)
    ) -> tuple[T, Commit]:
        """Make one change; also where it was committed, with revision 0 if Verify's answers do not depend on it."""
        transaction = Transaction(self._state, stamp)
        result = await work(cast("ports.Transaction", transaction))
        self._state.claims.update(transaction.claims)
        nothing = Commit(self._state.revision(0), TIMELINE, 0, self._state.now())
        return result, transaction.committed or nothing


class Transaction:
    """One change. What it saves comes last, so that nothing has to be undone."""

    def __init__(self, state: State, stamp: Stamp) -> None:
        self._state = state
        self._stamp = stamp
        self._at: datetime | None = None
        self.claims: dict[bytes, tuple[datetime, MintedFor]] = {}
        self.committed: Commit | None = None

    @property
    def at(self) -> datetime:
        """The time when something was locked."""
        if self._at is None:
            raise RuntimeError("a change has no time before it has locked something or read the clock")
        return self._at

    @property
    def start(self) -> Revision:
        """The revision of what has not changed since its creation."""
        return self._state.revision(0)

    async def read_clock(self) -> None:
        """Read the clock."""
        self._at = self._state.now()

    async def lock_workspace(self, name: str) -> Workspace | None:
        """A workspace."""
        self._at = self._state.now()
        return self._state.workspaces.get(name)

    async def lock_workspace_for_key(self, name: str) -> Workspace | None:
        """A workspace."""
        return await self.lock_workspace(name)

    async def lock_key(self, key_id: UUID) -> Key | None:
        """A key."""
        key = self._state.key(key_id)
        self._at = self._state.now() if key is None else key.at
        return key

    async def lock_callers(self) -> list[Key]:
        """Caller keys that are not revoked."""
        keys = (replace(each, at=self.at) for each in self._state.keys.values())
        return [each for each in keys if each.workspace == SYSTEM_WORKSPACE and each.revocation is None]

    async def count_keys(self, within: Workspace, at_most: int) -> int:
        """How many keys of a workspace are not revoked, up to ``at_most``."""
        keys = self._state.keys.values()
        return min(at_most, sum(each.workspace == within.name and each.revocation is None for each in keys))

    async def claim_request(self, digest: bytes, claim: MintedFor, repeatable: timedelta) -> MintedFor:
        """Claim a request id; the claim of whoever came first."""
        first = self._state.claims.get(digest)
        if first is None:
            self.claims[digest] = self.at, claim
            return claim
        time, claimed = first
        return replace(claimed, sealed=None) if time + repeatable <= self.at else claimed

    async def find_key(self, key_id: UUID) -> Key:
        """A key that exists."""
        return replace(self._state.keys[key_id], at=self._state.now())

    async def find_workspace(self, name: str) -> Workspace:
        """A workspace that exists."""
        return self._state.workspaces[name]

    async def insert_workspace(self, new: Workspace) -> Workspace | None:
        """Insert a workspace; None if the name is taken."""
        if new.name in self._state.workspaces:
            return None
        self._state.workspaces[new.name] = new
        self._tell(new.name, None, None, None, set_fields(describe_workspace(new)), None)
        return new

    async def save_workspace(self, before: Workspace, after: Workspace) -> Workspace:
        """Save a workspace."""
        after = replace(after, version=before.version + 1, update_time=self.at)
        judged = any(getattr(before, name) != getattr(after, name) for name in workspace_rules.VERIFY_DEPENDS_ON)
        if judged:
            after = replace(after, revision=self._take_revision(is_restrictive=is_workspace_restricted(before, after)))
        self._state.workspaces[after.name] = after
        was, is_now = changed_fields(describe_workspace(before), describe_workspace(after))
        self._tell(after.name, None, None, was, is_now, after.revision.seq if judged else None)
        return after

    async def insert_key(self, new: Key, *, within: Workspace, proof: Proof) -> Key:  # noqa: ARG002 (named in the key)
        """Insert a key with its one secret."""
        (minted,) = new.secrets
        self._state.keys[new.id] = new
        self._state.proofs[minted.id] = new.id, proof
        self._tell(new.workspace, new.id, None, None, set_fields(describe_key(new)), None)
        return new

    async def save_key(
        self, before: Key, after: Key, *, secret_id: str | None = None, proof: Proof | None = None
    ) -> Key:
        """Save a key and its secrets; a new one of them with its proof."""
        after = replace(after, version=before.version + 1, update_time=self.at)
        known = {each.id: each for each in before.secrets}
        judged = any(getattr(before, name) != getattr(after, name) for name in key_rules.VERIFY_DEPENDS_ON)
        if judged:
            revision = self._take_revision(is_restrictive=is_key_restricted(before, after))
            secrets = (each if known.get(each.id) == each else _dated(each, revision) for each in after.secrets)
            after = replace(_dated(after, revision), secrets=tuple(secrets))
        self._state.keys[after.id] = after
        if proof is not None and secret_id is not None:
            self._state.proofs[secret_id] = after.id, proof
        was, is_now = changed_fields(describe_key(before), describe_key(after))
        self._tell(after.workspace, after.id, secret_id, was, is_now, after.revision.seq if judged else None)
        return after

    def _take_revision(self, *, is_restrictive: bool) -> Revision:
        """The revision of this change."""
        self._state.seq += 1
        revision = self._state.revision(self._state.seq)
        self.committed = Commit(revision, TIMELINE, 0, self.at, is_restrictive)
        return revision

    def _tell(  # noqa: PLR0913, PLR0917 (the columns of an audit event)
        self,
        workspace: str,
        key_id: UUID | None,
        secret_id: str | None,
        before: dict[str, Any] | None,
        after: dict[str, Any],
        seq: int | None,
    ) -> None:
        """Write the audit event."""
        self._state.events.append(AuditEvent(self._stamp, self.at, workspace, key_id, secret_id, before, after, seq))


def _dated(changed: D, revision: Revision) -> D:
    """A key or secret with the revision of the change, and with that of its revocation if this is it."""
    revocation = changed.revocation
    if revocation is not None and revocation.revision is None:
        revocation = replace(revocation, revision=revision)
    return replace(changed, revision=revision, revocation=revocation)
