import os

import pytest

from keysvc.capacity import CONNECTIONS_ENOUGH, CONNECTIONS_LEAST, Lanes, connections_each, usable_cores

LINES = 4
"""Look-ups, the lease, barriers and wake-ups."""


@pytest.mark.parametrize("workers", range(1, 17))
def test_sixteen_workers_fit_a_database_as_it_is_by_default(workers: int) -> None:
    """Of 97 connections five are left, beside that of the supervisor; no worker has more than it can use."""
    each = connections_each(workers)
    assert CONNECTIONS_LEAST <= each <= CONNECTIONS_ENOUGH
    assert workers * each + 1 <= 97 - 5


def test_more_workers_have_what_they_need() -> None:
    """A database that shall serve them must allow more connections."""
    assert connections_each(100) == CONNECTIONS_LEAST


@pytest.mark.parametrize("connections", range(CONNECTIONS_LEAST, 40))
def test_all_connections_are_shared_out(connections: int) -> None:
    """None is forgotten and none is promised twice; whatever there is, there is a lane for transactions."""
    lanes = Lanes.of(connections)
    assert LINES + lanes.transactions + lanes.readings + 2 * lanes.background == connections
    assert lanes.transactions >= max(1, lanes.readings)


def test_how_connections_are_shared_out() -> None:
    """The least there can be, what sixteen and fifteen workers have, and what is enough."""
    assert Lanes.of(5) == Lanes(1, 0, background=False)
    assert Lanes.of(6) == Lanes(1, 1, background=False)
    assert Lanes.of(8) == Lanes(3, 1, background=False)
    assert Lanes.of(9) == Lanes(2, 1, background=True)
    assert Lanes.of(CONNECTIONS_ENOUGH) == Lanes() == Lanes(4, 2, background=True)


def test_processors_that_may_not_be_used_do_not_count() -> None:
    """As with `taskset`; and a large machine is not filled with workers that nobody asked for."""
    allowed = os.sched_getaffinity(0)
    assert usable_cores() == min(16, len(allowed))
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
