"""How much is done in a round, and what came of it."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from tests.nemesis.asking import Asker
from tests.nemesis.checking import Violation, story
from tests.nemesis.coverage import coverage, most_at_once
from tests.nemesis.history import Change


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
    """What happened in a round, or in several.

    Parameters:
        keys: that somebody tried to revoke.
        revocations: those for which somebody has a receipt; without one nothing is promised.
        met: rounds in which something was revoked while the fault lasted.
        primed: pairs of a key and a server that said VALID, from memory, before.
        probed: pairs of a revoked key and a server that was asked about it afterwards.
        unprobed: those that were not.
        probe_seconds: how soon they were.
        at_once: how many revocations were under way at the same time, at most.
        workers: that had leases, if several share an address: in how many rounds.
        known: how many keys each of them knew before.
        probes: how often each was asked about a revoked key afterwards, by its name and the basis of its answers.
        gone_seconds: after how long one that was killed was no member any more.
        away_paths: receipts of the changes that were under way before there was another one in its place.
    """

    rounds: int = 0
    faults: int = 0
    met: int = 0
    keys: int = 0
    revocations: int = 0
    during: int = 0
    begun_during: int = 0
    changes: int = 0
    answers: int = 0
    from_memory: int = 0
    primed: int = 0
    probed: int = 0
    unprobed: int = 0
    probe_seconds: list[float] = field(default_factory=list)
    paths: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    unacknowledged: int = 0
    revoke_seconds: list[float] = field(default_factory=list)
    at_once: int = 0
    workers: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    probes: Counter[tuple[str, str]] = field(default_factory=Counter)
    gone_seconds: list[float] = field(default_factory=list)
    away_paths: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    def add(self, other: "Result") -> None:
        """Add those of another one."""
        at_once = max(self.at_once, other.at_once)
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        self.at_once = at_once


def found_in(
    asker: Asker, revokes: Collection[Change], servers: Collection[str], violations: list[Violation]
) -> Result:
    """What the history of one round tells by itself.

    Parameters:
        revokes: the changes that the round is about.
        servers: all that there were at its end.
    """
    history = asker.history
    receipts = [change.receipt for change in history.changes if change.receipt]
    covered = coverage(history, revokes, servers)
    return Result(
        rounds=1,
        keys=len({each.key_id for each in revokes}),
        revocations=len({each.key_id for each in revokes if each.receipt}),
        changes=len(history.changes) - len(revokes),
        answers=len(history.answers),
        from_memory=sum(answer.basis == "MEMORY" for answer in history.answers),
        probed=len(covered.seconds),
        unprobed=len(covered.missing),
        probe_seconds=covered.seconds,
        paths=Counter(receipt.path or "PENDING" for receipt in receipts),
        outcomes=Counter(
            "acknowledged" if each.receipt else "refused" if each.refusal else "unknown" for each in history.changes
        ),
        unanswered=asker.unanswered,
        unacknowledged=sum(bool(receipt.unacknowledged) for receipt in receipts),
        revoke_seconds=[each.returned - each.invoke for each in revokes if each.receipt and each.receipt.path],
        at_once=most_at_once(revokes),
        violations=violations,
        story=next((story(history, each.secret_id) for each in violations if each.secret_id), []),
    )
