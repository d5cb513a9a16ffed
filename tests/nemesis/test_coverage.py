"""What a history covers: it is seen if anybody was not asked about a key after its revocation."""

from math import inf

import pytest

from tests.nemesis.coverage import coverage, most_at_once, probes
from tests.nemesis.history import Answer, Change, History, Key, Question, Receipt, Revision

AT = Revision("e", 7)


def answer(server: str, invoke: float) -> Answer:
    """An answer about the secret."""
    return Answer(server, Question("s1"), invoke, invoke + 0.1, "REVOKED", AT)


def revoke(invoke: float, returned: float, receipt: Receipt | None) -> Change:
    """A revocation of the key."""
    return Change("label", "a", "Revoke", "w", "k1", {"secret_id": ""}, invoke, returned, receipt)


@pytest.fixture
def history() -> History:
    """A key whose revocation returned at 11 s; it had been begun twice."""
    changes = [revoke(9, inf, None), revoke(10, 11, Receipt(AT)), revoke(12, 13, Receipt(AT))]
    return History({"k1": Key("k1", "w", "s1")}, {"s1": "k1"}, changes)


def test_the_first_question_after_the_first_receipt_counts(history: History) -> None:
    """Of each server; what was asked before it proves nothing."""
    history.answers = [answer("a", 10.9), answer("a", 11.5), answer("a", 11.25), answer("b", 14), answer("c", 11)]
    found = coverage(history, history.changes, ["a", "b", "c"])
    assert found.seconds == [0.25, 3]
    assert found.missing == [("s1", "c")]


def test_a_promise_for_later_counts_from_then_on(history: History) -> None:
    """A receipt that is not complete says when the revocation is true everywhere."""
    history.changes = [revoke(10, 11, Receipt(AT, "", effective_by=12))]
    history.answers = [answer("a", 11.5), answer("a", 12.5)]
    assert coverage(history, history.changes, ["a"]).seconds == [0.5]


def test_what_was_asked_afterwards_is_counted_by_who_answered(history: History) -> None:
    """And by where the answer came from; questions that were asked before, or about other secrets, are none of it."""
    other = answer("a", 14)._replace(question=Question("s2"))
    looked_up = answer("a", 12)._replace(basis="DATABASE")
    history.answers = [answer("a", 10.9), looked_up, answer("a", 13), answer("a", 14), answer("b", 12), other]
    assert probes(history, history.changes) == {("a", "DATABASE"): 1, ("a", "MEMORY"): 2, ("b", "MEMORY"): 1}


def test_without_a_receipt_nothing_is_asked_for(history: History) -> None:
    """Nobody was promised anything."""
    history.changes = history.changes[:1]
    assert coverage(history, history.changes, ["a"]) == ([], [])


def test_revocations_under_way_are_counted(history: History) -> None:
    """At most so many at the same time; nobody knows when those ended that nobody answered."""
    assert most_at_once(history.changes) == 1
    assert most_at_once([*history.changes, revoke(12.5, 14, None), revoke(13, 14, None)]) == 2
    assert most_at_once([]) == 0
