"""Judges a history: does it keep what was promised? Pure, so that it can be shown made-up histories.

The promises about revocation are two comparisons for each secret, since it is a register that is written once. All
others are about revisions: an answer has one that is high enough, and says what the changes up to it give.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from operator import attrgetter
from typing import Final, NamedTuple

from tests.nemesis.history import REFUSING, Answer, Change, History
from tests.nemesis.replaying import Replay, has_effect

READING_SECONDS: Final = 0.05
"""So far a time that a server told may be off: it is read from another clock of the same machine."""


class Violation(NamedTuple):
    """A broken promise.

    Parameters:
        rule: which one.
        text: who broke it, when.
        secret_id: of which key, if it is about one.
    """

    rule: str
    text: str
    secret_id: str = ""


def violations(history: History, *, clock_seconds: float = 0.25) -> list[Violation]:
    """All broken promises of a history.

    Parameters:
        clock_seconds: so far an end by time may be missed, either way.
    """
    if len(epochs := _epochs(history)) > 1:
        return [Violation("epoch", f"revisions of {len(epochs)} databases")]
    found = [
        *_revoked_is_refused(history),
        *_final_is_final(history),
        *_revoking_stays(history),
        *_answers_include_receipts(history),
        *_answers_include_what_was_asked_for(history),
    ]
    if history.events is not None:
        replay = Replay(history, clock_seconds)
        found += _refused_is_unchanged(history)
        found += _receipts_are_of_events(history, replay)
        found += _verdicts_are_right(history, replay)
    return found


def _epochs(history: History) -> set[str]:
    revisions = [
        *(answer.revision for answer in history.answers),
        *(change.receipt.revision for change in history.changes if change.receipt),
        *(event.revision for event in history.events or ()),
    ]
    return {revision.epoch for revision in revisions if revision}


def _revoked_is_refused(history: History) -> Iterator[Violation]:
    """(S), of revocations: every VALID was asked for no later than the moment from which on nobody may say so."""
    valid = _by_secret(answer for answer in history.answers if answer.verdict == "VALID")
    for change in history.changes:
        if change.method != "Revoke" or not (since := _since(change)):
            continue
        for secret_id in history.ended_by(change):
            late = max(valid[secret_id], key=attrgetter("invoke"), default=None)
            if late and late.invoke > since:
                yield Violation("S", f"{_named(late)}, {late.invoke - since:.3f} s after {change.label}", secret_id)


def _final_is_final(history: History) -> Iterator[Violation]:
    """(A): nobody is told VALID who asks after somebody was told REVOKED."""
    valid = _by_secret(answer for answer in history.answers if answer.verdict == "VALID")
    told = defaultdict[str, list[tuple[float, str]]](list)
    for answer in history.answers:
        if answer.verdict == "REVOKED":
            told[answer.question.secret_id].append((answer.returned, f"Verify of {answer.server}"))
    for each in history.told:
        if each.state == "REVOKED":
            told[each.secret_id].append((each.returned, each.server))
    for secret_id, final in told.items():
        first, who = min(final)
        if valid[secret_id]:
            last = max(valid[secret_id], key=attrgetter("invoke"))
            if last.invoke > first:
                yield Violation(
                    "A", f"{_named(last)} was asked for {last.invoke - first:.3f} s after {who} said REVOKED"
                )


def _revoking_stays(history: History) -> Iterator[Violation]:
    """REVOKING is never VALID again, at any higher revision.

    One server may say both, VALID last: it has looked the key up, and then answers under a lease that it was granted
    before the revocation. That is why REVOKING is not final.
    """
    for answers in _by_secret(history.answers).values():
        seqs = [answer.revision.seq for answer in answers if answer.verdict in REFUSING and answer.revision]
        for answer in answers if seqs else ():
            if answer.verdict == "VALID" and answer.revision and answer.revision.seq >= min(seqs):
                text = f"{_named(answer)} at {answer.revision.seq}, which was revoked at {min(seqs)}"
                yield Violation("revoking", text, answer.question.secret_id)


def _answers_include_receipts(history: History) -> Iterator[Violation]:
    """(S), of all changes: an answer that was asked for when a change was true everywhere has at least its revision."""
    promised = [
        (since, change.receipt.revision.seq)
        for change in history.changes
        if change.receipt and (since := _since(change)) is not None
    ]
    least = _Highest(sorted(promised))
    for answer in history.answers:
        if answer.revision and answer.revision.seq < (due := least.before(answer.invoke)):
            text = f"{_named(answer)} at {answer.revision.seq}, but {due} was true everywhere"
            yield Violation("revision", text, answer.question.secret_id)


def _answers_include_what_was_asked_for(history: History) -> Iterator[Violation]:
    """`at_least` includes that revision, and `strong` everything that anybody knew before."""
    known = [(answer.returned, answer.revision.seq) for answer in history.answers if answer.revision]
    known += [(change.returned, change.receipt.revision.seq) for change in history.changes if change.receipt]
    highest = _Highest(sorted(known))
    for answer in history.answers:
        due = -1
        if answer.level == "strong":
            due = highest.before(answer.invoke)
        elif answer.at_least:
            due = answer.at_least.seq
        if answer.revision and answer.revision.seq < due:
            text = f"{_named(answer)} at {answer.revision.seq}, not at {due} or later"
            yield Violation(answer.level, text, answer.question.secret_id)


def _refused_is_unchanged(history: History) -> Iterator[Violation]:
    """(E): an error that says that nothing was changed is true. And nothing is changed that nobody has asked for."""
    assert history.events is not None
    calls = {change.label: change for change in history.changes}
    for event in history.events:
        if event.key_id and event.key_id not in history.keys:
            continue
        change = calls.get(event.label)
        if event.revision and change is None:
            yield Violation("E", f"{event.method} {event.label!r}: of no call")
        elif change and change.refusal:
            yield Violation(
                "E", f"{event.method} {event.label!r} was made, though {change.refusal} said that it was not"
            )


def _receipts_are_of_events(history: History, replay: Replay) -> Iterator[Violation]:
    """What was acknowledged was made, once, at the revision of its receipt; or was so already."""
    events = defaultdict[str, list[int]](list)
    for event in history.events or ():
        events[event.label].append(event.revision.seq if event.revision else 0)
    for change in history.changes:
        found = events[change.label]
        if len(found) > 1:
            yield Violation("receipt", f"{change.label} was made {len(found)} times")
        elif change.receipt and found and found != [change.receipt.revision.seq]:
            yield Violation("receipt", f"{change.label} was made at {found}, not at {change.receipt.revision.seq}")
        elif change.receipt and not found and not has_effect(change, replay, change.receipt.revision.seq):
            yield Violation("receipt", f"{change.label} was acknowledged, and not made")


def _verdicts_are_right(history: History, replay: Replay) -> Iterator[Violation]:
    """Each verdict is what the changes up to the answer's revision give."""
    for answer in history.answers:
        if answer.revision is None:
            yield Violation("verdict", f"{_named(answer)}: without a revision", answer.question.secret_id)
        elif answer.verdict not in (allowed := replay.allowed(answer)):
            expected = " or ".join(sorted(allowed))
            text = f"{_named(answer)} at {answer.revision.seq}, where it is {expected}"
            yield Violation("verdict", text, answer.question.secret_id)


class _Highest:
    """The highest of numbers that came at certain times.

    Parameters:
        items: times and numbers, by time.
    """

    def __init__(self, items: Iterable[tuple[float, int]]) -> None:
        pairs = list(items)
        self._times = [time for time, _ in pairs]
        self._highest = list(accumulate((number for _, number in pairs), max, initial=-1))

    def before(self, time: float) -> int:
        """The highest one that came before a time; -1: there was none."""
        return self._highest[bisect_left(self._times, time)]


def _since(change: Change) -> float | None:
    """From when on a change is true everywhere; None: nobody said so."""
    promised = change.promised
    if promised is None:
        return None
    return promised[0] + (0.0 if change.receipt and change.receipt.path else READING_SECONDS)


def _by_secret(answers: Iterable[Answer]) -> defaultdict[str, list[Answer]]:
    found = defaultdict[str, list[Answer]](list)
    for answer in answers:
        found[answer.question.secret_id].append(answer)
    return found


def _named(answer: Answer) -> str:
    """An answer, for people."""
    who = f"{answer.server} from {answer.basis}"
    return f"{answer.verdict} of {answer.question.secret_id}, asked for at {answer.invoke:.3f} s, by {who}"


def story(history: History, secret_id: str) -> list[str]:
    """What happened to a secret, in order; a server that says the same again is not told."""
    key_id = history.owners[secret_id]
    lines = [
        (
            each.invoke,
            "",
            "",
            f"{each.method} at {each.server} {each.wanted}, until {each.returned:.3f}: {each.receipt}",
        )
        for each in history.changes
        if each.key_id == key_id or (not each.key_id and each.workspace == history.keys[key_id].workspace)
    ]
    for answer in history.answers:
        if answer.question.secret_id == secret_id:
            seq = answer.revision.seq if answer.revision else None
            text = f"{answer.server} says {answer.verdict} at {seq} from {answer.basis} ({answer.level})"
            lines.append((answer.invoke, answer.server, answer.verdict, f"{text}, until {answer.returned:.3f}"))
    told, last = list[str](), dict[str, str]()
    for invoke, server, verdict, text in sorted(lines):
        if not server or last.get(server) != verdict:
            told.append(f"{invoke:.3f} {text}")
        last[server] = verdict
    return told
