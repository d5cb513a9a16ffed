"""What a history covers: whether everybody was asked about each key after its revocation, and how soon."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from itertools import accumulate
from math import inf
from typing import NamedTuple

from tests.nemesis.history import Change, History


class Coverage(NamedTuple):
    """What was asked after revocations had been promised to be true everywhere.

    Parameters:
        seconds: from the promise to the first question that was answered, for each secret and server.
        missing: secrets and servers for which there is none.
    """

    seconds: list[float]
    missing: list[tuple[str, str]]


def coverage(history: History, revokes: Collection[Change], servers: Collection[str]) -> Coverage:
    """How revoked secrets were asked about.

    Parameters:
        revokes: the revocations that matter.
        servers: all that there were at the end.
    """
    asked = defaultdict[tuple[str, str], list[float]](list)
    for answer in history.answers:
        asked[answer.question.secret_id, answer.server].append(answer.invoke)
    found = Coverage([], [])
    for secret_id, since in _promised(history, revokes).items():
        for server in servers:
            after = [invoke for invoke in asked[secret_id, server] if invoke > since]
            if after:
                found.seconds.append(min(after) - since)
            else:
                found.missing.append((secret_id, server))
    return found


def probes(history: History, revokes: Collection[Change]) -> Counter[tuple[str, str]]:
    """How many answers there are to questions about revoked secrets that were asked after the promise.

    Parameters:
        revokes: the revocations that matter.

    Returns:
        By server and basis.
    """
    promised = _promised(history, revokes)
    return Counter(
        (answer.server, answer.basis)
        for answer in history.answers
        if answer.invoke > promised.get(answer.question.secret_id, inf)
    )


def most_at_once(changes: Iterable[Change]) -> int:
    """How many of the changes that were answered were under way at the same time, at most."""
    answered = [change for change in changes if change.returned < inf]
    steps = [(change.invoke, 1) for change in answered] + [(change.returned, -1) for change in answered]
    return max(accumulate(step for _, step in sorted(steps)), default=0)


def _promised(history: History, revokes: Collection[Change]) -> dict[str, float]:
    """From when on secrets were first promised to be revoked."""
    found = dict[str, float]()
    for change in revokes:
        if change.promised:
            for secret_id in history.ended_by(change):
                found[secret_id] = min(change.promised[0], found.get(secret_id, change.promised[0]))
    return found
