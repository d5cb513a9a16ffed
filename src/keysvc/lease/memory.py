"""What a holder remembers: records of proved secrets, and refusals.

Records are found by a keyed hash of the key string. All records of one workspace share what Verify judges about it, so
that a change of a workspace with a million keys replaces one thing.
"""

from collections.abc import Iterable
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

from keysvc.core.verdict import Record, WorkspaceRecord

RECORDS_MAX: Final = 200_000
REFUSALS_MAX: Final = 10_000


class _Home:
    """A workspace that records refer to; None: it has changed, and nobody has read it since."""

    __slots__ = ("__weakref__", "record")

    def __init__(self, record: WorkspaceRecord | None) -> None:
        self.record = record


class _Entry:
    """A remembered record.

    Parameters:
        used: since it was last considered for eviction.
    """

    __slots__ = ("home", "record", "used")

    def __init__(self, record: Record, home: _Home) -> None:
        self.record = record
        self.home = home
        self.used = False


class Memory:
    """Records and refusals by hash. Bounded: what was not used for the longest time goes first.

    Parameters:
        records_max: how many records there may be.
        refusals_max: how many refusals. Apart, so that a flood of them evicts no record.
    """

    def __init__(self, *, records_max: int = RECORDS_MAX, refusals_max: int = REFUSALS_MAX) -> None:
        self._records_max = records_max
        self._refusals_max = refusals_max
        self._entries: dict[bytes, _Entry] = {}
        self._of_key: dict[UUID, tuple[bytes, ...]] = {}
        self._homes: WeakValueDictionary[UUID, _Home] = WeakValueDictionary()
        self._refusals: dict[bytes, None] = {}

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._entries)

    def find(self, mark: bytes) -> Record | None:
        """The record that is remembered for a hash."""
        entry = self._entries.get(mark)
        if entry is None:
            return None
        home = entry.home.record
        if entry.record.home is not home:
            if home is None:
                return None
            entry.record = entry.record.within(home)
        entry.used = True
        return entry.record

    def is_refused(self, mark: bytes) -> bool:
        """Whether it is remembered that a text with this hash is no key."""
        return mark in self._refusals

    def remember(self, mark: bytes, record: Record) -> None:
        """Remember a record. Whether that is right, the holder knows."""
        home = self._homes.get(record.home.id)
        if home is None:
            home = self._homes[record.home.id] = _Home(record.home)
        elif home.record is None:
            home.record = record.home
        else:
            record = record.within(home.record)
        if mark not in self._entries:
            if len(self._entries) >= self._records_max:
                self._evict()
            self._of_key[record.key_id] = (*self._of_key.get(record.key_id, ()), mark)
        self._entries[mark] = _Entry(record, home)

    def remember_refusal(self, mark: bytes) -> None:
        """Remember that a text with this hash is no key."""
        if len(self._refusals) >= self._refusals_max:
            del self._refusals[next(iter(self._refusals))]
        self._refusals[mark] = None

    def drop(self, kind: str, subject_ids: Iterable[UUID]) -> None:
        """Forget what a change names. A kind that this version does not know names everything."""
        match kind:
            case "keys":
                for key_id in subject_ids:
                    for mark in self._of_key.pop(key_id, ()):
                        del self._entries[mark]
            case "workspaces":
                for workspace_id in subject_ids:
                    if (home := self._homes.get(workspace_id)) is not None:
                        home.record = None
            case "refusals":
                self._refusals.clear()
            case _:
                self.flush()

    def flush(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._of_key.clear()
        # Not emptied: a verification under way may still hold one of these.
        self._homes = WeakValueDictionary()
        self._refusals.clear()

    def _evict(self) -> None:
        """Forget the record that was remembered first, but for those that were used since they were last in turn."""
        while True:
            mark = next(iter(self._entries))
            entry = self._entries.pop(mark)
            if not entry.used:
                break
            entry.used = False
            self._entries[mark] = entry
        key_id = entry.record.key_id
        others = tuple(other for other in self._of_key.pop(key_id) if other != mark)
        if others:
            self._of_key[key_id] = others
