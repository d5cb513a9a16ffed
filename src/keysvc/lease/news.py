"""What the protocol hears from the database."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

SUBJECTS_MAX: Final = 10_000
"""Whoever would have to drop more forgets everything: that takes no time."""


@dataclass(frozen=True, slots=True)
class Log:
    """Where the log of changes is.

    Parameters:
        epoch: the life of the log.
        timeline: of the database's write-ahead log, another one after each promotion; empty: cannot be told.
        seq: of the last change.
        at: the database's clock.
    """

    epoch: UUID
    timeline: str
    seq: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """What an entry of the log says.

    Parameters:
        kind: ``keys``, ``workspaces``, ``refusals``, ``all``.
        subject_ids: of the keys or workspaces.
    """

    kind: str
    subject_ids: Collection[UUID]


@dataclass(frozen=True, slots=True)
class News:
    """The changes since a revision, in one snapshot with where the log is.

    Parameters:
        changes: None: there are too many, or the log does not reach so far back.
    """

    log: Log
    changes: Collection[Change] | None


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who may answer from memory.

    Parameters:
        beat: counts its renewals.
        lease_ms: for how long after a renewal was sent.
        applied: what it has acknowledged.
    """

    id: UUID
    host: str
    applied: int
    beat: int
    lease_ms: int


@dataclass(frozen=True, slots=True)
class Census:
    """All members, in one snapshot with where the log is.

    Parameters:
        lease_ms_max: what no member's ``lease_ms`` exceeds.
        session: changes with every connection.
    """

    log: Log
    lease_ms_max: int
    members: Collection[Member]
    session: int
