"""How much is done in a round, and what came of it."""

from collections import Counter
from dataclasses import dataclass, field

from tests.nemesis.checking import Violation


@dataclass(frozen=True)
class Size:
    """How much is done in a round.

    Parameters:
        revocations: keys that are revoked.
        keys: others, that are changed again and again.
    """

    revocations: int = 20
    keys: int = 3


@dataclass
class Result:
    """What happened in a round, or in several."""

    rounds: int = 0
    faults: int = 0
    revocations: int = 0
    during: int = 0
    begun_during: int = 0
    changes: int = 0
    answers: int = 0
    from_memory: int = 0
    primed: int = 0
    paths: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    unacknowledged: int = 0
    revoke_seconds: list[float] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    def add(self, other: "Result") -> None:
        """Add those of another one."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
