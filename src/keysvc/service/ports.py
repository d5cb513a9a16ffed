"""What the services need of the outside. The store fits these by shape."""

from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID

from keysvc.core.audit import AuditEvent, Stamp
from keysvc.core.key import Key, MintedFor
from keysvc.core.listing import AuditFilter, KeyFilter, Listed, Position, UsageFilter
from keysvc.core.pepper import PepperState, Proof
from keysvc.core.revision import Revision
from keysvc.core.usage import Batch, Counter, Tally
from keysvc.core.verdict import Snapshot
from keysvc.core.workspace import Workspace
from keysvc.lease.barrier import Commit
from keysvc.lease.news import Census, Log, Member, News
from keysvc.lease.sessions import Place

T = TypeVar("T")


class SecretFinder(Protocol):
    """Finds what Verify needs."""

    async def find(self, secret_id: str) -> Snapshot:
        """Read a secret as of a moment after this call began."""
        ...


class Transaction(Protocol):
    """One attempt of one change: lock first, decide on what was locked, then save or insert one thing."""

    @property
    def at(self) -> datetime:
        """The database's clock when it was last read, by locking or by ``read_clock``."""
        ...

    @property
    def start(self) -> Revision:
        """The revision of what has not changed since its creation."""
        ...

    async def read_clock(self) -> None:
        """Read the database's clock, for a creation that locks nothing."""
        ...

    async def lock_workspace(self, name: str) -> Workspace | None:
        """Lock a workspace for a change of it."""
        ...

    async def lock_workspace_for_key(self, name: str) -> Workspace | None:
        """Lock a workspace for the creation of a key."""
        ...

    async def lock_key(self, key_id: UUID) -> Key | None:
        """Lock a key and its secrets."""
        ...

    async def lock_callers(self) -> list[Key]:
        """Lock the set of caller keys; those that are not revoked."""
        ...

    async def count_keys(self, within: Workspace, at_most: int) -> int:
        """How many keys of a workspace are not revoked, up to ``at_most``."""
        ...

    async def claim_request(self, digest: bytes, claim: MintedFor, repeatable: timedelta) -> MintedFor:
        """Claim a request id; the claim of whoever came first, its sealed copy only so long after it."""
        ...

    async def find_key(self, key_id: UUID) -> Key:
        """A key that exists."""
        ...

    async def find_workspace(self, name: str) -> Workspace:
        """A workspace that exists."""
        ...

    async def insert_workspace(self, new: Workspace) -> Workspace | None:
        """Insert a workspace; None if the name is taken."""
        ...

    async def save_workspace(self, before: Workspace, after: Workspace) -> Workspace:
        """Save a locked workspace."""
        ...

    async def insert_key(self, new: Key, *, within: Workspace, proof: Proof) -> Key:
        """Insert a key with its one secret."""
        ...

    async def save_key(
        self, before: Key, after: Key, *, secret_id: str | None = None, proof: Proof | None = None
    ) -> Key:
        """Save a locked key and its secrets; a new one of them with its proof."""
        ...

    async def lock_pepper(self, fingerprint: bytes) -> PepperState | None:
        """Lock the fingerprints of peppers; the state of one, if it is known here."""
        ...

    async def activate_pepper(self, fingerprint: bytes) -> None:
        """Let a pepper sign from now on."""
        ...

    async def retire_pepper(self, fingerprint: bytes) -> Revision:
        """Accept no secret under a pepper any more."""
        ...

    async def forget_everything(self, epoch: UUID | None) -> Revision:
        """Let everybody forget what they remember; with a new epoch, revisions from before mean nothing any more."""
        ...

    async def find_revision(self) -> Revision:
        """The revision of this change, which an earlier attempt has made."""
        ...

    async def limit_leases(self, lease_ms_max: int) -> list[str]:
        """Allow leases up to so long; hosts that have longer ones, in which case nothing is changed."""
        ...


class Changes(Protocol):
    """Runs changes."""

    async def run(
        self,
        stamp: Stamp,
        work: Callable[[Transaction], Awaitable[T]],
        recall: Callable[[Transaction], Awaitable[T]],
    ) -> T:
        """Make one change, once; ``recall`` answers for an attempt that was committed although its answer was lost."""
        ...

    async def commit(
        self,
        stamp: Stamp,
        work: Callable[[Transaction], Awaitable[T]],
        recall: Callable[[Transaction], Awaitable[T]],
    ) -> tuple[T, Commit]:
        """As ``run``; also where it was committed, with revision 0 if there was nothing to commit."""
        ...


class UsageTotals(Protocol):
    """Keeps the totals of usage."""

    async def read_clock(self) -> datetime:
        """The database's clock."""
        ...

    async def find_owners(self, secret_ids: Collection[str]) -> dict[str, tuple[UUID, str]]:
        """Key and workspace of each secret that exists."""
        ...

    async def add(self, batch: Batch) -> bool:
        """Add a batch, durably; False: it had been added before."""
        ...

    async def forget_source(self, source_id: str, owner: str) -> None:
        """Forget a source that will never send again."""
        ...

    async def list_totals(
        self, asked: UsageFilter, after: Counter | None, limit: int
    ) -> tuple[list[tuple[Counter, Tally]], datetime | None]:
        """Totals by workspace and group, and how fresh they are."""
        ...


class Sweeper(Protocol):
    """Removes what is over."""

    async def remove_sealed_copies(self, repeatable: timedelta) -> None:
        """Remove the sealed copies of requests so long ago."""
        ...

    async def forget_dead_servers(self) -> None:
        """Forget the usage sources of servers that ended long ago without saying so."""
        ...

    async def trim_changes(self, kept: timedelta) -> None:
        """Remove changes from the log that everybody has known for so long."""
        ...


class Listings(Protocol):
    """Reads for people and tools."""

    async def find_key(self, key_id: UUID) -> Key | None:
        """A key."""
        ...

    async def list_keys(self, asked: KeyFilter, after: Position | None, limit: int) -> Listed:
        """Keys, newest first; fewer than ``limit`` are not always all."""
        ...

    async def find_workspace(self, name: str) -> Workspace | None:
        """A workspace."""
        ...

    async def list_workspaces(
        self, names: tuple[str, ...] | None, organization: str | None, after: str | None, limit: int
    ) -> list[Workspace]:
        """Workspaces by name."""
        ...

    async def list_audit_events(
        self, asked: AuditFilter, after: Position | None, limit: int
    ) -> list[tuple[AuditEvent, Revision | None]]:
        """Audit events, newest first, with their revisions."""
        ...


class Membership(Protocol):
    """What a holder asks. Every method raises ``Unavailable`` if no answer came in time; a later one is thrown away."""

    async def join(
        self,
        member_id: UUID,
        *,
        host: str,
        lease_ms: int,
        instead_of: Collection[UUID],
        acknowledged: Place | None = None,
    ) -> Log | None:
        """Insert a member, durably, and delete others; None: the lease is too long.

        It acknowledges what there is; no more than ``acknowledged`` if clients may have leases from it.
        """
        ...

    async def renew(
        self, member_id: UUID, applied: Log, acknowledged: int, report: dict[str, Any] | None
    ) -> News | None:
        """Acknowledge, and read what is new since ``applied``; None: there is no such member of this log."""
        ...

    async def announce(self, member_id: UUID) -> bool:
        """Say, durably, that clients may have leases from a member; whether there is such a member."""
        ...

    async def fetch(self, applied: int) -> News:
        """Read what is new."""
        ...

    async def leave(self, member_ids: Iterable[UUID]) -> None:
        """Delete members."""
        ...


class Registry(Protocol):
    """What a barrier asks. Every method raises ``Unavailable`` if no answer came in time."""

    async def wake(self, seq: int) -> None:
        """Tell all members that there is a change."""
        ...

    async def count(self, limit_seconds: float) -> Census:
        """All members, read from a primary in a statement that is sent after this call."""
        ...

    async def has_change(self, revision: Revision, at: datetime) -> bool:
        """Whether the log still has a change, and not another one with its number, which was made after ``at``."""
        ...

    async def mark_final(self, seqs: Collection[int]) -> None:
        """Say of changes that nobody answers any more as if they had not been made."""
        ...

    async def collect(self, member: Member) -> None:
        """Delete a member, if it has not renewed since."""
        ...

    async def find_open(self) -> Collection[int]:
        """The revisions of changes that nobody has marked as final for a while."""
        ...
