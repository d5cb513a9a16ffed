"""What lists can be asked for, and where a page ends."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from keysvc.core.key import Key, State
from keysvc.core.keystring import Environment
from keysvc.core.usage import Group

PAGE_SIZE_DEFAULT: Final = 50
PAGE_SIZE_MAX: Final = 1000

_START = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Conditions on keys that must all hold; None is no condition.

    Parameters:
        workspaces: of one of these.
        hint_prefix: with a secret whose hint begins so.
        expire_before: ends before this time, ended ones included.
        idle_since: neither accepted nor created since this time.
    """

    workspaces: tuple[str, ...] | None = None
    state: State | None = None
    environment: Environment | None = None
    owner: str | None = None
    tag: str | None = None
    role: str | None = None
    hint_prefix: str | None = None
    display_name_prefix: str | None = None
    expire_before: datetime | None = None
    idle_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Conditions on audit events that must all hold; None is no condition.

    Parameters:
        start_time, end_time: from the first on, before the second.
    """

    workspaces: tuple[str, ...] | None = None
    key_id: UUID | None = None
    actor: str | None = None
    method: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which totals, and what is kept apart besides workspaces.

    Parameters:
        workspaces: of one of these; None: of all, and of what belongs to none.
        key_id: of this key alone.
    """

    workspaces: tuple[str, ...] | None = None
    key_id: UUID | None = None
    groups: frozenset[Group] = frozenset()


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page of a list that is ordered by time ends: the next one is older."""

    time: datetime
    id: UUID

    def __str__(self) -> str:
        """The text inside a page token."""
        return f"{(self.time - _START) // timedelta(microseconds=1)}.{self.id.hex}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read what ``str`` wrote."""
        microseconds, _, item_id = text.partition(".")
        return cls(_START + timedelta(microseconds=int(microseconds)), UUID(item_id))


@dataclass(frozen=True, slots=True)
class Listed:
    """Some keys of a list, and how far they go.

    Parameters:
        more_after: there may be more, older than this; None: that was all.
    """

    keys: tuple[Key, ...]
    more_after: Position | None
