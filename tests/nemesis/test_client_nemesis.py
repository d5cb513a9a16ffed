"""Revocation is certain where clients answer for themselves: a short selection, and mistakes that are found."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.nemesis.client_faults import (
    MISTAKES,
    Clients,
    ClientsCutOff,
    ClientsMoving,
    ClientStopped,
    ServerKilledUnderClients,
)
from tests.nemesis.cluster import Cluster, now
from tests.nemesis.fault import USUAL, seeded
from tests.nemesis.load import Round
from tests.nemesis.report import shortcomings
from tests.nemesis.result import Result, Size
from tests.nemesis.trial import mutant

pytestmark = pytest.mark.timeout(180)  # on a busy machine each of many processes takes its time

SIZE = Size(revocations=12, keys=1)

SELECTION = (ClientStopped, ClientsCutOff, ServerKilledUnderClients, ClientsMoving)

ROUNDS_MAX = 3

ATTEMPTS_MAX = 4
"""On a machine that is busy with others somebody may lose its lease just before a mistake would be seen."""


async def play(cluster: Cluster, fault_type: type[Clients], seed: int) -> Result:
    """A round, whose name no other one has."""
    name = f"{fault_type.__name__.lower()}-{now() * 1000:.0f}"
    return await Round(cluster, fault_type, seeded(seed, fault_type.name), SIZE, name).run()


@pytest.fixture(scope="module")
def cluster(embedded: None) -> Iterator[Cluster]:
    """Three servers."""
    with Cluster.open(*USUAL) as cluster:
        yield cluster


@pytest.mark.parametrize("fault_type", SELECTION, ids=lambda each: each.name)
async def test_revocation_is_certain(cluster: Cluster, fault_type: type[Clients], pytestconfig: pytest.Config) -> None:
    """No promise is broken, in a round that proves it: servers and clients knew all keys, and were asked afterwards.

    On a busy machine a round may fail to prove it; then there is another one.
    """
    found = list[list[str]]()
    while [] not in found and len(found) < ROUNDS_MAX:
        result = await play(cluster, fault_type, pytestconfig.getoption("seed") + len(found))
        assert result.violations == []
        assert result.keys == SIZE.revocations
        found.append(shortcomings(fault_type, result))
    assert [] in found


@pytest.mark.parametrize("name", MISTAKES)
async def test_each_mistake_is_found(embedded: None, name: str, pytestconfig: pytest.Config) -> None:
    """A server or a client that has one breaks (S)."""
    fault_type, sites = MISTAKES[name], USUAL
    if name.startswith("client_"):
        fault_type = type("Mutant", (fault_type,), {"program": mutant(name)})
    else:
        sites = tuple(replace(site, program=mutant(name)) for site in USUAL)
    with Cluster.open(*sites) as cluster:
        for attempt in range(ATTEMPTS_MAX):
            result = await play(cluster, fault_type, pytestconfig.getoption("seed") + attempt)
            if "S" in {each.rule for each in result.violations}:
                return
    pytest.fail(f"after {ATTEMPTS_MAX} attempts: {result.violations}")
