"""Renewing, on time and a database that are simulated."""

import math
from collections.abc import Iterator

import pytest

from keysvc.lease.holder import Standing
from tests.lease.simulation.network import Hold
from tests.lease.simulation.process import LEASE, Process
from tests.lease.simulation.promises import WrongError
from tests.lease.simulation.world import EXACT, Machine, Setting, World

USUAL = Machine(lease_seconds=3.0)


@pytest.fixture
def world() -> Iterator[World]:
    """One server with the usual lease."""
    opened = World(Setting((USUAL,)))
    yield opened
    opened.close()


def held(world: World, statement: str, *holds: Hold) -> None:
    """Let something happen to the next statements of a kind."""
    world.network.holds["a", statement].extend(holds)


def cut(world: World, seconds: float) -> None:
    """Let nothing get through for a while."""
    world.network.cuts["a", LEASE] = world.timeline.now + seconds


def sent(world: World) -> int:
    """How often the server has renewed."""
    (row,) = world.twin.rows.values()
    return row.beat


def first(world: World) -> Process:
    """The server."""
    return world.processes[0]


def test_it_joins_and_renews_at_once(world: World) -> None:
    """So that there is a lease as soon as there can be."""
    world.run(0.01)
    assert first(world).holder.standing() is Standing.LEASE
    assert sent(world) > 0


def test_it_renews_again_and_again(world: World) -> None:
    """Once in each ``renew_seconds``, from the end of one to the beginning of the next."""
    world.run(0.01)
    before = sent(world)
    world.run(10 * (0.75 + 0.002))
    assert sent(world) - before == 10


def test_it_starts_without_a_database(world: World) -> None:
    """Whoever starts waits for one attempt; then it goes on by itself."""
    cut(world, 2.5)
    world.run(1.1)
    process = first(world)
    assert process._is_listening
    assert process.holder.standing() is Standing.NOTHING
    world.run(3)
    assert process.holder.standing() is Standing.LEASE


def test_what_was_not_answered_is_tried_again_soon(world: World) -> None:
    """After a third of a lease and a quarter of the usual pause: twice, before the lease is over."""
    world.run(0.1)
    before = sent(world)
    held(world, "renew", Hold(there=math.inf), Hold(there=math.inf))
    world.run(0.75 + 2 * (1.0 + 0.75 / 4) + 0.01)
    assert first(world).holder.standing() is Standing.LEASE
    assert sent(world) == before + 1


def test_a_wake_up_is_heard_and_acknowledged_at_once(world: World) -> None:
    """One fetch, and one renewal that says so."""
    world.run(0.1)
    before = sent(world)
    world.twin.change("keys", ())
    first(world).hear(1)
    world.run(0.01)
    (row,) = world.twin.rows.values()
    assert (row.applied, row.beat) == (1, before + 1)


def test_a_wake_up_for_what_is_known_does_nothing(world: World) -> None:
    """It has been acknowledged."""
    world.run(0.1)
    world.twin.change("keys", ())
    first(world).hear(1)
    world.run(0.01)
    before = sent(world)
    first(world).hear(1)
    world.run(0.01)
    assert sent(world) == before


def test_news_of_a_renewal_are_acknowledged_at_once(world: World) -> None:
    """By another renewal, also if no wake-up has come."""
    world.run(0.1)
    world.twin.change("keys", ())
    world.run(0.76)
    (row,) = world.twin.rows.values()
    assert row.applied == 1


def test_a_member_without_a_row_joins_again(world: World) -> None:
    """Under another id."""
    world.run(0.1)
    (before,) = world.twin.rows
    world.twin.leave([before])
    world.run(1)
    (after,) = world.twin.rows
    assert after != before
    assert first(world).holder.standing() is Standing.LEASE


def test_rows_of_joins_that_were_given_up_are_removed(world: World) -> None:
    """The answer was lost, and the row was there: the next join takes its place."""
    held(world, "join", Hold(back=math.inf), Hold(back=math.inf))
    world.run(0.5)
    (lost,) = world.twin.rows
    world.run(3)
    assert lost not in world.twin.rows
    assert len(world.twin.rows) == 1


def test_a_lease_that_is_not_allowed_is_not_had(world: World) -> None:
    """Whoever starts hears of that."""
    world.twin.lease_ms_max = 2999
    with pytest.raises(
        WrongError, match=r"LeaseTooLongError\('a lease of 3000 ms is longer than this database allows'\)"
    ):
        world.run(0.1)
    assert not world.twin.rows


def test_a_lease_that_is_not_allowed_any_more_is_asked_for_again(world: World) -> None:
    """Until it is allowed."""
    world.run(0.1)
    world.twin.lease_ms_max = 2999
    world.twin.rows.clear()
    world.run(3)
    assert not world.twin.rows
    assert first(world).holder.standing() is Standing.NOTHING
    world.twin.lease_ms_max = 3000
    world.run(1)
    assert first(world).holder.standing() is Standing.LEASE


def test_who_leaves_removes_its_row(world: World) -> None:
    """After it has given up its lease."""
    world.run(0.1)
    process = first(world)
    process.leave()
    world.run(0.1)
    assert not world.twin.rows
    assert process.is_over


def test_who_leaves_does_not_wait_for_a_database_that_says_nothing(world: World) -> None:
    """Half a second, and then its row is left to others."""
    world.run(0.1)
    cut(world, 60)
    process = first(world)
    process.leave()
    world.run(0.4)
    assert process.holder.standing() is Standing.NOTHING
    assert not process.is_over
    world.run(0.2)
    assert process.is_over
    assert len(world.twin.rows) == 1


def test_an_unexpected_error_costs_the_lease_alone() -> None:
    """Without one everything is read; it is tried again."""
    world = World(Setting((EXACT,)))
    world.run(0.1)
    process = first(world)
    renew, world.twin.renew = world.twin.renew, lambda *_args: 1 / 0
    world.run(0.3)
    assert process.holder.standing() is Standing.NOTHING
    world.twin.renew = renew
    world.run(0.5)
    assert process.holder.standing() is Standing.LEASE
    world.close()
