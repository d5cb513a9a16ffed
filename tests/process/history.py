"""Judges whether what is there after a kill agrees with what was asked for and what was acknowledged.

Pure, so that it can be shown made-up histories that it must reject.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from keysvc.core.usage import Tally


@dataclass(frozen=True)
class Secret:
    """One secret of a key; with the reason, if it is revoked."""

    id: str
    state: str = "ACTIVE"
    reason: str = ""


@dataclass(frozen=True)
class Key:
    """A key as the API tells it.

    Parameters:
        fields: those that were asked for.
        reason: of its revocation.
        etag: compared by itself: nobody can foretell it.
    """

    id: str
    fields: Mapping[str, Any]
    state: str = "ACTIVE"
    reason: str = ""
    secrets: tuple[Secret, ...] = ()
    etag: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """Which life it is."""
        return str(self.fields["display_name"])

    @property
    def living(self) -> tuple[Secret, ...]:
        """The secrets that Verify may accept."""
        return tuple(secret for secret in self.secrets if secret.state == "ACTIVE")

    def verdict(self, secret_id: str) -> str:
        """What Verify must say to a secret."""
        (state,) = (secret.state for secret in self.secrets if secret.id == secret_id)
        if "REVOKED" in {self.state, state}:
            return "REVOKED"
        return {"SUSPENDED": "SUSPENDED"}.get(self.state, "VALID" if state == "ACTIVE" else "EXPIRED")


class Answer(NamedTuple):
    """What was acknowledged: the key, and the new secret if one was minted."""

    key: Key
    secret_id: str = ""
    key_string: str = ""


class Event(NamedTuple):
    """An audit event.

    Parameters:
        label: its reason.
        secret_id: that it names or, of a creation, that it tells among the new fields.
    """

    label: str
    method: str
    key_id: str
    secret_id: str = ""


@dataclass
class Call:
    """One call that changes a key.

    Parameters:
        label: its reason, which no other call has: the audit event of the change tells it again.
        method: such as ``Create``.
        wanted: the fields of the request that matter here.
        answer: None: there was none, so that the change was made or not.
    """

    label: str
    method: str
    wanted: Mapping[str, Any]
    answer: Answer | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether it is safe to repeat."""
        return not self.mints or "request_id" in self.wanted

    @property
    def mints(self) -> bool:
        """Whether it makes a secret."""
        return self.method in {"Create", "Rotate"}

    def event(self, key: Key | None, events: Sequence[Event]) -> Event:
        """The audit event of the change.

        Parameters:
            key: as it was before.
            events: that there are: one of them says what was minted, if that was not acknowledged.
        """
        made = (self.answer.key.id, self.answer.secret_id) if self.answer else events[0][2:]
        return Event(
            self.label,
            self.method,
            key.id if key else made[0],
            made[1] if self.mints else self.wanted.get("secret_id", ""),
        )

    def change(self, key: Key | None, key_id: str, secret_id: str) -> Key:
        """The key as it is when the change was made.

        Parameters:
            key: as it was before.
            key_id, secret_id: that its audit event names.
        """
        if key is None:
            fields = {name: value for name, value in self.wanted.items() if name != "request_id"}
            return Key(key_id, fields, secrets=(Secret(secret_id),))
        match self.method:
            case "Rotate":
                old = {secret.id: replace(secret, state="EXPIRED") for secret in key.living}
                secrets = key.secrets if self.wanted["overlap"] else _replaced(key.secrets, old)
                return replace(key, secrets=(*secrets, Secret(secret_id)))
            case "Revoke" if secret_id:
                revoked = {secret_id: Secret(secret_id, "REVOKED", self.label)}
                return replace(key, secrets=_replaced(key.secrets, revoked))
            case "Revoke":
                return replace(key, state="REVOKED", reason=self.label)
            case "Update":
                return replace(key, fields={**key.fields, **self.wanted})
            case _:
                return replace(key, state={"Suspend": "SUSPENDED", "Resume": "ACTIVE"}[self.method])


def _replaced(secrets: Iterable[Secret], by: Mapping[str, Secret]) -> tuple[Secret, ...]:
    return tuple(by.get(secret.id, secret) for secret in secrets)


@dataclass
class Life:
    """The calls that were made for one key, each after the answer of the one before."""

    name: str
    calls: list[Call]

    @property
    def open(self) -> Call | None:
        """The last call, if it was not answered."""
        return self.calls[-1] if self.calls and self.calls[-1].answer is None else None


@dataclass
class Batch:
    """A batch of usage: what it adds to the source's own secret, and to the one that all sources report of."""

    own: Tally
    shared: Tally
    is_acknowledged: bool = False


@dataclass
class Source:
    """The batches of one source, each sent after the answer of the one before.

    Parameters:
        secret_id: that nobody else reports of.
    """

    name: str
    secret_id: str
    batches: list[Batch]

    @property
    def open(self) -> Batch | None:
        """The last batch, if it was not answered."""
        return self.batches[-1] if self.batches and not self.batches[-1].is_acknowledged else None

    def recorded(self, usage: Mapping[str, Tally]) -> list[Batch] | None:
        """The batches that are in the totals: all acknowledged ones, and perhaps the last; None if it is neither."""
        acknowledged = [batch for batch in self.batches if batch.is_acknowledged]
        for batches in (acknowledged, self.batches):
            if usage.get(self.secret_id, Tally()) == total_of(batch.own for batch in batches):
                return batches
        return None


def total_of(tallies: Iterable[Tally]) -> Tally:
    """All of them together."""
    columns = zip(*(each[:4] for each in tallies), strict=True)
    return Tally(*map(sum, columns))


class Judged(NamedTuple):
    """What Verify says to a key string."""

    verdict: str
    key_id: str
    secret_id: str


@dataclass
class Seen:
    """What is there afterwards.

    Parameters:
        usage: what was reported, by secret.
        judged: by key string, of all that were acknowledged.
    """

    keys: Sequence[Key]
    events: Sequence[Event]
    usage: Mapping[str, Tally]
    judged: Mapping[str, Judged]

    def has(self, call: Call) -> bool:
        """Whether the change of a call is there, as far as the audit tells."""
        return any(event.label == call.label for event in self.events)


def violations(lives: Sequence[Life], sources: Sequence[Source], shared: str, seen: Seen) -> list[str]:
    """What is there and must not be, and what is not there and must be; a line for each.

    What was acknowledged must be there, once. What was not answered may be there or not, but wholly: a change with its
    audit event, a batch with all its records.

    Parameters:
        shared: the secret that all sources report of.
    """
    known = {life.name for life in lives}
    labels = {call.label for life in lives for call in life.calls}
    return [
        *(line for life in lives for line in _of_life(life, seen)),
        *(f"key {key.id}: nobody asked for it" for key in seen.keys if key.name not in known),
        *(f"audit event {event.label!r}: of no call" for event in seen.events if event.label not in labels),
        *_of_usage(sources, shared, seen.usage),
    ]


def _of_life(life: Life, seen: Seen) -> Iterator[str]:
    """What is wrong with one key."""
    expected: Key | None = None
    last: Call | None = None
    for call in life.calls:
        events = [event for event in seen.events if event.label == call.label]
        if events or call.answer:
            if expected is None and call.method != "Create":
                yield f"{call.label}: a change of a key that was not created"
                return
            due = call.event(expected, events)
            if events != [due]:
                yield f"{call.label}: {len(events)} audit events, {events}, not {due}"
            expected, last = call.change(expected, due.key_id, due.secret_id), call
    actual = [key for key in seen.keys if key.name == life.name]
    if actual != [expected] * (expected is not None):
        yield f"{life.name}: is {actual}, not {expected}"
    elif last and last.answer and last.answer.key.etag != actual[0].etag:
        yield f"{life.name}: changed after {last.label} was acknowledged"
    yield from _of_judgements(life, expected, seen)


def _of_judgements(life: Life, expected: Key | None, seen: Seen) -> Iterator[str]:
    """What is wrong with what Verify says to the acknowledged key strings of a key."""
    for answer in (call.answer for call in life.calls if call.answer and call.answer.key_string):
        judged = seen.judged.get(answer.key_string)
        due = expected and Judged(expected.verdict(answer.secret_id), expected.id, answer.secret_id)
        if judged != due:
            yield f"{life.name}: secret {answer.secret_id} is judged {judged}, not {due}"


def _of_usage(sources: Sequence[Source], shared: str, usage: Mapping[str, Tally]) -> Iterator[str]:
    """What is wrong with the totals."""
    recorded = list[Batch]()
    for source in sources:
        batches = source.recorded(usage)
        if batches is None:
            yield f"{source.name}: {usage.get(source.secret_id)} is not the sum of what was sent"
        recorded += batches or []
    if usage.get(shared, Tally()) != total_of(batch.shared for batch in recorded):
        yield f"what all sources report of: {usage.get(shared)} is not the sum of what they recorded"
    for secret_id in usage.keys() - {shared, *(source.secret_id for source in sources)}:
        yield f"secret {secret_id}: nobody reported of it"
