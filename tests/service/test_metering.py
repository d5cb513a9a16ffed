"""Metering on a real database, with a clock of the test's own."""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from io import StringIO
from typing import Any

import psycopg
import pytest

from keysvc.core.errors import Unavailable
from keysvc.core.listing import UsageFilter
from keysvc.core.usage import Batch, Counter, Group, Meter, Tally
from keysvc.core.verdict import Verdict
from keysvc.service.metering import BEAT_SECONDS, COUNTERS_MAX, SERVER_OWNER, Metering
from keysvc.store.database import Database
from keysvc.store.usage_totals import UsageTotals
from tests.records import KEY_ID, record


class Weak(UsageTotals):
    """Totals that can be told to be away, before or after what they do."""

    fail_before = 0
    fail_after = 0

    async def add(self, batch: Batch) -> bool:
        """Add a batch, or say that nobody knows."""
        if self.fail_before:
            self.fail_before -= 1
            raise Unavailable("away")
        added = await super().add(batch)
        if self.fail_after:
            self.fail_after -= 1
            raise Unavailable("away")
        return added


class Clock:
    """Monotonic seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
async def totals(database_url: str) -> AsyncIterator[Weak]:
    """Totals in a new database."""
    database = Database(database_url, limit_seconds=20)
    yield Weak(database)
    await database.close()


@pytest.fixture
def meter() -> Meter:
    """A meter."""
    return Meter()


@pytest.fixture
def clock() -> Clock:
    """A clock."""
    return Clock()


@pytest.fixture
def metering(meter: Meter, totals: Weak, clock: Clock) -> Metering:
    """Writes what the meter counts."""
    return Metering(meter, totals, "server/1", clock=clock)


async def counted(totals: UsageTotals) -> dict[str, int]:
    """How many Verifies of each secret."""
    found, _ = await totals.list_totals(UsageFilter(groups=frozenset({Group.SECRET})), None, 10_000)
    return {counter.secret_id: tally.verify_count for counter, tally in found}


def source(database_url: str) -> tuple[Any, ...] | None:
    """Number and freshness of the server's source."""
    with psycopg.connect(database_url) as connection:
        return connection.execute("SELECT batch_seq, as_of FROM usage_source WHERE id = 'server/1'").fetchone()


async def test_more_than_a_batch_is_written_in_several(
    metering: Metering, meter: Meter, totals: Weak, database_url: str
) -> None:
    """All of it, and it is called fresh only when the last one is there."""
    for number in range(250):
        meter.count(Verdict.VALID, record(secret_id=f"secret-{number}"), datetime.now().astimezone())
    totals.fail_after = 1
    with pytest.raises(Unavailable):
        await metering.flush()
    assert source(database_url) == (1, None)
    assert len(await counted(totals)) == COUNTERS_MAX
    await metering.flush()
    found = source(database_url)
    assert found is not None
    assert found[0] == 4, "what was left, and that nothing more came"
    assert found[1] is not None
    assert await counted(totals) == {f"secret-{number}": 1 for number in range(250)}


@pytest.mark.parametrize("fails", ["fail_before", "fail_after"])
async def test_what_could_not_be_written_is_written_later_and_once(
    metering: Metering, meter: Meter, totals: Weak, fails: str
) -> None:
    """Counting goes on meanwhile; nothing is lost and nothing doubled."""
    for attempt in range(1, 6):
        meter.count(Verdict.VALID, record(secret_id="secret"), datetime.now().astimezone())
        setattr(totals, fails, 2)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await metering.flush()
            meter.count(Verdict.VALID, record(secret_id="secret"), datetime.now().astimezone())
        await metering.flush()
        assert await counted(totals) == {"secret": attempt * 3}


async def test_an_idle_server_says_that_it_is_fresh(metering: Metering, clock: Clock, database_url: str) -> None:
    """Not each time, but often enough."""
    await metering.flush()
    first = source(database_url)
    clock.now += BEAT_SECONDS / 2
    await metering.flush()
    assert source(database_url) == first
    clock.now += BEAT_SECONDS
    await metering.flush()
    second = source(database_url)
    assert first is not None
    assert second is not None
    assert (first[0], second[0]) == (1, 2)
    assert first[1] < second[1]


async def test_a_server_that_ends_leaves_its_counts_alone(
    metering: Metering, meter: Meter, totals: Weak, database_url: str
) -> None:
    """Its source is gone, so that nobody waits for it to be fresh; its counts are there."""
    meter.count(Verdict.REVOKED, record(secret_id="secret"), datetime.now().astimezone())
    await metering.finish()
    assert source(database_url) is None
    assert await counted(totals) == {"secret": 1}


async def test_what_is_lost_at_the_end_is_told(metering: Metering, meter: Meter, totals: Weak, log: StringIO) -> None:
    """An end without a database is an end, and says how many Verifies it did not write."""
    meter.count(Verdict.VALID, record(secret_id="secret"), datetime.now().astimezone())
    totals.fail_before = 1
    with pytest.raises(Unavailable):
        await metering.flush()
    meter.count(Verdict.VALID, record(secret_id="secret"), datetime.now().astimezone())
    totals.fail_before = 1
    await metering.finish()
    assert await counted(totals) == {}
    (line,) = map(json.loads, log.getvalue().splitlines())
    assert (line["level"], line["event"], line["verify_count"]) == ("error", "usage lost: the database is away", 2)


async def test_a_dead_server_is_forgotten(totals: Weak, database_url: str) -> None:
    """One that ended without saying so a month ago; a caller's source, and who was only cut off, stay."""
    counter = Counter("acme-corp/sales", KEY_ID, "secret", Verdict.VALID)
    for source_id, as_of in (("server/1", await totals.read_clock()), ("caller", None)):
        await totals.add(Batch(source_id, SERVER_OWNER, 1, b"", {counter: Tally(verify_count=1)}, as_of))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE usage_source SET update_time = update_time - interval '29 days'")
        await totals.forget_dead_servers()
        assert source(database_url) is not None
        connection.execute("UPDATE usage_source SET update_time = update_time - interval '1 day'")
        await totals.forget_dead_servers()
        assert connection.execute("SELECT id FROM usage_source").fetchall() == [("caller",)]
    assert await counted(totals) == {"secret": 2}
