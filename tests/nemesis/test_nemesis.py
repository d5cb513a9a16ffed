"""Revocation is certain while servers, connections, clocks and the database go wrong: a short selection.

`make nemesis` is the long one.
"""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.nemesis.cluster import Cluster, ServerDiedError, Site
from tests.nemesis.database_faults import PostgresAborted
from tests.nemesis.fault import USUAL, Fault, seeded
from tests.nemesis.load import Round
from tests.nemesis.network_faults import Blackholed, Frozen
from tests.nemesis.report import shortcomings
from tests.nemesis.result import Size
from tests.nemesis.server_faults import Clock, Joining, Killed, Nothing, RevokerKilled, Stopped
from tests.process.running import until

pytestmark = pytest.mark.timeout(180)  # on a busy machine each of many processes takes its time

SIZE = Size(revocations=12, keys=2)

ROUNDS_MAX = 3

SELECTION = (
    Nothing,
    Stopped,
    Killed,
    PostgresAborted,
    Frozen,
    Blackholed,
    Clock,
    Joining,
    RevokerKilled,
)


@pytest.fixture(scope="module")
def cluster(embedded: None) -> Iterator[Cluster]:
    """Three servers."""
    with Cluster.open(*USUAL) as cluster:
        yield cluster


@pytest.mark.parametrize("fault_type", SELECTION, ids=lambda each: each.name)
async def test_revocation_is_certain(cluster: Cluster, fault_type: type[Fault], pytestconfig: pytest.Config) -> None:
    """No promise is broken, in a round that proves it: all servers knew the keys, and the fault met revocations.

    Where somebody cannot acknowledge for longer than a lease, somebody had to wait for that; and every server was asked
    about each key after its revocation had returned. On a busy machine a round may fail to prove it: whoever should
    have been waited for had lost its lease before, say. Then there is another one.
    """
    if reason := fault_type.why_not():
        pytest.skip(reason)
    found = list[list[str]]()
    while [] not in found and len(found) < ROUNDS_MAX:
        name = f"{fault_type.__name__.lower()}-{len(found)}"
        chance = seeded(pytestconfig.getoption("seed"), name)
        result = await Round(cluster, fault_type, chance, SIZE, name).run()
        assert result.violations == []
        assert result.keys == SIZE.revocations
        found.append(shortcomings(fault_type, result))
    assert [] in found


def test_a_server_that_dies_by_itself_is_noticed(embedded: None) -> None:
    """However its neighbours go on."""

    def let_one_die() -> None:
        with Cluster.open(Site("a")) as cluster:
            (node,) = cluster.nodes
            os.kill(node.pid, signal.SIGABRT)
            until(lambda: node.died)

    with pytest.raises(ServerDiedError, match=r"server a/1 ended with -6\n.*Aborted"):
        let_one_die()
