"""Waiting for barriers, on time and a database that are simulated."""

from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Any

import pytest

from keysvc.core.errors import Unavailable
from keysvc.core.receipt import Path
from tests.lease.simulation.network import Hold
from tests.lease.simulation.parts import Parts
from tests.lease.simulation.process import BARRIER, LEASE
from tests.lease.simulation.world import EXACT, Setting, World
from tests.lease.twin import TwinRegistry

TIMER_SECONDS = 1.2 * 0.6 + 0.05


class FailsToMark(TwinRegistry):
    """Cannot mark changes, for a reason that nobody thought of."""

    async def mark_final(self, _seqs: Collection[int]) -> None:
        """Fail."""
        raise RuntimeError("unexpected")


class FailsToWake(TwinRegistry):
    """Cannot wake anybody."""

    async def wake(self, _seq: int) -> None:
        """Fail."""
        raise Unavailable("the queue of wake-ups is full")


@pytest.fixture
def world() -> Iterator[World]:
    """Two servers, who remember all keys."""
    yield from opened(World(Setting((EXACT, EXACT))))


def opened(world: World) -> Iterator[World]:
    """Primed; closed afterwards."""
    world.run(0.05)
    world.verify_everywhere()
    world.run(0.05)
    yield world
    world.close()


def silence(world: World, seconds: float, name: str = "b", line: str = LEASE) -> None:
    """Let a server not be heard of any more."""
    world.network.cuts[name, line] = world.timeline.now + seconds


def revoke(world: World, place: int = 0) -> None:
    """Revoke a key at the first server."""
    world.processes[0].calls.revoke(world.content.places[place])


def receipts(world: World) -> dict[Any, int]:
    """How often changes became certain, by path."""
    return {path: world.seen[path] for path in Path if world.seen[path]}


def test_it_ends_when_everybody_has_acknowledged(world: World) -> None:
    """At once, since everybody is woken."""
    revoke(world)
    world.run(0.03)
    assert receipts(world) == {Path.ACK: 1}


def test_it_ends_by_the_timer_if_somebody_does_not_answer(world: World) -> None:
    """Not before, and not long after: one member that says nothing costs its lease, and no more."""
    silence(world, 60)
    revoke(world)
    world.run(TIMER_SECONDS)
    assert receipts(world) == {}
    world.run(0.03)
    assert receipts(world) == {Path.TIMER: 1}


def test_the_timer_runs_without_a_database(world: World) -> None:
    """Nothing needs to be read for it, if it has been read once for whom it runs."""
    silence(world, 60)
    revoke(world)
    world.run(0.1)
    silence(world, 60, "a", BARRIER)
    world.run(TIMER_SECONDS + 1.2)
    assert receipts(world) == {Path.TIMER: 1}


def test_changes_wait_together(world: World) -> None:
    """One loop asks for all of them."""
    counted = []
    count = world.twin.count
    world.twin.count = lambda session: counted.append(session) or count(session)
    for place in range(4):
        revoke(world, place)
    world.run(0.1)
    assert receipts(world) == {Path.ACK: 4}
    assert len(counted) < 8


def test_it_asks_more_and_more_rarely(world: World) -> None:
    """At once, then at most 40 times a second."""
    counted = []
    count = world.twin.count
    world.twin.count = lambda session: counted.append(world.timeline.now) or count(session)
    silence(world, 60)
    revoke(world)
    world.run(0.6)
    pauses = [later - earlier for earlier, later in pairwise(counted)]
    assert pauses[0] < 0.008
    assert 0.025 < pauses[-1] < 0.035
    assert pauses == sorted(pauses) or max(pauses) < 0.04


def test_members_are_woken_again(world: World) -> None:
    """Since a wake-up may get lost: every quarter of a second."""
    heard = []
    world.twin.hear = lambda _seq: heard.append(world.timeline.now)
    silence(world, 60)
    revoke(world)
    world.run(0.7)
    assert len(heard) == 3


def test_an_error_of_a_wake_up_matters_to_nobody() -> None:
    """Members hear of the change at their next renewals."""
    for world in opened(World(Setting((EXACT, EXACT)), Parts(registry=FailsToWake))):
        revoke(world)
        world.run(0.3)
        assert receipts(world) == {Path.ACK: 1}


def test_what_cannot_be_marked_is_certain_all_the_same() -> None:
    """Whatever the error is: the receipt is handed out, and later ones are, too."""
    for world in opened(World(Setting((EXACT, EXACT)), Parts(registry=FailsToMark))):
        for place in range(2):
            revoke(world, place)
            world.run(0.1)
        assert receipts(world) == {Path.ACK: 2}
        assert world.content.is_open(1)


def test_a_sweep_finishes_what_others_have_begun(world: World) -> None:
    """The change of a server that died is marked final by another one, after its barrier, and not before a second."""
    silence(world, 60)
    revoke(world)
    world.run(0.1)
    world.kill(world.processes[0])
    world.processes[1].sweep()
    world.run(0.5)
    assert not world.processes[1].waiting._open
    world.run(0.5)
    world.processes[1].sweep()
    world.run(2)
    assert not world.content.is_open(1)


def test_a_sweep_does_not_wait_twice(world: World) -> None:
    """For what this server waits for already."""
    world.twin.lease_ms_max = 3000
    silence(world, 60, "a", BARRIER)
    silence(world, 60)
    revoke(world)
    world.run(1.2)
    world.network.cuts.clear()
    (before,) = world.processes[0].waiting._open
    world.processes[0].sweep()
    world.run(0.01)
    assert list(world.processes[0].waiting._open) in ([before], [])


def test_a_sweep_collects_the_dead(world: World) -> None:
    """When their beat has stood still for three times what anybody would wait for them."""
    world.kill(world.processes[1])
    sweeper = world.processes[0]
    sweeper.sweep()
    world.run(3 * TIMER_SECONDS - 0.01)
    sweeper.sweep()
    world.run(0.02)
    assert len(world.twin.rows) == 2
    sweeper.sweep()
    world.run(0.01)
    assert [row.host for row in world.twin.rows.values()] == ["a"]


def test_a_failover_makes_it_wait_for_all_leases(world: World) -> None:
    """If the change is still there; acknowledgements mean nothing, as rows may be missing."""
    world.network.holds["a", "count"].append(Hold(there=0.1))
    revoke(world)
    world.run(0.05)
    world.promote([world.processes[1]])
    world.run(TIMER_SECONDS - 0.1)
    assert receipts(world) == {}
    world.run(0.3)
    assert receipts(world) == {Path.TIMER: 1}


def test_a_change_that_a_failover_has_lost_is_not_confirmed(world: World) -> None:
    """Its caller learns that, and may repeat it."""
    world.network.holds["a", "count"].append(Hold(there=0.1))
    revoke(world)
    world.run(0.05)
    world.promote([])
    world.content.go_back(0)
    world.run(1)
    assert receipts(world) == {}
    assert world.seen["nobody knows"] == 1


def test_another_change_with_the_number_of_a_lost_one_confirms_nothing(world: World) -> None:
    """After the failover somebody else made it; the first caller must not believe that it is theirs."""
    world.network.holds["a", "count"].append(Hold(there=0.1))
    world.network.holds["a", "has_change"].append(Hold(there=0.4))
    revoke(world)
    world.run(0.05)
    world.promote([])
    world.content.go_back(0)
    world.run(0.3)
    world.processes[1].calls.suspend(world.content.places[1])
    world.run(3)
    assert world.content.state.keys[world.content.places[1].key_id].suspended
    assert world.seen["nobody knows"] == 1
    assert receipts(world) == {Path.TIMER: 1}


def test_who_stops_says_so(world: World) -> None:
    """Whoever still waits hears it at once; what it waited for a sweep finishes."""
    silence(world, 60)
    revoke(world)
    world.run(0.1)
    world.processes[0].leave()
    world.run(0.1)
    assert world.seen["nobody knows"] == 1


def test_it_tells_how_long_barriers_took(world: World) -> None:
    """By path: how many, and of the last ones the middle, the slow ones and the slowest."""
    waiting = world.processes[0].waiting
    assert waiting.report() == {"ack": {"count": 0}, "timer": {"count": 0}}
    revoke(world)
    world.run(0.1)
    silence(world, 60)
    revoke(world, 1)
    world.run(1)
    report = waiting.report()
    assert report["ack"]["count"] == report["timer"]["count"] == 1
    assert 0 < report["ack"]["p50_ms"] == report["ack"]["p99_ms"] == report["ack"]["max_ms"] < 30
    assert 1000 * TIMER_SECONDS <= report["timer"]["max_ms"] < 1000 * TIMER_SECONDS + 40
