"""The judge of the nemesis: it accepts what the promises allow, and rejects each history that breaks one of them."""

from dataclasses import replace
from math import inf

import pytest

from tests.nemesis.checking import story, violations
from tests.nemesis.history import Answer, Change, Event, History, Key, Question, Receipt, Revision, Told

EPOCH = "e"
PLAIN, WRITING = Question("s1"), Question("s1", ("pdf.write",), "192.0.2.1")


def at(seq: int) -> Revision:
    """A revision."""
    return Revision(EPOCH, seq)


def answer(
    invoke: float, verdict: str, seq: int, server: str = "a", question: Question = PLAIN, **more: object
) -> Answer:
    """An answer that took a tenth of a second."""
    return Answer(server, question, invoke, invoke + 0.1, verdict, at(seq), **more)  # type: ignore[arg-type]


def change(
    method: str, invoke: float, seq: int | None = None, *, key_id: str = "k1", returned: float = inf, **wanted: object
) -> Change:
    """A change through server a, named after when it began; with a revision it was acknowledged."""
    receipt = None if seq is None else Receipt(at(seq))
    end = invoke + 1 if seq is not None and returned == inf else returned
    return Change(f"{method} {invoke}", "a", method, "w", key_id, wanted, invoke, end, receipt)


def event(change: Change, seq: int, secret_id: str = "") -> Event:
    """The audit event of a change."""
    return Event(change.label, change.method, change.workspace, change.key_id, secret_id, at(seq))


def made(*changes: tuple[Change, int | None] | tuple[Change, int | None, str]) -> History:
    """A history of these changes, each with the revision at which it was committed; None: it was not.

    There are two keys, `k1` with the secrets `s1`, and `s2` if it was rotated, and `k2` with `s9`.
    """
    keys = {
        "k1": Key("k1", "w", "s1", ("pdf.read", "pdf.write")),
        "k2": Key("k2", "w", "s9"),
    }
    events = [event(each[0], each[1], *each[2:]) for each in changes if each[1] is not None]
    return History(keys, {"s1": "k1", "s2": "k1", "s9": "k2"}, [each[0] for each in changes], events=[*events[::-1]])


@pytest.fixture
def history() -> History:
    """A key that is revoked between 10 s and 11 s, as revision 7; server b hears of it last."""
    history = made((change("Revoke", 10, 7, secret_id=""), 7))
    history.answers = [
        answer(1, "VALID", 6),
        answer(10.5, "REVOKING", 7),
        answer(10.9, "VALID", 6, "b"),
        answer(11.1, "REVOKED", 7),
        answer(11.1, "REVOKED", 9, "b"),
        answer(12, "VALID", 7, "b", Question("s9")),
    ]
    history.told = [Told("a", "s1", 10.4, 10.6, "REVOKING"), Told("a", "s1", 11.0, 11.1, "REVOKED")]
    return history


def rules(history: History) -> set[str]:
    """The rules that a history breaks."""
    return {each.rule for each in violations(history)}


def test_a_good_history_is_accepted(history: History) -> None:
    """Until Revoke has returned one server may refuse the key while another one accepts it."""
    assert violations(history) == []


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        pytest.param(answer(11.01, "VALID", 6, "b"), {"S", "revision"}, id="memory that has not heard of it"),
        pytest.param(answer(11.05, "VALID", 7, "b"), {"S", "revoking", "verdict"}, id="memory that was not cleared"),
    ],
)
def test_a_valid_after_the_receipt_is_found(history: History, found: Answer, rule: set[str]) -> None:
    """(S): by its time, and by its revision too."""
    history.answers.append(found)
    assert rules(history) == rule


def test_s_needs_no_revisions(history: History) -> None:
    """A server that lies about its revisions is found by the time alone."""
    late = answer(11.05, "VALID", 7, "b")
    history.events = None
    history.answers = [*(each for each in history.answers if each.verdict == "VALID"), late]
    history.told = []
    assert rules(history) == {"S"}


def test_a_valid_after_somebody_was_told_revoked_is_found(history: History) -> None:
    """(A): even while Revoke is still waiting. Verify, Get, List and the answer to a change all count."""
    history.answers += [answer(10.3, "REVOKED", 7, "c"), answer(10.45, "VALID", 6, "b")]
    assert rules(history) == {"A"}


@pytest.mark.parametrize("state", ["REVOKED", "REVOKING"])
def test_what_get_says_counts(history: History, state: str) -> None:
    """REVOKED is final whoever says it; REVOKING is not."""
    history.told.append(Told("c", "s1", 10.1, 10.2, state))
    assert rules(history) == ({"A"} if state == "REVOKED" else set())


def test_a_revoking_that_is_valid_later_is_found(history: History) -> None:
    """At a revision that is as high, nobody may take it back."""
    history.events = None
    history.answers.append(answer(10.55, "VALID", 7, "b"))
    assert rules(history) == {"revoking"}


def test_a_server_may_answer_from_memory_after_a_look_up(history: History) -> None:
    """REVOKING is not final: the same server may say VALID under a lease that it was granted before."""
    history.answers.append(answer(10.7, "VALID", 6, "a"))
    assert rules(history) == set()


def test_a_story_tells_what_was_said_of_a_secret(history: History) -> None:
    """In order, without repetitions, for those who look for the reason of a violation."""
    history.answers.append(answer(1.5, "VALID", 6))
    assert [line.partition(", until")[0] for line in story(history, "s1")] == [
        "1.000 a says VALID at 6 from MEMORY (leased)",
        "10.000 Revoke at a {'secret_id': ''}",
        "10.500 a says REVOKING at 7 from MEMORY (leased)",
        "10.900 b says VALID at 6 from MEMORY (leased)",
        "11.100 a says REVOKED at 7 from MEMORY (leased)",
        "11.100 b says REVOKED at 9 from MEMORY (leased)",
    ]


def test_an_answer_below_a_receipt_is_found(history: History) -> None:
    """(S) of all changes: whatever the answer says, and of whichever key, its revision includes the change."""
    history.answers.append(answer(11.1, "VALID", 6, "b", Question("s9")))
    assert rules(history) == {"revision"}


def test_a_wrong_verdict_is_found(history: History) -> None:
    """Each verdict is what the changes up to its revision give, before and after them."""
    history.answers.append(answer(0.5, "SUSPENDED", 6))
    assert rules(history) == {"verdict"}


def test_an_answer_without_a_revision_is_found(history: History) -> None:
    """A key that was minted has one in every answer."""
    history.answers.append(answer(0.5, "MALFORMED", 0)._replace(revision=None))
    assert rules(history) == {"verdict"}


def test_another_epoch_is_found(history: History) -> None:
    """No database was restored here."""
    history.answers.append(answer(0.5, "VALID", 6)._replace(revision=Revision("other", 6)))
    assert rules(history) == {"epoch"}


def test_a_refusal_that_was_a_lie_is_found() -> None:
    """(E): an error that says that nothing was changed is true."""
    refused = change("Suspend", 1, returned=2)
    refused.refusal = "FAILED_PRECONDITION"
    assert rules(made((refused, None))) == set()
    assert rules(made((refused, 3))) == {"E"}


def test_a_change_that_nobody_asked_for_is_found(history: History) -> None:
    """Each event is of a call."""
    assert history.events is not None
    history.events.append(Event("a stranger's", "Suspend", "w", "k2", "", at(20)))
    assert rules(history) == {"E"}


def test_a_change_that_is_not_there_is_found() -> None:
    """A receipt is of a change that was made, or of nothing that was left to change."""
    suspend, again = change("Suspend", 1, 5), change("Suspend", 3, 5)
    assert rules(made((suspend, 5), (again, None))) == set()
    assert rules(made((again, None))) == {"receipt"}
    rotate = change("Rotate", 1, 5, overlap=0)
    assert rules(made((rotate, None))) == {"receipt"}


def test_a_change_that_was_made_twice_is_found() -> None:
    """A transaction that is run again after a lost connection makes its change once."""
    suspend = change("Suspend", 1, 5)
    history = made((suspend, 5))
    assert history.events is not None
    history.events.append(event(suspend, 6))
    assert rules(history) == {"receipt"}


def test_a_receipt_with_another_revision_is_found() -> None:
    """A receipt has the revision of its change, be it too low or too high."""
    assert rules(made((change("Suspend", 1, 4), 5))) == {"receipt"}
    assert rules(made((change("Suspend", 1, 6), 5))) == {"receipt"}


def test_an_unknown_outcome_is_either() -> None:
    """A Revoke without an answer promises nothing; the audit log tells whether it was made, and when."""
    for seq, verdict in ((None, "VALID"), (7, "REVOKING")):
        history = made((change("Revoke", 10, secret_id=""), seq))
        history.answers = [answer(11, "VALID", 6, "b"), answer(12, verdict, 7), answer(13, "VALID", 6, "b")]
        assert rules(history) == set()


def test_an_unknown_outcome_that_was_made_later_counts_from_then_on() -> None:
    """Its place is that of its revision, not that of its call."""
    suspend, resume = change("Suspend", 10), change("Resume", 12, 5)
    history = made((suspend, 6), (resume, None))
    assert rules(history) == set()
    history.answers = [answer(14, "SUSPENDED", 6), answer(13.5, "VALID", 5)]
    assert rules(history) == set()
    history.answers = [answer(14, "VALID", 6)]
    assert rules(history) == {"verdict"}


def test_a_pending_receipt_promises_nothing_at_first() -> None:
    """Until `effective_by`, and the margin for reading it, everybody may answer as before; from then on nobody."""
    revoke = change("Revoke", 10, secret_id="")
    revoke.returned, revoke.receipt = 10.2, Receipt(at(7), "", effective_by=12)
    history = made((revoke, 7))
    history.answers = [answer(invoke, "VALID", 6, "b") for invoke in (10.3, 11.9, 12.04)]
    assert rules(history) == set()
    history.answers.append(answer(12.06, "VALID", 6, "b"))
    assert rules(history) == {"S", "revision"}


def test_at_least_and_strong_include_what_they_must() -> None:
    """`at_least` the revision that was asked for; `strong` all that anybody knew when it was asked."""
    history = made()
    history.answers = [answer(1, "VALID", 6), answer(2, "VALID", 5, "b")]
    assert rules(history) == set()
    history.answers[1] = answer(2, "VALID", 5, "b", level="strong")
    assert rules(history) == {"strong"}
    history.answers[1] = answer(2, "VALID", 5, "b", level="at_least", at_least=at(6))
    assert rules(history) == {"at_least"}


CHANGES = [
    ("Suspend", {}, "", "SUSPENDED", "SUSPENDED"),
    ("Update", {"scopes": ("pdf.read",)}, "", "VALID", "INSUFFICIENT_SCOPE"),
    ("Update", {"ip_allowlist": ("198.51.100.1",)}, "", "IP_NOT_ALLOWED", "IP_NOT_ALLOWED"),
    ("Update", {"ip_allowlist": ("192.0.2.1",)}, "", "IP_NOT_ALLOWED", "VALID"),
    ("Update", {"expire_time": 9.0}, "", "EXPIRED", "EXPIRED"),
    ("Update", {"expire_time": 99.0}, "", "VALID", "VALID"),
    ("Rotate", {"overlap": 0}, "s2", "EXPIRED", "EXPIRED"),
    ("Rotate", {"overlap": 3600}, "s2", "VALID", "VALID"),
    ("Revoke", {"secret_id": "s1"}, "s1", "REVOKED", "REVOKED"),
    ("SuspendWorkspace", {}, "", "WORKSPACE_SUSPENDED", "WORKSPACE_SUSPENDED"),
    ("UpdateWorkspace", {"allowed_scopes": ("pdf.read",)}, "", "VALID", "INSUFFICIENT_SCOPE"),
]


@pytest.mark.parametrize(("method", "wanted", "secret_id", "plain", "writing"), CHANGES)
def test_each_change_is_replayed(
    method: str, wanted: dict[str, object], secret_id: str, plain: str, writing: str
) -> None:
    """What a plain question and one for a scope from an address must be told at its revision, and before it."""
    key_id = "" if "Workspace" in method else "k1"
    one = change(method, 10, 5, key_id=key_id, **wanted)
    history = made((one, 5, secret_id))
    history.answers = [
        answer(10, "VALID", 4),
        answer(10, "VALID", 4, question=WRITING),
        answer(12, plain, 5),
        answer(12, writing, 5, question=WRITING),
    ]
    assert violations(history) == []
    for number in (2, 3):
        wrong = [*history.answers]
        wrong[number] = wrong[number]._replace(verdict="VALID" if wrong[number].verdict != "VALID" else "SUSPENDED")
        assert "verdict" in rules(replace(history, answers=wrong))


def test_changes_are_undone() -> None:
    """Resume, ResumeWorkspace, wider scopes and addresses, no end, and the cancellation of a rotation."""
    changes = [
        (change("Suspend", 1, 1), 1),
        (change("Resume", 2, 2), 2),
        (change("SuspendWorkspace", 3, 3, key_id=""), 3),
        (change("ResumeWorkspace", 4, 4, key_id=""), 4),
        (change("Update", 5, 5, scopes=(), ip_allowlist=("192.0.2.9",), expire_time=1.0), 5),
        (change("Update", 6, 6, scopes=("pdf.write",), ip_allowlist=(), expire_time=None), 6),
        (change("Rotate", 7, 7, overlap=3600), 7, "s2"),
        (change("CancelRotation", 8, 8), 8, "s2"),
    ]
    history = made(*changes)
    history.answers = [
        answer(9.5, "VALID", 8, question=WRITING),
        answer(9.5, "REVOKED", 8, question=Question("s2")),
        *(answer(0, verdict, seq) for seq, verdict in ((1, "SUSPENDED"), (3, "WORKSPACE_SUSPENDED"))),
    ]
    assert violations(history) == []


def test_an_end_by_time_may_be_missed_by_a_little() -> None:
    """It is judged by the database's clock, which a server estimates."""
    history = made((change("Update", 1, 5, expire_time=9.0), 5))
    for invoke, verdict, expected in (
        (8.5, "VALID", set()),
        (8.5, "EXPIRED", {"verdict"}),
        (8.9, "EXPIRED", set()),
        (9.1, "VALID", set()),
        (9.3, "VALID", {"verdict"}),
        (9.3, "EXPIRED", set()),
    ):
        history.answers = [answer(invoke, verdict, 5)]
        assert rules(history) == expected
