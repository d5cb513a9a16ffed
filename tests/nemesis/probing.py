"""Asks every server by its address: until it knows the keys, all the time, and the moment that a change is done."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from tests.nemesis.asking import Asker
from tests.nemesis.callers import Callers
from tests.nemesis.cluster import Caller, now
from tests.nemesis.history import Change, Key, Question, Revision

SCOPES: Final = ("pdf.read", "pdf.write")
ADDRESSES: Final = ("192.0.2.7", "198.51.100.7")

TICK_SECONDS: Final = 0.1
"""So often every server is asked about some of the keys, whether it has answered before or not."""

QUESTIONS: Final = 32
"""Of each tick; the next tick is about the next keys."""

TOGETHER_MAX: Final = 20
"""Questions in one call of each tick: one that must be looked up holds up those beside it."""

UNDER_WAY_MAX: Final = 15
"""Ticks whose questions one server has not answered; one that stands still must find many when it goes on."""

AGAIN_SECONDS: Final = 0.1
"""So long afterwards everybody is asked about a revoked key once more."""

ALONE_SECONDS: Final = 0.2
"""So often a revoked key is also asked about in calls of its own."""

TOGETHER_SECONDS: Final = 0.05
"""Whatever else has returned by then after the last questions is asked about together."""

PRIMED_SECONDS_MAX: Final = 20.0


async def prime(asker: Asker, callers: Sequence[Caller], keys: Sequence[Key]) -> int:
    """Let every server know every key: it says VALID, and from memory.

    Returns:
        How many pairs of a key and a server have been seen so; all of them.
    """

    async def prime_one(caller: Caller) -> int:
        unknown = {key.secret_id for key in keys}
        while unknown:
            answers = await asker.verify_all(caller, [Question(each) for each in sorted(unknown)])
            unknown -= {
                each.question.secret_id
                for each in answers
                if (each.verdict, each.basis, each.server) == ("VALID", "MEMORY", caller.name)
            }
            if not answers:
                await asyncio.sleep(0.02)
        return len(keys)

    async with asyncio.timeout(PRIMED_SECONDS_MAX):
        return sum(await asyncio.gather(*map(prime_one, callers)))


class Probing:
    """Asks about the secrets of a round.

    Parameters:
        asker: writes down what is answered.
        callers: who is asked.
        chance: decides what is asked.
        group: has the questions that are under way: a server that stands still answers when it goes on.

    Attributes:
        revoked: secrets whose revocation is what the round is about.
        changing: others, that are changed at the moment.
    """

    def __init__(self, asker: Asker, callers: Callers, chance: random.Random, group: asyncio.TaskGroup) -> None:
        self._asker = asker
        self._callers = callers
        self._chance = chance
        self._group = group
        self.revoked = list[str]()
        self.changing = list[str]()
        self._place = 0
        self._under_way = Counter[str]()
        self._alone_at = 0.0
        self._due = defaultdict[str, list[str]](list)
        self._sending = set[str]()

    async def watch(self) -> None:
        """Ask every server about keys, all the time."""
        while True:
            questions = self._next()
            for caller in self._callers.everybody():
                if self._under_way[caller.name] < UNDER_WAY_MAX:
                    self._group.create_task(self._ask(caller, questions))
            await asyncio.sleep(TICK_SECONDS)

    async def ask_for_the_last_time(self) -> None:
        """Ask everybody about everything until it is answered."""
        questions = self._questions(self.revoked)

        async def ask(caller: Caller) -> None:
            await self._callers.persist(lambda caller: self._asker.verify_all(caller, questions), caller)

        await asyncio.gather(*map(ask, self._callers.everybody()))

    async def revocation(self, change: Change, secret_id: str, *, again: bool = False) -> None:
        """Ask everybody about a secret the moment that its revocation was promised to be true.

        Parameters:
            again: and once more.
        """
        if not await _until_promised(change) or not change.receipt:
            return
        self._ask_soon(secret_id)
        if now() > self._alone_at + ALONE_SECONDS:
            self._alone_at = now()
            self._ask_alone(secret_id, change.receipt.revision)
        if again:
            self._group.create_task(self._ask_again(secret_id))

    async def change(self, change: Change, secrets: Sequence[str]) -> None:
        """Ask everybody about secrets when a change was promised to be true, in calls of their own."""
        if await _until_promised(change) and change.receipt:
            for secret_id in secrets:
                self._ask_alone(secret_id, change.receipt.revision)

    async def _ask_again(self, secret_id: str) -> None:
        await asyncio.sleep(AGAIN_SECONDS)
        self._ask_soon(secret_id)

    def _ask_soon(self, secret_id: str) -> None:
        """Ask everybody about a secret, together with what else there is to ask at the moment."""
        for caller in self._callers.everybody():
            self._due[caller.name].append(secret_id)
            if caller.name not in self._sending:
                self._sending.add(caller.name)
                self._group.create_task(self._send(caller))

    async def _send(self, caller: Caller) -> None:
        """Ask a server about all that is due: at once, unless it has just been asked."""
        while secrets := self._due.pop(caller.name, []):
            questions = [Question(each) for each in dict.fromkeys(secrets)]
            self._group.create_task(self._asker.verify_all(caller, questions))
            await asyncio.sleep(TOGETHER_SECONDS)
        self._sending.discard(caller.name)

    def _ask_alone(self, secret_id: str, revision: Revision) -> None:
        """Ask everybody about a secret, some so that the answer must include a revision, or everything."""
        for caller in self._callers.everybody():
            level = self._chance.choice(("leased", "leased", "leased", "at_least", "strong"))
            at_least = revision if level == "at_least" else None
            verifying = self._asker.verify(caller, Question(secret_id), level=level, at_least=at_least)
            self._group.create_task(verifying)

    def _next(self) -> list[Question]:
        """About the secrets whose turn it is, and about those that are changed."""
        begin, self._place = self._place, self._place + QUESTIONS
        if self._place >= len(self.revoked):
            self._place = 0
        return self._questions(self.revoked[begin : begin + QUESTIONS])

    async def _ask(self, caller: Caller, questions: list[Question]) -> None:
        groups = [questions[begin : begin + TOGETHER_MAX] for begin in range(0, len(questions), TOGETHER_MAX)]
        self._under_way[caller.name] += 1
        try:
            await asyncio.gather(*(self._asker.verify_all(caller, some) for some in groups))
        finally:
            self._under_way[caller.name] -= 1

    def _questions(self, revoked: Sequence[str]) -> list[Question]:
        """One question about each of these, to which VALID is an answer, and one about each secret that is changed."""
        choose = self._chance.choice
        return [
            *map(Question, revoked),
            *(Question(each, choose(((), SCOPES[:1], SCOPES[1:])), choose(("", *ADDRESSES))) for each in self.changing),
        ]


async def _until_promised(change: Change) -> bool:
    """Wait until a change is promised to be true everywhere; whether it is promised at all."""
    if change.promised is None:
        return False
    since, _ = change.promised
    if (wait := since - now()) > 0:
        await asyncio.sleep(wait)
    return True
