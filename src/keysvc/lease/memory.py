"""What a holder remembers: records of proved secrets, and refusals.

Records are found by a keyed hash of the key string. They are kept in two generations: what is found moves to the young
one, and when memory is full, what has stayed in the old one goes; when that is empty, the young one becomes the old.
So whatever is used stays, and nothing needs to be written down for most of the finds.

A record is kept as a tuple of plain values alone, its profile as a number: such tuples the garbage collector leaves
out, so that it does not stop the process for longer the more is remembered.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from keysvc.core.verdict import Profile, Record, WorkspaceRecord

BYTES_MAX: Final = 256 << 20
REFUSALS_MAX: Final = 10_000

RECORD_BYTES: Final = 470
"""What a record takes besides ``about`` and ``ip_ranges``: the tuple, its values, and its places in two dicts."""

PROFILE_BYTES: Final = 1_000
"""What a profile takes, with scopes as keys have them."""

_Entry: TypeAlias = tuple[int, int, str, bytes, bytes, datetime | None, datetime | None, str, int]
"""A record, with the number of its profile in the profile's place."""


class _Home:
    """A workspace that profiles refer to; None: it has changed, and nobody has read it since."""

    __slots__ = ("profiles", "record")

    def __init__(self, record: WorkspaceRecord) -> None:
        self.record: WorkspaceRecord | None = record
        self.profiles = 0


class _Shared:
    """A profile that records refer to.

    Parameters:
        name: what it is found by.
    """

    __slots__ = ("home", "name", "profile", "records")

    def __init__(self, name: tuple[object, ...], profile: Profile, home: _Home) -> None:
        self.name = name
        self.profile = profile
        self.home = home
        self.records = 0


class Memory:
    """Records and refusals by hash. Bounded: what was not used for the longest time goes first.

    Parameters:
        bytes_max: what records may take, about.
        refusals_max: how many refusals there may be. Apart, so that a flood of them evicts no record.
    """

    def __init__(self, *, bytes_max: int = BYTES_MAX, refusals_max: int = REFUSALS_MAX) -> None:
        self._bytes_max = bytes_max
        self._refusals_max = refusals_max
        self.flush()

    def flush(self) -> None:
        """Forget everything."""
        self.derived: dict[bytes, Any] = {}
        """What those who answer have worked out from records, by their marks: gone as soon as anything changes."""
        self.bytes_used = 0
        self._young: dict[bytes, _Entry] = {}
        self._old: dict[bytes, _Entry] = {}
        self._queue: list[bytes] = []
        """In which order the old ones go, from its end."""
        self._marks: dict[int, bytes | tuple[bytes, ...]] = {}
        """Of each key: nearly always of one secret."""
        self._homes: dict[UUID, _Home] = {}
        self._shared: dict[int, _Shared] = {}
        self._numbers: dict[tuple[object, ...], int] = {}
        self._number = 0
        self._refusals: set[bytes] = set()
        self._old_refusals: set[bytes] = set()

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._young) + len(self._old)

    def find(self, mark: bytes) -> Record | None:
        """The record that is remembered for a hash."""
        entry = self._young.get(mark)
        is_old = entry is None
        if is_old:
            entry = self._old.get(mark)
        if entry is None:
            return None
        shared = self._shared[entry[0]]
        profile = shared.profile
        home = shared.home.record
        if profile.home is not home:
            if home is None:
                return None
            profile = shared.profile = profile.within(home)
        if is_old:
            self._young[mark] = self._old.pop(mark)
        _, key_id, secret_id, about, ip_ranges, expire_time, retire_time, refusal, seq = entry
        # What Record(…) does, in half the time.
        fields = (profile, key_id, secret_id, about, ip_ranges, expire_time, retire_time, refusal, seq)
        return tuple.__new__(Record, fields)

    def is_refused(self, mark: bytes) -> bool:
        """Whether it is remembered that a text with this hash is no key."""
        return mark in self._refusals or mark in self._old_refusals

    def remember(self, mark: bytes, record: Record) -> None:
        """Remember a record. Whether that is right, the holder knows."""
        self._remove(mark)
        number = self._share(record.profile)
        self.bytes_used += _size(record.about, record.ip_ranges)
        while self.bytes_used > self._bytes_max and len(self):
            self._evict()
        # Without the revision: it says whether to remember a record, and nothing afterwards.
        self._young[mark] = (number, *record[1:-1], 0)
        marks = self._marks.get(record.key_id)
        if marks is None:
            self._marks[record.key_id] = mark
        else:
            self._marks[record.key_id] = (*_each(marks), mark)

    def remember_refusal(self, mark: bytes) -> None:
        """Remember that a text with this hash is no key."""
        if len(self._refusals) >= self._refusals_max // 2:
            self._old_refusals, self._refusals = self._refusals, set()
        self._refusals.add(mark)

    def drop(self, kind: str, subject_ids: Iterable[UUID]) -> None:
        """Forget what a change names. A kind that this version does not know names everything."""
        self.derived = {}
        match kind:
            case "keys":
                for key_id in subject_ids:
                    for mark in _each(self._marks.get(key_id.int, ())):
                        self._remove(mark)
            case "workspaces":
                for workspace_id in subject_ids:
                    if (home := self._homes.get(workspace_id)) is not None:
                        home.record = None
            case "refusals":
                self._refusals.clear()
                self._old_refusals.clear()
            case _:
                self.flush()

    def _share(self, profile: Profile) -> int:
        """The number of a profile, for one more record."""
        home = self._homes.get(profile.home.id)
        if home is None:
            home = self._homes[profile.home.id] = _Home(profile.home)
        elif home.record is None:
            home.record = profile.home
        name = (profile.home.id, profile.environment, profile.role, profile.scopes, profile.workspaces)
        number = self._numbers.get(name)
        if number is None:
            self._number = number = self._number + 1
            self._numbers[name] = number
            self._shared[number] = _Shared(name, profile, home)
            home.profiles += 1
            self.bytes_used += PROFILE_BYTES
        shared = self._shared[number]
        shared.records += 1
        # The number itself, not another one that is equal: it is in all the tuples.
        return self._numbers[shared.name]

    def _remove(self, mark: bytes) -> None:
        """Forget one record."""
        entry = self._young.pop(mark, None) or self._old.pop(mark, None)
        if entry is not None:
            self._forget(mark, entry)

    def _evict(self) -> None:
        """Forget one record that was not found since the generations changed."""
        if not self._old:
            self._old, self._young = self._young, {}
            self._queue = list(reversed(self._old))
        while True:
            mark = self._queue.pop()
            # Unless it was found since, or has changed.
            if (entry := self._old.pop(mark, None)) is not None:
                self._forget(mark, entry)
                return

    def _forget(self, mark: bytes, entry: _Entry) -> None:
        """Forget what goes with a record that has been taken out."""
        number, key_id, _, about, ip_ranges, *_ = entry
        self.bytes_used -= _size(about, ip_ranges)
        others = tuple(other for other in _each(self._marks.pop(key_id)) if other != mark)
        if others:
            self._marks[key_id] = others if len(others) > 1 else others[0]
        shared = self._shared[number]
        shared.records -= 1
        if not shared.records:
            del self._shared[number], self._numbers[shared.name]
            self.bytes_used -= PROFILE_BYTES
            shared.home.profiles -= 1
            if not shared.home.profiles:
                del self._homes[shared.profile.home.id]


def _size(about: bytes, ip_ranges: bytes) -> int:
    """What a record takes."""
    return RECORD_BYTES + len(about) + len(ip_ranges)


def _each(marks: bytes | tuple[bytes, ...]) -> tuple[bytes, ...]:
    """One or several marks."""
    return (marks,) if isinstance(marks, bytes) else marks
