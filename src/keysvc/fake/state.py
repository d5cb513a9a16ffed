"""What the fake keeps: the same values as the database, in dictionaries."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from keysvc.core.audit import AuditEvent
from keysvc.core.key import Key, MintedFor
from keysvc.core.pepper import Proof
from keysvc.core.revision import Revision
from keysvc.core.workspace import SYSTEM_WORKSPACE, Workspace

_TICK: Final = timedelta(microseconds=1)


class State:
    """All that there is. Everything happens in one event loop, so that whatever does not wait is a transaction.

    Parameters:
        clock: the time; what is asked for is never the same twice, and never goes back.

    Attributes:
        keys: as they were saved; what is read of one is ``key``.
        proofs: the key of each secret, by the secret's id, and what proves it.
        claims: of request ids, with their times.
        events: of the audit log, oldest first.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._last = clock() - _TICK
        self.epoch: Final = uuid4()
        self.seq = 0
        self.workspaces: Final[dict[str, Workspace]] = {}
        self.keys: Final[dict[UUID, Key]] = {}
        self.proofs: Final[dict[str, tuple[UUID, Proof]]] = {}
        self.claims: Final[dict[bytes, tuple[datetime, MintedFor]]] = {}
        self.events: Final[list[AuditEvent]] = []
        at = self.now()
        self.workspaces[SYSTEM_WORKSPACE] = Workspace(
            uuid4(), SYSTEM_WORKSPACE, at, at, self.revision(0), display_name="Callers of keysvc"
        )

    def now(self) -> datetime:
        """The time."""
        self._last = max(self._clock(), self._last + _TICK)
        return self._last

    def revision(self, seq: int) -> Revision:
        """A place in the log of changes."""
        return Revision(self.epoch, seq)

    def key(self, key_id: UUID) -> Key | None:
        """A key as it is now."""
        key = self.keys.get(key_id)
        return None if key is None else replace(key, at=self.now())
