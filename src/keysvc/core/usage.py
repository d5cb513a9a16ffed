"""Usage: how often keys were presented, and what was done with them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from keysvc.core.verdict import Record, Verdict

LABEL_CHARACTERS_MAX: Final = 128
COUNT_MAX: Final = 1_000_000
UNITS_MAX: Final = 10**12
STATUS_CODE_MAX: Final = 999
BATCH_MAX: Final = 1_000
"""Records of one batch."""

NO_KEY: Final = UUID(int=0)
"""Stands for the key of presentations that proved none."""


class Outcome(StrEnum):
    """How the work that a key was verified for went."""

    SUCCESS = "success"
    FAILURE = "failure"


class Group(StrEnum):
    """What a query of usage keeps apart, besides workspaces; in the order of its answers."""

    KEY = "key"
    SECRET = "secret"  # noqa: S105 (a word)
    VERDICT = "verdict"


class Counter(NamedTuple):
    """Whose usage is counted.

    Parameters:
        workspace, key_id, secret_id: empty, ``NO_KEY`` and empty where no secret was proved.
        verdict: None: work that was reported.
    """

    workspace: str
    key_id: UUID
    secret_id: str
    verdict: Verdict | None

    def __str__(self) -> str:
        """The text inside a page token."""
        return "|".join((self.workspace, self.key_id.hex, self.secret_id, self.verdict or ""))

    @classmethod
    def parse(cls, text: str) -> "Counter":
        """Read what ``str`` wrote."""
        workspace, key_id, secret_id, verdict = text.split("|")
        return cls(workspace, UUID(key_id), secret_id, Verdict(verdict) if verdict else None)


class Tally(NamedTuple):
    """What has been counted, or is to be added.

    Parameters:
        verify_count: Verifies with the counter's verdict.
        success_count, failure_count, units: of reported work.
        last_time: of the last of the Verifies, by the database's clock.
    """

    verify_count: int = 0
    success_count: int = 0
    failure_count: int = 0
    units: int = 0
    last_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """Work that a caller reports, or Verifies that it has answered by itself, or both.

    Parameters:
        outcome: None: no work is reported.
        count: how many equal events.
        units: of all of them together.
        verdict: of the Verifies; None: there were none that are not counted yet.
        last_time: of the last Verify; None: now.
    """

    key_id: UUID
    secret_id: str
    outcome: Outcome | None
    count: int
    units: int
    verdict: Verdict | None = None
    last_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one source adds to the totals, once.

    Parameters:
        source_id: who counts.
        owner: the caller that the source belongs to.
        seq: 1 for the first batch of the source, then one more for each.
        digest: tells this batch from another one with the same number.
        as_of: of a server: all that it counted before this time has been added with this batch; None: not so.
    """

    source_id: str
    owner: str
    seq: int
    digest: bytes
    tallies: dict[Counter, Tally]
    as_of: datetime | None = None


class Meter:
    """Counts the Verifies of one server in memory, on Verify's path: a look-up in a dict, and two numbers."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, Verdict], _Count] = {}

    def count(self, verdict: Verdict, record: Record | None = None, at: datetime | None = None) -> None:
        """Count one Verify.

        Parameters:
            record: whose; None: no secret was proved, or not to this caller.
            at: the database's clock.
        """
        index = (record.secret_id if record else "", verdict)
        count = self._counts.get(index)
        if count is None:
            count = self._counts[index] = _Count(record)
        count.number += 1
        count.last_time = at

    @property
    def is_empty(self) -> bool:
        """Whether nothing was counted since the last time."""
        return not self._counts

    def take(self, counters_max: int) -> Iterator[dict[Counter, Tally]]:
        """All that was counted since the last time, by this call; in parts that are made when they are asked for.

        Parameters:
            counters_max: of one part.
        """
        counts, self._counts = list(self._counts.items()), {}
        return (
            {
                Counter(
                    count.record.home.name if count.record else "",
                    UUID(int=count.record.key_id) if count.record else NO_KEY,
                    secret_id,
                    verdict,
                ): Tally(verify_count=count.number, last_time=count.last_time)
                for (secret_id, verdict), count in counts[first : first + counters_max]
            }
            for first in range(0, len(counts), counters_max)
        )


class _Count:
    """A number that grows, and whose it is."""

    __slots__ = ("last_time", "number", "record")

    def __init__(self, record: Record | None) -> None:
        self.record = record
        self.number = 0
        self.last_time: datetime | None = None


def tally(records: Iterable[tuple[str, UsageRecord]]) -> dict[Counter, Tally]:
    """What records add to the totals.

    Parameters:
        records: each with the workspace of its key.
    """
    work: dict[str, list[Any]] = {}
    verifies: dict[Counter, Tally] = {}
    for workspace, record in records:
        if record.verdict is not None:
            counter = Counter(workspace, record.key_id, record.secret_id, record.verdict)
            before = verifies.get(counter, Tally())
            last_time = max(filter(None, (before.last_time, record.last_time)), default=None)
            verifies[counter] = Tally(before.verify_count + record.count, last_time=last_time)
        if record.outcome is not None:
            found = work.get(record.secret_id)
            if found is None:
                found = work[record.secret_id] = [Counter(workspace, record.key_id, record.secret_id, None), 0, 0, 0]
            found[1 if record.outcome is Outcome.SUCCESS else 2] += record.count
            found[3] += record.units
    return verifies | {counter: Tally(0, *numbers) for counter, *numbers in work.values()}
