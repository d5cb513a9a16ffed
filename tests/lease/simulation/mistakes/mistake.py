"""What a mistake is: parts that are wrong, a schedule that shows it, and what Hypothesis finds others with."""

import math
from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st

from tests.lease.simulation.parts import Parts
from tests.lease.simulation.process import LEASE
from tests.lease.simulation.schedule import some
from tests.lease.simulation.steps import (
    Bump,
    Cut,
    Deafen,
    Delay,
    DelayAnswer,
    LoseCommit,
    Promote,
    Restart,
    Revoke,
    Step,
    Suspend,
    Sweep,
    Verify,
)
from tests.lease.simulation.world import FAST, SLOW, Machine, Setting

Steps = st.SearchStrategy[Step]

USUAL: Final = Setting(hidden=1)
LATER: Final = Setting(absent=(1,))
BOTH_LATER: Final = Setting(absent=(0, 1))
WITH_STALE: Final = Setting((FAST, Machine(stale_seconds=0.9, rate=SLOW.rate)))
OF_TWO_LENGTHS: Final = Setting((FAST, Machine(lease_seconds=3.6, rate=SLOW.rate)))

# The first server (0) makes changes. Its clock is fast, so that it waits for a short time. The second one (1) answers
# from memory, and its clock is slow, so that it does that for long.
REVOKE: Final = some(Revoke, who=0)
SUSPEND: Final = some(Suspend, who=0)
VERIFY: Final = some(Verify, who=1)
ASK_FIRST: Final = some(Verify, who=0)
CUT: Final = some(Cut, who=1, line=LEASE)
SWEEP: Final = some(Sweep, who=0, then=(0.0, 0.3, 2.2))
DEAF: Final = some(Deafen, who=1, seconds=4.0)
RESTART: Final = some(Restart, who=1)
LOSE_COMMIT: Final = some(LoseCommit, who=0)
PROMOTE: Final = some(Promote, lost=2)
BUMP: Final = some(Bump, who=0, new_epoch=False)
LOSE_RENEWAL: Final = some(Delay, who=1, statement="renew", seconds=math.inf)


def delay(statement: str, who: int = 1, **seconds: float) -> Steps:
    """Statements that take their time."""
    return some(Delay, who=who, statement=statement, **seconds)


def delay_answer(statement: str, who: int = 1, **seconds: float) -> Steps:
    """Answers that take their time."""
    return some(DelayAnswer, who=who, statement=statement, **seconds)


@dataclass(frozen=True)
class Mistake:
    """A way to get it wrong.

    Parameters:
        breaks: the promise that the schedule breaks.
        schedule: a short one that shows it.
        kinds: of the steps that Hypothesis puts together to find another one.
        is_slow: that takes more than a hundred attempts.
        is_rare: that takes thousands.
    """

    name: str
    parts: Parts
    breaks: str
    schedule: tuple[Step, ...]
    kinds: tuple[Steps, ...]
    setting: Setting = USUAL
    is_slow: bool = False
    is_rare: bool = False
