"""Schedules: steps in an order that Hypothesis chooses, and what becomes of them."""

import math
from collections.abc import Sequence
from dataclasses import fields

from hypothesis import strategies as st

from tests.lease.simulation.parts import REAL, Parts
from tests.lease.simulation.process import BARRIER, CHANGE, LEASE, VERIFY
from tests.lease.simulation.steps import (
    BringIn,
    Bump,
    Crash,
    Cut,
    Deafen,
    Delay,
    DelayAnswer,
    Kill,
    Leave,
    LoseCommit,
    Pause,
    Promote,
    Rename,
    Restart,
    Resume,
    ResumeHome,
    Retire,
    Revoke,
    Start,
    Step,
    Stop,
    Suspend,
    SuspendHome,
    Sweep,
    Trim,
    Verify,
    VerifyAtLeast,
    Wake,
)
from tests.lease.simulation.world import Setting, World

WAITS = (0.0, 0.01, 0.1, 0.3, 0.9)
"""Nothing; a message; a renewal; half a lease; more than a barrier."""

SPANS = (0.18, 0.4, 0.9, 2.5)
"""Less than a renewal may take; less than a lease; longer than a barrier; until a row is collected."""

DELAYS = (0.05, 0.15, 0.3, math.inf)

STATEMENTS = ("join", "renew", "fetch", "leave", "count", "collect", "mark_final", "find", "commit")


FIELDS: dict[str, st.SearchStrategy[object]] = {
    "then": st.sampled_from(WAITS),
    "who": st.integers(0, 2),
    "what": st.integers(0, 3),
    "seconds": st.sampled_from(SPANS),
    "statement": st.sampled_from(STATEMENTS),
    "line": st.sampled_from((LEASE, BARRIER, VERIFY, CHANGE)),
    "new_epoch": st.booleans(),
    "lost": st.integers(0, 7),
    "changes": st.integers(1, 2),
}
"""What steps can be like."""


def some(kind: type[Step], **fixed: object) -> st.SearchStrategy[Step]:
    """Steps of a kind.

    Parameters:
        fixed: what they are like; a tuple: one of these.
    """
    chosen = {
        name: st.sampled_from(value) if isinstance(value, tuple) else st.just(value) for name, value in fixed.items()
    }
    if kind in {Delay, DelayAnswer, LoseCommit}:
        chosen.setdefault("seconds", st.sampled_from(DELAYS))
    names = [field.name for field in fields(kind)]
    return st.builds(kind, **{name: chosen.get(name, FIELDS[name]) for name in names})


EVERYTHING = (
    *(some(Verify), some(VerifyAtLeast), some(Cut, line=LEASE)),
    *map(some, (Verify, Revoke, Suspend, Resume, Rename, Retire, BringIn, SuspendHome, ResumeHome, Bump)),
    *map(some, (Delay, DelayAnswer, LoseCommit, Cut, Stop, Pause, Deafen, Wake)),
    *map(some, (Kill, Leave, Restart, Start, Sweep, Crash, Promote, Trim)),
)
"""All that may happen under the protocol's assumptions."""


def schedules(kinds: Sequence[st.SearchStrategy[Step]], least: int = 0) -> st.SearchStrategy[list[Step]]:
    """Schedules of some kinds of steps.

    Parameters:
        least: half as many steps as there are at least.
    """
    # Two lists, since Hypothesis likes one to be short.
    some_of_them = st.lists(st.one_of(*kinds), min_size=least, max_size=12)
    return st.tuples(some_of_them, some_of_them).map(lambda both: [*both[0], *both[1]])


def run(schedule: Sequence[Step], setting: Setting, parts: Parts = REAL, *, settle: bool = False) -> World:
    """Do all of it; raise ``WrongError`` when a promise is broken.

    Parameters:
        settle: see whether everything becomes well again.
    """
    world = World(setting, parts)
    try:
        if setting.is_primed:
            world.run(0.05)
            world.verify_everywhere()
            world.run(0.05)
        for step in schedule:
            step.take(world)
        if settle:
            world.settle()
    finally:
        world.close()
    return world
