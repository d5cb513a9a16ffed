"""Which refusals are logged."""

from uuid import UUID

from keysvc.core.keystring import Environment
from keysvc.core.verdict import Profile, Record, Verdict, WorkspaceRecord
from keysvc.rpc.refusals import AGAIN_SECONDS, REMEMBERED_MAX, Refusals
from keysvc.service.verifying import Answer

HOME = WorkspaceRecord(UUID(int=1), "acme-corp/sales", suspended=False, caps=(), roles={}, changed_seq=0)
PROFILE = Profile(HOME, Environment.LIVE, "", (), ())


class Time:
    """A clock that tests turn."""

    now = 1000.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


def refused(secret_id: str, verdict: Verdict = Verdict.REVOKED) -> Answer:
    """An answer about a secret."""
    return Answer(verdict, Record(PROFILE, 1, secret_id))


def test_of_each_secret_each_verdict_is_logged_once_a_minute() -> None:
    """Others are not held back by it, whatever comes in between."""
    time = Time()
    refusals = Refusals(time)
    first = [refused("a"), refused("a", Verdict.SUSPENDED), refused("b")]
    assert refusals.find([*first, *first]) == first
    time.now += 0.9 * AGAIN_SECONDS
    assert refusals.find(first) == []
    time.now += 0.2 * AGAIN_SECONDS
    assert refusals.find(first) == first


def test_what_is_accepted_or_not_proved_is_not_logged() -> None:
    """Everybody can make as many of those as they want."""
    unproved = [Answer(Verdict.MALFORMED), Answer(Verdict.NOT_FOUND)]
    assert Refusals().find([*unproved, refused("a", Verdict.VALID)]) == []


def test_there_is_an_end_to_what_it_remembers() -> None:
    """More than it remembers are logged, and some of them twice."""
    refusals = Refusals(Time())
    many = [refused(str(number)) for number in range(REMEMBERED_MAX)]
    assert refusals.find(many) == many
    assert refusals.find(many[:10]) == []
    assert refusals.find([refused("one more")]) == [refused("one more")]
    assert refusals.find(many[:10]) == many[:10]
