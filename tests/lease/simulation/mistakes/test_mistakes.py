"""The simulation finds every mistake: one that it would not find, it would not find in the protocol either."""

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.lease.simulation.mistakes.holding import JoinsWithMemory, RemembersAlways
from tests.lease.simulation.mistakes.membership import WithCollectorThatGoesOn
from tests.lease.simulation.mistakes.mistake import Mistake
from tests.lease.simulation.mistakes.table import MISTAKES
from tests.lease.simulation.parts import REAL, Parts
from tests.lease.simulation.promises import WrongError
from tests.lease.simulation.schedule import run, schedules
from tests.lease.simulation.steps import Step

COVERED = {
    "memory survives join, and nothing is remembered before": ("memory survives join", Parts(holder=JoinsWithMemory)),
    "remembered before a join, and flushed by it": ("memory survives join", Parts(holder=RemembersAlways)),
    "renewals are not durable, and collectors begin anew": (
        "renewal not durable",
        Parts(asynchronous=frozenset({"renew"})),
    ),
    "collectors go on, and renewals are durable": ("renewal not durable", Parts(waiting=WithCollectorThatGoesOn)),
}
"""Where two measures cover each other: the mistake without both of them, and parts that lack one."""


def search(mistake: Mistake, parts: Parts, attempts: int) -> None:
    """Let Hypothesis look for a schedule that breaks a promise, the same ones each time."""

    @seed(0)
    @settings(max_examples=attempts, database=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
    @given(schedule=schedules(mistake.kinds, least=5))
    def look(schedule: list[Step]) -> None:
        run(schedule, mistake.setting, parts)

    look()


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_each_mistake_breaks_a_promise(mistake: Mistake) -> None:
    """A schedule shows it, and the protocol without the mistake keeps its promises in the same schedule."""
    with pytest.raises(WrongError) as caught:
        run(mistake.schedule, mistake.setting, mistake.parts)
    assert str(caught.value).startswith(mistake.breaks), caught.value
    run(mistake.schedule, mistake.setting, REAL, settle=True)


@pytest.mark.timeout(600)  # for the long profile
@pytest.mark.parametrize(
    "mistake", [pytest.param(mistake, id=name) for name, mistake in MISTAKES.items() if not mistake.is_rare]
)
def test_hypothesis_finds_mistakes(mistake: Mistake) -> None:
    """It puts together such schedules by itself; what takes it long, it looks for in the long profile alone."""
    if mistake.is_slow and settings.get_current_profile_name() != "long":
        pytest.skip("takes long: --hypothesis-profile=long")
    with pytest.raises(WrongError):
        search(mistake, mistake.parts, 1000)


@pytest.mark.parametrize(("name", "parts"), COVERED.values(), ids=COVERED.keys())
def test_one_of_two_measures_is_enough(name: str, parts: Parts) -> None:
    """What breaks a promise without both of them breaks none without one."""
    run(MISTAKES[name].schedule, MISTAKES[name].setting, parts, settle=True)
    search(MISTAKES[name], parts, 30)


def test_a_database_that_went_back_is_noticed() -> None:
    """Also by the protocol without a mistake this is survived, though no assumption allows it."""
    search(MISTAKES["seq going back ignored"], REAL, 100)


def test_a_trace_tells_what_went_wrong() -> None:
    """It says what is wrong first, and then what happened when, in order."""
    mistake = MISTAKES["promotion ignored"]
    with pytest.raises(WrongError) as caught:
        run(mistake.schedule, mistake.setting, mistake.parts)
    wrong, *lines = str(caught.value).splitlines()
    assert wrong == "(S): b says VALID of key k0 at revision 0, by memory, after the receipt of revision 1"
    primed = next(number for number, line in enumerate(lines) if "is cut" in line)
    assert [line.split("  ")[-1] for line in lines[primed:]] == [
        "b's lease connection is cut for 0.9 s",
        "a standby is promoted that lacks the rows of b",
        "a revokes k0",
        "a's commit is executed",
        "a's fetch is executed",
        "a's join is executed",
        "a hears that it has joined",
        "a's mark_final is executed",
        "a revokes k0: ack at revision 1",
        wrong,
    ]
