"""Changes of a simulation: transactions that lock, write and commit, over connections that can be lost."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

from keysvc.core import key as key_rules
from keysvc.core import workspace as workspace_rules
from keysvc.core.audit import Stamp
from keysvc.core.errors import Unavailable
from keysvc.core.key import Key
from keysvc.core.restriction import is_key_restricted, is_workspace_restricted
from keysvc.core.revision import Revision
from keysvc.core.workspace import Workspace
from keysvc.lease.barrier import Commit
from tests.lease.simulation.content import BEGIN, Content, Staged, State
from tests.lease.simulation.network import LostError, Wire
from tests.lease.simulation.virtual import Loop

T = TypeVar("T")

ATTEMPTS_MAX = 4


class AlreadyCommittedError(Exception):
    """An earlier attempt has been committed."""


class Transaction:
    """A twin of ``keysvc.store.transaction.Transaction``: of what these services ask for.

    Parameters:
        wire: its connection.
        deadline: by the process's clock.
        is_first: no attempt has been made before.
    """

    def __init__(self, content: Content, wire: Wire, deadline: float, stamp: Stamp, *, is_first: bool) -> None:
        self._content = content
        self._twin = content.twin
        self._wire = wire
        self._deadline = deadline
        self._is_first = is_first
        self._commit: Commit | None = None
        self.stamp = stamp
        self.at = BEGIN
        self.staged: Staged | None = None
        self.is_ending = False
        """The commit is on its way."""
        self.result: tuple[Any, Commit] | None = None

    @property
    def loop(self) -> Loop:
        """Of the process that it belongs to."""
        return self._wire.loop

    async def _ask(self, name: str, act: Callable[[], T]) -> T:
        return await self._wire.execute(name, act, self._deadline)

    async def _locked(self, name: str, act: Callable[[], T]) -> T:
        """Do something under all locks, unless an earlier attempt has done it."""

        def locked() -> T:
            self.at = self._content.lock(self)
            if not self._is_first and self.stamp.event_id in self._content.events:
                raise AlreadyCommittedError
            return act()

        return await self._ask(name, locked)

    async def read_clock(self) -> None:
        """Read the clock."""
        self.at = await self._ask("read", lambda: self._twin.where().at)

    async def lock_key(self, key_id: UUID) -> Key:
        """Lock a key."""
        return await self._locked("lock", lambda: self._content.read_key(key_id))

    async def lock_workspace(self, name: str) -> Workspace:
        """Lock a workspace."""
        return await self._locked("lock", lambda: self._content.state.homes[name])

    async def find_key(self, key_id: UUID) -> Key:
        """A key that exists."""
        return await self._ask("read", lambda: self._content.read_key(key_id))

    async def find_workspace(self, name: str) -> Workspace:
        """A workspace that exists."""
        return await self._ask("read", lambda: self._content.state.homes[name])

    async def find_revision(self) -> Revision:
        """The revision of this change, which an earlier attempt has made."""
        return await self._ask("read", lambda: self._content.events[self.stamp.event_id])

    async def save_key(self, before: Key, after: Key, **_secret: Any) -> Key:
        """Save a locked key."""
        assert any(getattr(before, name) != getattr(after, name) for name in key_rules.VERIFY_DEPENDS_ON)

        def act() -> Key:
            revision = self._content.take()
            revocation = after.revocation
            if revocation is not None and revocation.revision is None:
                revocation = replace(revocation, revision=revision)
            saved = replace(after, revision=revision, revocation=revocation, version=before.version + 1)
            state = self._content.state
            state = state._replace(keys={**state.keys, saved.id: saved})
            self._stage(Staged(revision, "keys", (saved.id,), is_key_restricted(before, after), state))
            return saved

        return await self._locked("close", act)

    async def save_workspace(self, before: Workspace, after: Workspace) -> Workspace:
        """Save a locked workspace."""
        assert any(getattr(before, name) != getattr(after, name) for name in workspace_rules.VERIFY_DEPENDS_ON)

        def act() -> Workspace:
            revision = self._content.take()
            saved = replace(after, revision=revision, version=before.version + 1)
            state = self._content.state
            state = state._replace(homes={**state.homes, saved.name: saved})
            self._stage(Staged(revision, "workspaces", (saved.id,), is_workspace_restricted(before, after), state))
            return saved

        return await self._locked("close", act)

    async def forget_everything(self, epoch: UUID | None) -> Revision:
        """Let everybody forget what they remember."""

        def act() -> Revision:
            revision = replace(self._content.take(), epoch=epoch or self._twin.epoch)
            self._stage(Staged(revision, "all", (), is_restrictive=True, state=self._content.state))
            return revision

        return await self._locked("close", act)

    async def set_hidden(self, key_id: UUID, *, is_hidden: bool) -> Revision:
        """Retire the pepper that a key is under, or import the key."""

        def act() -> Revision:
            state = self._content.state
            if (key_id in state.hidden) == is_hidden:
                return Revision(self._twin.epoch, self._twin.seq)
            revision = self._content.take()
            if is_hidden:
                after = state._replace(hidden=state.hidden | {key_id})
            else:
                imported = replace(state.keys[key_id], revision=revision)
                after = State({**state.keys, key_id: imported}, state.homes, state.hidden - {key_id})
            self._stage(Staged(revision, "all" if is_hidden else "refusals", (), is_hidden, after))
            return revision

        return await self._locked("close", act)

    def _stage(self, staged: Staged) -> None:
        self.staged = staged
        where = self._twin.timeline, self._twin.lease_ms_max
        self._commit = Commit(staged.revision, *where, self.at, is_restrictive=staged.is_restrictive)

    async def read_commit(self) -> Commit:
        """Where the change is committed; with revision 0, if there is none."""

        def act() -> Commit:
            log = self._twin.where()
            return Commit(Revision(log.epoch, 0), log.timeline, self._twin.lease_ms_max, log.at)

        return self._commit or await self._ask("read", act)

    async def commit(self) -> None:
        """End it."""
        self.is_ending = True
        await self._ask("commit", lambda: self._content.commit(self))


class TwinChanges:
    """A twin of ``keysvc.store.changes.Changes``.

    Parameters:
        connect: makes a connection.
        rolled_back: is told of a transaction that ends with its connection.
        limit_seconds: for one change.
    """

    def __init__(
        self,
        content: Content,
        connect: Callable[[], Wire],
        rolled_back: Callable[[Transaction], None],
        limit_seconds: float,
    ) -> None:
        self._content = content
        self._connect = connect
        self._rolled_back = rolled_back
        self._limit_seconds = limit_seconds

    async def commit(
        self,
        stamp: Stamp,
        work: Callable[[Transaction], Awaitable[T]],
        recall: Callable[[Transaction], Awaitable[T]],
    ) -> tuple[T, Commit]:
        """As the real one."""
        deadline: float | None = None
        for number in range(ATTEMPTS_MAX):
            wire = self._connect()
            deadline = deadline or wire.loop.time() + self._limit_seconds
            transaction = Transaction(self._content, wire, deadline, stamp, is_first=number == 0)
            try:
                return await self._attempt(transaction, work, recall)
            except LostError:
                self._rolled_back(transaction)
                if transaction.is_ending and (believed := await self.lost(transaction)):
                    return believed
            except BaseException:
                self._rolled_back(transaction)
                raise
        raise Unavailable("the database cannot be reached")

    async def _attempt(
        self,
        transaction: Transaction,
        work: Callable[[Transaction], Awaitable[T]],
        recall: Callable[[Transaction], Awaitable[T]],
    ) -> tuple[T, Commit]:
        try:
            transaction.result = await work(transaction), await transaction.read_commit()
            await transaction.commit()
        except AlreadyCommittedError:
            transaction.result = await recall(transaction), await transaction.read_commit()
            self._rolled_back(transaction)
        return transaction.result

    async def lost(self, transaction: Transaction) -> tuple[Any, Commit] | None:
        """The connection was lost while a commit was on its way; nobody knows, so the transaction is run again."""
