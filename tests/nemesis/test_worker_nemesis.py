"""Revocation is certain where several processes share an address, and one of them dies: a short selection."""

import time
from collections.abc import Iterator

import pytest

from tests.nemesis.asking import Asker
from tests.nemesis.cluster import Cluster, now
from tests.nemesis.fault import Fault, seeded
from tests.nemesis.history import Question
from tests.nemesis.load import create_keys
from tests.nemesis.report import shortcomings
from tests.nemesis.result import Result, Size
from tests.nemesis.trial import mutant
from tests.nemesis.worker_callers import WorkerCallers
from tests.nemesis.workers import COUNT, MISTAKES, ROUNDS, WorkerKilled, sites

pytestmark = pytest.mark.timeout(180)  # on a busy machine each of many processes takes its time

SIZE = Size(revocations=30)

ATTEMPTS_MAX = 4
"""On a machine that is busy with others a worker may lose its lease just before a mistake would be seen."""


async def play(cluster: Cluster, fault_type: type[Fault], seed: int) -> Result:
    """A round, whose name no other one has."""
    name = f"{fault_type.__name__.lower()}-{now() * 1000:.0f}"
    return await ROUNDS[fault_type](cluster, seeded(seed, fault_type.name), SIZE, name).run()


@pytest.fixture(scope="module")
def cluster(embedded: None) -> Iterator[Cluster]:
    """One server, which is several processes."""
    with Cluster.open(*sites(is_linked=True)) as cluster:
        yield cluster


@pytest.mark.parametrize("fault_type", ROUNDS, ids=lambda each: each.name)
async def test_revocation_is_certain(cluster: Cluster, fault_type: type[Fault], pytestconfig: pytest.Config) -> None:
    """No promise is broken, and each worker knew the keys, was asked afterwards, and was told apart by its answers.

    The row of one that is killed is removed at once, and the one in its place is asked too.
    """
    result = await play(cluster, fault_type, pytestconfig.getoption("seed"))
    assert result.violations == []
    assert shortcomings(fault_type, result) == []
    assert result.keys == SIZE.revocations
    assert {who for who, _ in result.probes} == set(result.workers)
    assert len(result.workers) == COUNT + result.faults
    assert result.away_paths.total() == result.during * result.faults


async def test_a_connection_that_has_come_to_another_worker_is_noticed(
    cluster: Cluster, pytestconfig: pytest.Config
) -> None:
    """Its answers are told to be of that one, and another connection is opened to whoever is not asked any more."""
    chance = seeded(pytestconfig.getoption("seed"), "moved")
    callers, fault = WorkerCallers(cluster, chance, COUNT), WorkerKilled(cluster, chance, lambda _: False)
    asker = Asker(time.time() - now())
    try:
        (key,) = await create_keys(asker, callers, cluster, "nemesis/moved", count=1)
        question = Question(key.secret_id)
        met = await callers.meet(asker, question)
        assert len(met) == COUNT
        await fault.begin()
        (moved,) = (each for each in callers.everybody() if each.name.endswith(f"/{fault.pid}"))
        answer = await callers.persist(lambda caller: asker.verify(caller, question), moved)
        assert answer.server in set(met) - {moved.name}
        await fault.end()
        (new,) = await callers.meet(asker, question)
        assert new not in met
        names = [each.name for each in callers.everybody()]
        assert len(set(names)) == COUNT
        assert moved.name not in names
    finally:
        await callers.close()


@pytest.mark.parametrize("name", MISTAKES)
async def test_each_mistake_of_workers_is_found(embedded: None, name: str, pytestconfig: pytest.Config) -> None:
    """A server whose workers, or whose supervisor, have one breaks the promise that it is expected to break."""
    with Cluster.open(*sites(mutant(name), is_linked=True)) as cluster:
        for fault_type, rule in MISTAKES[name].items():
            for attempt in range(ATTEMPTS_MAX):
                result = await play(cluster, fault_type, pytestconfig.getoption("seed") + attempt)
                if rule in {each.rule for each in result.violations}:
                    break
            else:
                pytest.fail(f"{fault_type.name}, after {ATTEMPTS_MAX} attempts: {result.violations}")
