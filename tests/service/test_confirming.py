"""Confirming changes, on time and a database that are simulated."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from keysvc.core.key import State
from keysvc.core.permission import Permission
from keysvc.core.receipt import Path, Receipt
from keysvc.service.callers import Call, Caller
from keysvc.service.confirming import ANSWER_SECONDS, NOTHING_SAID, PERMISSIVE_SECONDS, ChangeRequest, Wait
from tests.lease.simulation.content import BEGIN, Place
from tests.lease.simulation.network import Hold
from tests.lease.simulation.process import LEASE
from tests.lease.simulation.world import EXACT, Setting, World

TIMER_SECONDS = 1.2 * 0.6 + 0.05
JUST_COMMITTED = ChangeRequest(wait=Wait.COMMIT)


@pytest.fixture
def world() -> Iterator[World]:
    """Two servers, who remember all keys."""
    world = World(Setting((EXACT, EXACT)))
    world.run(0.05)
    world.verify_everywhere()
    world.run(0.05)
    yield world
    world.close()


class Asked:
    """A change that the first server is asked for, and what came of it.

    Parameters:
        seconds: how long its caller waits.
    """

    def __init__(
        self, world: World, method: str, asked: ChangeRequest = NOTHING_SAID, seconds: float | None = None
    ) -> None:
        process = world.processes[0]
        self.place: Place = world.content.places[0]
        self.answered_at: float | None = None
        self.result: tuple[Any, Receipt] | None = None
        self.task: asyncio.Task[None] | None = None
        ends = None if seconds is None else process.clock.read() + seconds
        call = Call(
            *(Caller("test", (Permission.OPERATOR,)), "test", "", ""),
            time_left=lambda: None if ends is None else ends - process.clock.read(),
        )
        arguments = (self.place.key_id, None) if method == "revoke" else (self.place.key_id,)

        async def make() -> None:
            change = getattr(process.calls._lifecycle, method)
            self.result = await change(call, *arguments, asked)
            self.answered_at = world.timeline.now

        async def start() -> None:
            self.task = asyncio.create_task(make())

        process.spawn(start)

    @property
    def receipt(self) -> Receipt:
        """What it was told."""
        assert self.result is not None
        return self.result[1]


def silence(world: World) -> None:
    """Let the second server not be heard of any more."""
    world.network.cuts["b", LEASE] = world.timeline.now + 60


def test_a_receipt_says_how_it_became_certain(world: World) -> None:
    """And how long that took, after the commit; with ACK there is nobody to be named."""
    asked = Asked(world, "revoke")
    world.run(0.1)
    receipt = asked.receipt
    assert (receipt.path, receipt.is_complete, receipt.revision.seq) == (Path.ACK, True, 1)
    assert (receipt.unacknowledged, receipt.effective_by) == ((), None)
    assert 0 < receipt.waited_seconds < 0.03


def test_who_did_not_answer_is_named(world: World) -> None:
    """By its host, in the receipt of a change that had to wait for it."""
    silence(world)
    asked = Asked(world, "revoke")
    world.run(1)
    assert (asked.receipt.path, asked.receipt.unacknowledged) == (Path.TIMER, ("b",))
    assert TIMER_SECONDS <= asked.receipt.waited_seconds < TIMER_SECONDS + 0.03


def test_a_revocation_is_final_when_its_receipt_is_complete(world: World) -> None:
    """And not before."""
    silence(world)
    early, late = Asked(world, "revoke", JUST_COMMITTED), Asked(world, "revoke")
    world.run(1)
    assert early.result is not None
    assert late.result is not None
    assert (early.result[0].state, late.result[0].state) == (State.REVOKING, State.REVOKED)


def test_a_repeat_waits_for_the_same(world: World) -> None:
    """For the revision of the first one, whoever still waits for that."""
    silence(world)
    first = Asked(world, "revoke", JUST_COMMITTED)
    world.run(0.1)
    assert first.receipt.path is None
    second = Asked(world, "revoke")
    world.run(0.1)
    assert second.result is None
    world.run(1)
    assert (second.receipt.revision, second.receipt.path) == (first.receipt.revision, Path.TIMER)


def test_who_waits_for_the_commit_alone_is_told_by_when_it_is_effective(world: World) -> None:
    """At the latest, by the database's clock; never too early."""
    silence(world)
    asked = Asked(world, "suspend", JUST_COMMITTED)
    world.run(0.05)
    receipt = asked.receipt
    assert receipt.path is None
    assert receipt.effective_by is not None
    effective = (receipt.effective_by - BEGIN) / timedelta(seconds=1)
    longest = 1.2 * world.twin.lease_ms_max / 1000 + 0.05
    assert 0.1 + longest <= effective < 0.1 + longest + 0.05


def test_what_only_adds_does_not_wait_for_long(world: World) -> None:
    """Nobody is harmed who does not know of it yet."""
    Asked(world, "suspend")
    world.run(0.1)
    silence(world)
    asked = Asked(world, "resume")
    world.run(PERMISSIVE_SECONDS - 0.01)
    assert asked.result is None
    world.run(0.05)
    assert asked.receipt.path is None
    assert not asked.receipt.is_complete


def test_an_answer_comes_before_the_caller_goes(world: World) -> None:
    """Whatever remains to be waited for; the wait goes on without it."""
    silence(world)
    asked = Asked(world, "revoke", seconds=0.5)
    world.run(1)
    assert asked.receipt.path is None
    assert asked.answered_at == pytest.approx(0.1 + 0.5 - ANSWER_SECONDS, abs=0.01)
    assert not world.content.is_open(1)


def test_a_caller_without_time_is_answered_when_the_change_is_made(world: World) -> None:
    """Not before."""
    silence(world)
    asked = Asked(world, "revoke", seconds=0.01)
    world.run(0.05)
    assert asked.receipt.revision.seq == 1
    assert asked.receipt.path is None


@pytest.mark.parametrize("seconds", [0.0, 0.002, 0.1], ids=["at once", "before the commit", "in the barrier"])
def test_a_call_that_is_cancelled_stops_nothing(world: World, seconds: float) -> None:
    """Neither the change nor its barrier."""
    silence(world)
    asked = Asked(world, "revoke")
    world.run(seconds)
    assert asked.task is not None
    world.processes[0].loop.call_soon(asked.task.cancel)
    world.run(1)
    assert asked.result is None
    assert world.twin.seq == 1
    assert not world.content.is_open(1)


def test_a_commit_whose_answer_is_lost_is_confirmed_once(world: World) -> None:
    """The transaction is run again, finds itself, and waits from then on."""
    world.network.holds["a", "commit"].append(Hold(there=0.2, loses=True))
    asked = Asked(world, "revoke")
    world.run(0.1)
    assert asked.result is None
    world.run(0.3)
    assert (asked.receipt.revision.seq, asked.receipt.path) == (1, Path.ACK)
    assert world.twin.seq == 1


def test_what_changes_nothing_waits_for_what_there_is(world: World) -> None:
    """A key that was never changed waits for nobody."""
    silence(world)
    asked = Asked(world, "resume")
    world.run(0.05)
    assert (asked.receipt.revision.seq, asked.receipt.path) == (0, Path.ACK)
