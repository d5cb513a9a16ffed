"""The nemesis finds mistakes: a server with one breaks a promise, by a schedule that a server without one survives."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nemesis import client_faults
from tests.nemesis.cluster import Cluster
from tests.nemesis.schedules import SCHEDULES, SHOWN
from tests.nemesis.trial import SITES, attempt, mutant
from tests.nemesis.workers import MISTAKES

pytestmark = pytest.mark.timeout(180)  # on a busy machine each of many processes takes its time

ATTEMPTS_MAX = 4
"""On a machine that is busy with others a server may lose its lease just before its mistake would be seen."""

RULES = {"final_at_once": "A", "keeps_workspaces": "verdict"}
"""The rule that a mistake breaks, if it is not (S)."""


@pytest.fixture(scope="module")
def cluster(embedded: None) -> Iterator[Cluster]:
    """Two servers."""
    with Cluster.open(*SITES) as cluster:
        yield cluster


@pytest.mark.parametrize("name", sorted(SHOWN))
async def test_each_mistake_is_found(cluster: Cluster, name: str) -> None:
    """Its server breaks the promise that it is expected to break."""
    for _ in range(ATTEMPTS_MAX):
        found = await attempt(cluster, [SHOWN[name]], mutant(name))
        if RULES.get(name, "S") in {each.rule for each in found}:
            return
    pytest.fail(f"after {ATTEMPTS_MAX} attempts: {found}")


async def test_without_a_mistake_no_schedule_finds_anything(cluster: Cluster) -> None:
    """Keysvc as it is keeps its promises by all of them."""
    assert await attempt(cluster, [*SCHEDULES]) == []


def test_no_mutant_is_forgotten() -> None:
    """Each is tried, by schedules or rounds that keysvc survives."""
    tried = SHOWN.keys() | MISTAKES.keys() | client_faults.MISTAKES.keys()
    assert {path.stem for path in Path(__file__).with_name("mutants").glob("*.py")} == tried
    assert set(SHOWN.values()) <= set(SCHEDULES)
