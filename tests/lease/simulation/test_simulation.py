"""Several servers with the real protocol, their database and network simulated: whatever happens, they keep it."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from keysvc.core.receipt import Path
from keysvc.core.verdict import Verdict
from keysvc.service.verifying import Basis
from tests.lease.simulation.mistakes.table import MISTAKES
from tests.lease.simulation.schedule import EVERYTHING, run, schedules
from tests.lease.simulation.steps import Step
from tests.lease.simulation.world import EXACT, FAST, SLOW, Machine, Setting

SETTINGS = {
    "two servers": Setting(hidden=1, is_sweeping=True),
    "three servers, one of them answers for longer when it is cut off": Setting(
        (FAST, Machine(stale_seconds=0.9, rate=SLOW.rate), Machine(lease_seconds=0.9)), hidden=1, is_sweeping=True
    ),
    "three servers, two of them start later": Setting(
        (FAST, SLOW, EXACT), absent=(0, 2), is_sweeping=True, is_primed=False
    ),
}

HAPPENS = (
    *((basis, Verdict.VALID) for basis in Basis),
    *((basis, Verdict.REVOKED) for basis in (Basis.MEMORY, Basis.DATABASE)),
    *((basis, Verdict.SUSPENDED) for basis in (Basis.MEMORY, Basis.DATABASE)),
    *((basis, Verdict.WORKSPACE_SUSPENDED) for basis in (Basis.MEMORY, Basis.DATABASE)),
    *((basis, Verdict.NOT_FOUND) for basis in (Basis.MEMORY, Basis.DATABASE)),
    (Basis.DATABASE, Verdict.REVOKING),
    *(Path.ACK, Path.TIMER, "nobody knows"),
    *("collected", "no member", "paused"),
)
"""What must have happened in some of the schedules, and more than once."""


@pytest.mark.timeout(1800)  # for the long profile
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
@settings(suppress_health_check=list(HealthCheck))
@given(schedule=schedules(EVERYTHING))
def test_all_promises_are_kept(setting: Setting, schedule: list[Step]) -> None:
    """(S), (A), (E), and the revision of every answer is that of its content; in the end everything is well again."""
    run(schedule, setting, settle=True)


def test_what_can_happen_does() -> None:
    """Schedules lead everywhere: those that Hypothesis makes, or at least those that show a mistake elsewhere."""
    seen: Counter[Any] = Counter()

    @seed(0)
    @settings(max_examples=100, database=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
    @given(schedule=schedules(EVERYTHING, least=6))
    def look(schedule: list[Step]) -> None:
        setting = SETTINGS["three servers, one of them answers for longer when it is cut off"]
        seen.update(run(schedule, setting, settle=True).seen)

    look()
    for mistake in MISTAKES.values():
        seen.update(run(mistake.schedule, mistake.setting).seen)
    assert not [each for each in HAPPENS if seen[each] < 2]


def test_a_run_is_the_same_each_time() -> None:
    """A schedule decides everything: what is found once is found again."""
    traces = []

    @seed(1)
    @settings(max_examples=5, database=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
    @given(schedule=schedules(EVERYTHING, least=6))
    def twice(schedule: list[Step]) -> None:
        first, second = (run(schedule, SETTINGS["two servers"]) for _ in range(2))
        traces.append(first.trace)
        assert first.trace == second.trace

    twice()
    assert any(traces)
