"""What keysvc promises, checked against what really happened."""

from collections.abc import Callable
from typing import NamedTuple

from keysvc.core.receipt import Receipt
from keysvc.core.revision import Revision
from keysvc.core.verdict import Record, Verdict
from keysvc.service.verifying import Answer, Basis
from tests.lease.simulation.content import Content, Place, State
from tests.lease.twin import Twin

REVOCATION = frozenset({Verdict.REVOKING, Verdict.REVOKED})


class WrongError(AssertionError):
    """A promise was broken."""


class Begun(NamedTuple):
    """What must be true of the answers to calls that begin now.

    Parameters:
        due: the latest revision with a complete receipt; a new epoch goes on counting.
        told: keys that somebody was told are finally revoked.
        final: keys whose revocation is marked final.
    """

    due: int
    told: frozenset[str]
    final: frozenset[str]


class Promises:
    """All that was said, and whether it was true.

    Parameters:
        wrong: is called with what was not.
    """

    def __init__(self, content: Content, twin: Twin, wrong: Callable[[str], WrongError]) -> None:
        self._content = content
        self._twin = twin
        self._wrong = wrong
        self._due = 0
        self._told: frozenset[str] = frozenset()
        self._expected: dict[tuple[Revision, str], tuple[object, ...]] = {}
        self.version = 0
        """Changes whenever more is promised."""

    def begin(self) -> Begun:
        """A call begins."""
        final = (place.name for place in self._content.places if self._is_final(place))
        return Begun(self._due, self._told, frozenset(final))

    def _is_final(self, place: Place) -> bool:
        revocation = self._content.state.keys[place.key_id].revocation
        return bool(revocation and revocation.revision and not self._content.is_open(revocation.revision.seq))

    def confirmed(self, who: str, receipt: Receipt) -> None:
        """A receipt was handed out."""
        if not receipt.is_complete:
            return
        if receipt.revision not in self._content.history:
            raise self._wrong(f"(S): {who} hands out a receipt for a change that is not there")
        self._due = max(self._due, receipt.revision.seq)
        self.version += 1

    def told_revoked(self, place: Place) -> None:
        """Somebody was told that a key is revoked, finally."""
        if place.name not in self._told:
            self._told |= {place.name}
            self.version += 1

    def forget_after(self, seq: int) -> None:
        """The database has gone back, so receipts mean nothing any more."""
        self._due = min(self._due, seq)
        self._told = frozenset()
        self._expected.clear()
        self.version += 1

    def includes(self, who: str, answer: Answer, at_least: Revision) -> None:
        """A Verify was answered that asked for a revision."""
        revision = answer.revision
        if revision is None or revision.epoch != at_least.epoch or revision.seq < at_least.seq:
            raise self._wrong(f"(R): {who} answers at {revision} what must include {at_least}")
        if answer.basis is Basis.STALE:
            raise self._wrong(f"(R): {who} answers without a lease what must include {at_least}")

    def answered(self, who: str, place: Place, answer: Answer, begun: Begun, *, is_excused: bool = False) -> None:
        """A Verify was answered.

        Parameters:
            begun: when it began.
            is_excused: its machine was paused, and has not heard from the database since.
        """
        revision = answer.revision
        assert revision is not None
        basis = answer.basis.name.lower()
        told = f"{who} says {answer.verdict.name} of key {place.name} at revision {revision.seq}, by {basis}"
        if revision.epoch == self._twin.epoch and revision.seq > self._twin.seq:
            return  # of changes that the database has lost, which the server has not noticed yet
        state = self._content.history.get(revision)
        if state is None:
            raise self._wrong(f"(R): {told}, which never was")
        if not is_excused:
            if revision.seq < begun.due:
                raise self._wrong(f"(S): {told}, after the receipt of revision {begun.due}")
            if answer.verdict is Verdict.VALID and place.name in begun.told:
                raise self._wrong(f"(A): {told}, after somebody was told REVOKED")
        self._check_exact(told, place, answer, state)
        if answer.verdict is Verdict.REVOKING and place.name in begun.final:
            raise self._wrong(f"(R): {told}, but that is final")
        if answer.verdict is Verdict.REVOKED:
            self.told_revoked(place)

    def _check_exact(self, told: str, place: Place, answer: Answer, state: State) -> None:
        """The answer is what the changes up to its revision give."""
        revision = answer.revision
        assert revision is not None
        verdicts = verdicts_of(place, state)
        if answer.verdict not in verdicts:
            raise self._wrong(f"(R): {told}, but then it was {' or '.join(sorted(each.name for each in verdicts))}")
        if answer.record is None:
            return
        if (revision, place.name) not in self._expected:
            record = self._content.record(place, state)
            self._expected[revision, place.name] = _shown(record)
        if _shown(answer.record) != self._expected[revision, place.name]:
            raise self._wrong(f"(R): {told}, with what it was not then")


def _shown(record: Record) -> tuple[object, ...]:
    """What can be seen of a record, but for a revocation: that says its verdict."""
    profile = record.profile
    is_revoked = record.refusal in {Verdict.REVOKING, Verdict.REVOKED}
    shared = (profile.home, profile.environment, profile.role, profile.scopes, profile.grants)
    return (*shared, *record[1:-2], is_revoked or record.refusal)


def verdicts_of(place: Place, state: State) -> frozenset[Verdict]:
    """What Verify may say of a key in a state: a revocation may be final or not."""
    key = state.keys[place.key_id]
    if key.id in state.hidden:
        return frozenset({Verdict.NOT_FOUND})
    if key.revocation is not None:
        return REVOCATION
    if key.suspended:
        return frozenset({Verdict.SUSPENDED})
    if state.homes[key.workspace].suspended:
        return frozenset({Verdict.WORKSPACE_SUSPENDED})
    return frozenset({Verdict.VALID})
