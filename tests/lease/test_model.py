"""The lease protocol keeps its promises in every state that it can reach, and each mistake breaks one."""

from itertools import chain

import pytest

from tests.lease.configurations import FOUND, LEASES, MORE, USUAL
from tests.lease.exploring import Explorer
from tests.lease.model import Configuration, Feature, Mistake

FLOORS = {
    "a holder": 1_000,
    "a member that comes and goes": 90_000,
    "restarts of the database": 1_500,
    "overlapping changes": 40_000,
    "two holders": 100_000,
    "two holders and a sweeper": 80_000,
    "leases of two lengths": 200_000,
    "a promotion": 150_000,
    "a client": 20_000,
    "a client of a member": 200_000,
    "a client of one that dies": 80_000,
    "a client of one that is reaped": 400_000,
    "a client that is told between renewals": 30_000,
    "a client that moves": 80_000,
}
"""Fewer states than these were visited only if something does not happen any more."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("configuration", USUAL, ids=lambda each: each.name)
def test_the_protocol_is_safe_in_all_states(configuration: Configuration) -> None:
    """(S), (A) and (E) are true in every state that can be reached, and all of them were visited."""
    found = Explorer(configuration).explore()
    assert found.wrong is None, found.trace
    assert found.states > FLOORS[configuration.name]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("configuration", "mistake"),
    [
        pytest.param(configuration, mistake, id=mistake.name.lower())
        for configuration, mistakes in FOUND.items()
        for mistake in mistakes
        if configuration in USUAL
    ],
)
def test_each_mistake_is_found(configuration: Configuration, mistake: Mistake) -> None:
    """Each breaks a promise, and its trace shows how: whoever follows it arrives there again."""
    explorer = Explorer(configuration, mistake)
    found = explorer.explore()
    assert found.wrong
    assert explorer.replay(found.trace) == found.wrong
    assert all(explorer.replay(found.trace[:length]) is None for length in range(len(found.trace)))


def test_no_mistake_and_no_feature_is_forgotten() -> None:
    """Each mistake is looked for once, and each feature happens in some configuration that is explored completely."""
    assert sorted(chain.from_iterable(FOUND.values()), key=lambda each: each.name) == sorted(
        Mistake, key=lambda each: each.name
    )
    assert frozenset[Feature]().union(*(each.features for each in (*USUAL, *MORE))) == set(Feature)
    assert {each.name for each in USUAL} == FLOORS.keys()
    assert FOUND.keys() <= {*USUAL, *MORE}


def test_a_trace_tells_what_went_wrong() -> None:
    """It names who did what, in order, and is as short as can be."""
    found = Explorer(LEASES, Mistake.WAIT_OF_ONE).explore()
    assert found.wrong == "(S): judged at revision 0 after the receipt of revision 1, by a holder from memory"
    assert found.trace == [
        "holder 2 sends a renewal",
        "holder 2's renewal is executed",
        "holder 2 hears its renewal, and applies what it brings",
        "holder 2 looks up, and remembers",
        "revoker commits",
        "revoker hears of its commit, and begins the barrier",
        "tick",
        "revoker returns (TIMER)",
    ]


@pytest.mark.parametrize("mistake", [None, Mistake.WAIT_TOO_SHORT])
def test_holders_are_alike(mistake: Mistake | None) -> None:
    """To visit one of two states that differ by the holders' order leaves out nothing else."""
    configuration = Configuration("two alike", (2, 2), features=frozenset({Feature.SLOW_LOOK_UPS}))
    half = Explorer(configuration, mistake).explore()
    everything = Explorer(configuration, mistake).explore(alike=False)
    assert half.states < everything.states <= 2 * half.states
    assert half.wrong == everything.wrong
    assert len(half.trace) == len(everything.trace)
