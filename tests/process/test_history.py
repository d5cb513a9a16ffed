"""The judge of test_killed.py: it accepts what may be there after a kill, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from keysvc.core.usage import Tally
from tests.process.history import (
    Answer,
    Batch,
    Call,
    Event,
    Judged,
    Key,
    Life,
    Secret,
    Seen,
    Source,
    total_of,
    violations,
)

OWN, SHARED = Tally(success_count=2, units=20), Tally(failure_count=1, units=3)


@dataclass
class History:
    """What was asked for, and what is there."""

    lives: list[Life]
    sources: list[Source]
    seen: Seen

    def violations(self) -> list[str]:
        """What the judge finds."""
        return violations(self.lives, self.sources, "shared", self.seen)

    def replace_key(self, name: str, *by: Key) -> None:
        """Let another key be there, several or none."""
        self.seen.keys = [each for key in self.seen.keys for each in (by if key.name == name else [key])]

    def key(self, name: str) -> Key:
        """A key that is there."""
        (found,) = (key for key in self.seen.keys if key.name == name)
        return found


@pytest.fixture
def history() -> History:
    """A good one: `one` was made, rotated and half revoked, `two` revoked; `open` is unanswered, `never` too.

    The first source has two acknowledged batches and an unanswered one that was recorded, the other one that was not.
    """
    made = Key("k1", {"display_name": "one", "owner": "o"}, secrets=(Secret("s1"),), etag="1")
    rotated = replace(made, secrets=(Secret("s1"), Secret("s2")), etag="2")
    half = replace(made, secrets=(Secret("s1", "REVOKED", "1.2"), Secret("s2")), etag="3")
    two = Key("k2", {"display_name": "two"}, secrets=(Secret("s3"),))
    opened = Key("k3", {"display_name": "open"}, secrets=(Secret("s4"),))
    lives = [
        Life(
            "one",
            [
                Call("1.0", "Create", made.fields, Answer(made, "s1", "sk1")),
                Call("1.1", "Rotate", {"overlap": 3600}, Answer(rotated, "s2", "sk2")),
                Call("1.2", "Revoke", {"secret_id": "s1"}, Answer(half)),
            ],
        ),
        Life(
            "two",
            [Call("2.0", "Create", two.fields, Answer(two, "s3", "sk3")), Call("2.1", "Revoke", {"secret_id": ""})],
        ),
        Life("open", [Call("3.0", "Create", {**opened.fields, "request_id": "…"})]),
        Life("never", [Call("4.0", "Create", {"display_name": "never"})]),
    ]
    batches = [Batch(OWN, SHARED, is_acknowledged=True) for _ in range(2)]
    sources = [
        Source("first", "u1", [*batches, Batch(OWN, SHARED)]),
        Source("other", "u2", [Batch(OWN, SHARED)]),
    ]
    events = [
        Event("1.0", "Create", "k1", "s1"),
        Event("1.1", "Rotate", "k1", "s2"),
        Event("1.2", "Revoke", "k1", "s1"),
        Event("2.0", "Create", "k2", "s3"),
        Event("2.1", "Revoke", "k2"),
        Event("3.0", "Create", "k3", "s4"),
    ]
    judged = {
        "sk1": Judged("REVOKED", "k1", "s1"),
        "sk2": Judged("VALID", "k1", "s2"),
        "sk3": Judged("REVOKED", "k2", "s3"),
    }
    revoked = replace(two, state="REVOKED", reason="2.1")
    seen = Seen([half, revoked, opened], events, {"u1": total_of([OWN] * 3), "shared": total_of([SHARED] * 3)}, judged)
    return History(lives, sources, seen)


def test_a_good_history_is_accepted(history: History) -> None:
    """Unanswered calls that were made and that were not; afterwards the same, answered by their repeats."""
    assert history.violations() == []
    history.lives[2].calls[0].answer = Answer(history.key("open"), "s4", "sk4")
    history.seen.judged = {**history.seen.judged, "sk4": Judged("VALID", "k3", "s4")}
    history.sources[0].batches[-1].is_acknowledged = True
    assert history.violations() == []


def test_what_was_unanswered_may_be_missing(history: History) -> None:
    """Wholly: key, secret and audit event; the revocation and its event; the batch."""
    history.replace_key("open")
    history.replace_key("two", Key("k2", {"display_name": "two"}, secrets=(Secret("s3"),)))
    history.seen.events = [event for event in history.seen.events if event.label not in {"2.1", "3.0"}]
    history.seen.judged = {**history.seen.judged, "sk3": Judged("VALID", "k2", "s3")}
    history.seen.usage = {"u1": total_of([OWN] * 2), "shared": total_of([SHARED] * 2)}
    assert history.violations() == []


def lose_a_create(history: History) -> None:
    """Nothing of an acknowledged key is there."""
    history.replace_key("one")
    history.seen.events = [event for event in history.seen.events if event.key_id != "k1"]


def lose_a_rotation(history: History) -> None:
    """The acknowledged secret is not there, nor its audit event."""
    history.replace_key("one", replace(history.key("one"), secrets=(Secret("s1", "REVOKED", "1.2"),)))
    history.seen.events = [event for event in history.seen.events if event.label != "1.1"]


def lose_a_revocation(history: History) -> None:
    """An acknowledged revocation of a secret is forgotten, with its audit event."""
    history.replace_key("one", replace(history.key("one"), secrets=(Secret("s1"), Secret("s2"))))
    history.seen.events = [event for event in history.seen.events if event.label != "1.2"]


def lose_a_field(history: History) -> None:
    """A key is there with another owner than was acknowledged."""
    key = history.key("one")
    history.replace_key("one", replace(key, fields={**key.fields, "owner": ""}))


def make_half_a_key(history: History) -> None:
    """An unanswered key is there with its audit event, but without its secret."""
    history.replace_key("open", replace(history.key("open"), secrets=()))


def make_half_a_revocation(history: History) -> None:
    """An unanswered revocation has its audit event, but the key lives."""
    history.replace_key("two", replace(history.key("two"), state="ACTIVE", reason=""))
    history.seen.judged = {**history.seen.judged, "sk3": Judged("VALID", "k2", "s3")}


def make_a_key_twice(history: History) -> None:
    """A repeat made a second key."""
    history.replace_key("open", history.key("open"), replace(history.key("open"), id="k9"))


def make_a_secret_too_many(history: History) -> None:
    """A repeat made a second secret."""
    key = history.key("one")
    history.replace_key("one", replace(key, secrets=(*key.secrets, Secret("s9"))))


def make_a_strange_key(history: History) -> None:
    """A key that nobody asked for."""
    history.seen.keys = [*history.seen.keys, Key("k9", {"display_name": "nobody's"})]


def forget_the_reason(history: History) -> None:
    """A revoked key has another reason than was given."""
    history.replace_key("two", replace(history.key("two"), reason=""))


def change_once_more(history: History) -> None:
    """A key was changed by something after the last acknowledged call."""
    history.replace_key("one", replace(history.key("one"), etag="4"))


def tell_what_was_not_done(history: History) -> None:
    """An audit event of a call that left no key."""
    history.seen.events = [*history.seen.events, Event("4.0", "Create", "k9", "s9")]


def tell_what_nobody_asked(history: History) -> None:
    """An audit event of no call."""
    history.seen.events = [*history.seen.events, Event("9.0", "Suspend", "k1")]


def tell_twice(history: History) -> None:
    """Two audit events of one change."""
    history.seen.events = [*history.seen.events, history.seen.events[0]]


def tell_of_another_key(history: History) -> None:
    """An audit event that names another key than was changed."""
    history.seen.events = [event._replace(key_id="k2") for event in history.seen.events]


def tell_nothing(history: History) -> None:
    """A change without its audit event: the unanswered key is there all the same."""
    history.seen.events = [event for event in history.seen.events if event.label != "3.0"]


def accept_what_is_revoked(history: History) -> None:
    """Verify accepts an acknowledged secret that was revoked afterwards."""
    history.seen.judged = {**history.seen.judged, "sk1": Judged("VALID", "k1", "s1")}


def refuse_what_is_good(history: History) -> None:
    """Verify does not know an acknowledged key string."""
    history.seen.judged = {**history.seen.judged, "sk2": Judged("NOT_FOUND", "", "")}


def count_twice(history: History) -> None:
    """An acknowledged batch is in the totals twice."""
    history.seen.usage = {"u1": total_of([OWN] * 4), "shared": total_of([SHARED] * 4)}


def count_half(history: History) -> None:
    """One record of a batch is in the totals, the other is not."""
    history.seen.usage = {**history.seen.usage, "shared": total_of([SHARED] * 2)}


def lose_a_batch(history: History) -> None:
    """An acknowledged batch is not in the totals."""
    history.seen.usage = {"u1": OWN, "shared": SHARED}


def count_for_somebody_else(history: History) -> None:
    """Usage of a secret that nobody reported of."""
    history.seen.usage = {**history.seen.usage, "s1": OWN}


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lose_a_create, "one: is []"),
        (lose_a_rotation, "1.1: 0 audit events"),
        (lose_a_revocation, "1.2: 0 audit events"),
        (lose_a_field, "one: is"),
        (make_half_a_key, "open: is"),
        (make_half_a_revocation, "two: is"),
        (make_a_key_twice, "open: is"),
        (make_a_secret_too_many, "one: is"),
        (make_a_strange_key, "key k9: nobody asked for it"),
        (forget_the_reason, "two: is"),
        (change_once_more, "one: changed after 1.2 was acknowledged"),
        (tell_what_was_not_done, "never: is []"),
        (tell_what_nobody_asked, "audit event '9.0': of no call"),
        (tell_twice, "1.0: 2 audit events"),
        (tell_of_another_key, "1.0: 1 audit events"),
        (tell_nothing, "open: is"),
        (accept_what_is_revoked, "one: secret s1 is judged"),
        (refuse_what_is_good, "one: secret s2 is judged"),
        (count_twice, "first: Tally"),
        (count_half, "what all sources report of: Tally"),
        (lose_a_batch, "first: Tally"),
        (count_for_somebody_else, "secret s1: nobody reported of it"),
    ],
)
def test_a_bad_history_is_rejected(history: History, spoil: Callable[[History], None], told: str) -> None:
    """Whatever is lost, doubled, halved or invented is told."""
    spoil(history)
    assert any(line.startswith(told) for line in history.violations()), history.violations()
