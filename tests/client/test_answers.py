"""The rules of leased answers, on a clock of the test's own: when one is given from memory, and what is remembered."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from keysvc.core.revision import Revision
from keysvc.v1.key_service_pb2 import RenewLeaseResponse, WatchWakeUpsResponse
from keysvc.v1.verify_pb2 import Memo
from keysvc_client import Basis, Verdict, Verification
from keysvc_client.counting import Counting
from keysvc_client.leasing.answers import Answers

LIFE, OTHER_LIFE = UUID(int=1), UUID(int=2)
EPOCH, OTHER_EPOCH = f"{LIFE.hex}.00000001", f"{LIFE.hex}.00000002"
AT = datetime(2026, 5, 17, tzinfo=UTC)
LEASE = timedelta(seconds=2)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


class Leased(Answers):
    """Answers with a lease of two seconds at revision 10; the database's clock is the test's."""

    def __init__(self, clock: Clock, **named: Any) -> None:
        super().__init__("me", Counting(), clock=clock, **named)
        self.clock = clock
        self.renew(10)

    def renew(self, seq: int, *changed: str, late: float = 0.0, anew: bool = False, **fields: Any) -> bool:
        """A renewal is answered so long after it was sent, at once by the database's clock."""
        sent = self.clock.now
        self.clock.now += late
        at = AT + timedelta(seconds=self.clock.now)
        answer = {"epoch": EPOCH, "revision": revision(seq), "ttl": LEASE, "database_time": at, "changed_ids": changed}
        return self.renewed(sent, RenewLeaseResponse(**answer | fields), anew=anew)

    def hear(self, after: int, seq: int, *changed: str, epoch: str = EPOCH) -> None:
        """A wake-up comes."""
        place = {"epoch": epoch, "after": revision(after), "revision": revision(seq)}
        self.told(WatchWakeUpsResponse(**place, changed_ids=changed))

    def learn(self, seq: int = 10, *subjects: str, key: str = "key", source_ip: str | None = None, **memo: Any) -> None:
        """The service has answered."""
        given = Verification(Verdict.VALID, Basis.DATABASE, key_id=key, revision=revision(seq), holder="server")
        fields = {"epoch": EPOCH, "subject_ids": subjects or ("subject",)} | memo
        self.remember(self.ask_for(key), source_ip, given, Memo(**fields))

    def ask(self, key: str = "key", source_ip: str | None = None) -> Verification | None:
        """What memory answers."""
        return self.find(self.ask_for(key), source_ip)

    def ask_for(self, key: str) -> Any:
        """The question of a key string."""
        return self.question(key, None, None, ())


def revision(seq: int) -> str:
    """A revision of the log that all tests begin with."""
    return str(Revision(LIFE, seq))


@pytest.fixture
def clock() -> Clock:
    """The clock."""
    return Clock()


@pytest.fixture
def answers(clock: Clock) -> Leased:
    """A client with a lease, that remembers a key."""
    answers = Leased(clock)
    answers.learn()
    return answers


def test_an_answer_is_given_until_the_lease_ends(answers: Leased, clock: Clock) -> None:
    """Counted from the sending of the renewal, whenever that was answered."""
    given = answers.ask()
    assert given is not None
    assert (given.verdict, given.basis, given.holder) == (Verdict.VALID, Basis.MEMORY, "me")
    answers.renew(10, late=0.5)
    clock.now += 1.49
    assert answers.ask() is not None
    clock.now += 0.01
    assert answers.ask() is None


def test_without_a_lease_nothing_is_remembered_or_given(clock: Clock) -> None:
    """Nobody would say when it has changed."""
    answers = Answers("me", Counting(), clock=clock)
    question = answers.question("key", None, None, ())
    answers.remember(question, None, Verification(Verdict.VALID, revision=revision(10)), Memo(epoch=EPOCH))
    assert answers.find(question, None) is None
    assert len(answers) == 0
    assert answers.place == ("", "")


def test_a_shorter_lease_ends_no_longer_one(answers: Leased, clock: Clock) -> None:
    """The longer one was as good."""
    answers.renew(10, ttl=timedelta(milliseconds=1))
    clock.now += 1.9
    assert answers.ask() is not None


def test_what_has_changed_is_forgotten_and_nothing_else(answers: Leased) -> None:
    """By the ids of what answers depend on; and it is worth while to say so at once."""
    answers.learn(10, "workspace", "one", key="one")
    answers.learn(10, "workspace", "two", key="two")
    assert not answers.renew(10)
    assert answers.renew(11, "one", "unheard of")
    assert answers.place == (EPOCH, revision(11))
    assert answers.ask("one") is None
    assert answers.ask("two") is not None
    assert answers.renew(12, "workspace")
    assert answers.ask("two") is None
    assert answers.ask() is not None


def test_what_was_answered_before_a_change_is_not_remembered(answers: Leased) -> None:
    """It was on its way when the change was applied. What is newer may be."""
    answers.renew(12, "subject")
    answers.learn(11)
    assert answers.ask() is None
    answers.learn(12)
    assert answers.ask() is not None
    answers.learn(13, key="newer")
    newer = answers.ask("newer")
    assert newer is not None
    assert newer.revision == revision(13), "what it was judged at"


def test_answers_say_the_revision_that_they_are_true_at(answers: Leased) -> None:
    """Which moves on with what is applied."""
    for seq in (10, 11, 15):
        answers.renew(seq)
        given = answers.ask()
        assert given is not None
        assert given.revision == revision(seq)


@pytest.mark.parametrize("epoch", [OTHER_EPOCH, "", f"{OTHER_LIFE.hex}.00000001"])
def test_what_is_of_another_epoch_is_not_remembered(answers: Leased, epoch: str) -> None:
    """Its revisions mean something else."""
    answers.learn(99, key="other", epoch=epoch)
    assert answers.ask("other") is None


def test_another_epoch_ends_everything(answers: Leased) -> None:
    """Also where its revisions are lower."""
    assert answers.renew(3, epoch=OTHER_EPOCH)
    assert answers.place == (OTHER_EPOCH, revision(3))
    assert answers.ask() is None


def test_a_flush_forgets_everything(answers: Leased) -> None:
    """Too much has changed; the lease goes on."""
    answers.renew(20, flush=True)
    assert answers.ask() is None
    answers.learn(20)
    assert answers.ask() is not None


def test_what_is_told_between_renewals_is_forgotten_at_once(answers: Leased, clock: Clock) -> None:
    """The next renewal says so, and need not be followed by another; the lease is no longer for it."""
    answers.learn(10, "other", key="other")
    answers.learn()
    clock.now += 1
    answers.hear(10, 12, "subject")
    assert answers.ask() is None
    assert answers.place == (EPOCH, revision(12))
    assert not answers.renew(12)
    kept = answers.ask("other")
    assert kept is not None
    assert kept.revision == revision(12)
    answers.hear(12, 13)
    clock.now += 2
    assert answers.ask("other") is None, "the lease that was granted at 1 s is over"


@pytest.mark.parametrize(
    ("after", "seq", "epoch"),
    [(11, 12, EPOCH), (8, 10, EPOCH), (8, 9, EPOCH), (10, 12, OTHER_EPOCH), (10, 12, "")],
    ids=["beyond a gap", "known already", "overtaken", "of another epoch", "of nothing"],
)
def test_what_does_not_follow_is_left_to_the_next_renewal(answers: Leased, after: int, seq: int, epoch: str) -> None:
    """Wake-ups come by a way of their own, and late; whoever took a gap for applied would keep what it hides."""
    answers.learn()
    answers.hear(after, seq, "subject", epoch=epoch)
    assert answers.place == (EPOCH, revision(10))
    assert answers.ask() is not None
    assert answers.renew(12, "subject")
    assert answers.ask() is None


@pytest.mark.parametrize("flush", [False, True])
def test_a_client_never_goes_back(answers: Leased, flush: bool) -> None:
    """A server that it has come to may be behind: it has told the other one what it has applied."""
    answers.renew(12, "subject")
    assert not answers.renew(11, flush=flush)
    assert answers.place == (EPOCH, revision(12))
    answers.learn(11)
    assert answers.ask() is None


def test_an_end_by_time_is_judged_by_the_databases_clock(answers: Leased, clock: Clock) -> None:
    """Which is known from the renewals."""
    answers.learn(key="ending", end_time=AT + timedelta(seconds=clock.now + 5))
    for _ in range(5):
        assert answers.ask("ending") is not None
        clock.now += 1
        answers.renew(10)
    assert answers.ask("ending") is None
    assert answers.ask() is not None


def test_what_depends_on_the_address_is_of_one_address(answers: Leased) -> None:
    """And what does not, is of all."""
    answers.learn(10, "bound", key="bound", source_ip="192.0.2.1", for_address=True)
    assert answers.ask("bound", "192.0.2.1") is not None
    for address in ("192.0.2.2", None):
        assert answers.ask("bound", address) is None
        assert answers.ask("key", address) is not None
    answers.renew(11, "bound")
    assert answers.ask("bound", "192.0.2.1") is None


def test_a_machine_that_was_paused_forgets_everything(answers: Leased, clock: Clock) -> None:
    """Its clock stood still, so it does not know when its lease has ended."""
    asleep = AT + timedelta(seconds=clock.now + 60)
    assert answers.renew(10, database_time=asleep)
    assert answers.ask() is None
    assert answers.place == (EPOCH, revision(10)), "it never goes back"
    assert not answers.renew(10, database_time=asleep)
    answers.learn()
    assert answers.ask() is not None


def test_after_the_lease_only_those_answer_who_chose_to(clock: Clock) -> None:
    """For as long as the operators allow, and only if renewing has failed."""
    for stale in (False, True):
        answers = Leased(clock, stale=stale)
        answers.learn()
        answers.renew(10, stale_ttl=timedelta(seconds=5))
        clock.now += 2
        assert answers.ask() is None
        answers.cut_off()
        given = answers.ask()
        assert (given is not None) is stale
        if given is not None:
            assert given.basis is Basis.STALE
        clock.now += 5
        assert answers.ask() is None
        answers.renew(10)
        given = answers.ask()
        assert given is not None
        assert given.basis is Basis.MEMORY


def test_another_servers_lease_takes_the_place_of_the_last_one(answers: Leased, clock: Clock) -> None:
    """Also where it is shorter: the last one is told that its own is not used any more. What is remembered stays."""
    answers.renew(10, anew=True, ttl=timedelta(seconds=1))
    assert answers.ask() is not None
    clock.now += 1
    assert answers.ask() is None


def test_who_loses_its_lease_forgets(answers: Leased) -> None:
    """Everything but how far it is."""
    answers.lose()
    assert answers.ask() is None
    assert answers.place == (EPOCH, revision(10))
    answers.renew(10)
    assert answers.ask() is None


def test_what_was_not_asked_for_lately_leaves(clock: Clock) -> None:
    """There are never more than so many."""
    answers = Leased(clock, answers_max=10)
    answers.learn(key="often")
    for number in range(100):
        answers.learn(10, f"of {number}", key=f"key {number}")
        assert answers.ask("often") is not None
        assert len(answers) <= 10
    assert answers.ask("key 99") is not None
    assert answers.ask("key 0") is None
    answers.renew(11, "of 99", "subject")
    assert answers.ask("key 99") is None
    assert answers.ask("often") is None


def test_answers_are_counted(answers: Leased, clock: Clock) -> None:
    """Those that were given, also where they have been forgotten since."""
    for _ in range(3):
        answers.ask()
    answers.ask("unknown")
    clock.now += 1
    answers.ask()
    answers.renew(11, "subject")
    ((count,),) = answers.take_counts()
    assert (count.kind.key_id, count.kind.verdict, count.number) == ("key", "VALID", 4)
    assert count.last_time == AT + timedelta(seconds=clock.now)
    assert answers.take_counts() == []


def test_no_key_string_is_kept(answers: Leased) -> None:
    """Only a hash that nobody else can compute."""
    secret = "sk_live_" + "a" * 60
    answers.learn(key=secret)
    assert answers.ask(secret) is not None
    assert secret not in repr(answers.question(secret, None, None, ()))
    assert Leased(Clock()).question(secret, None, None, ()) != answers.question(secret, None, None, ())
