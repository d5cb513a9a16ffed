"""Throughput: hot, cold and mixed Verify beside an empty handler, in many short rounds in random order."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Final, Protocol

import psycopg

from bench.beside import Beside, open_empty, open_naive
from bench.deployment import Counters, Served
from bench.generator import Answers, Loop, WrongAnswersError
from bench.processors import Watch
from bench.rates import Latencies, at_rate
from bench.result import Column, Row, Topic, spread
from bench.seeding import Minted
from bench.session import Session, body, full_body, settle

HOT_RATIO_MIN: Final = 0.90
COLD_RATIO_MIN: Final = 0.50
MIXED_COLD_EVERY: Final = 10
DIFFERENT_REQUESTS: Final = 50
"""For each key, where requests differ: more than a server can remember as they were."""

COLUMNS: Final = (
    Column("per_second", "per second"),
    Column("ratio", "of empty", ".3f"),
    Column("ratio_low", "quartile", ".3f"),
    Column("ratio_high", "quartile", ".3f"),
    Column("server_us", "CPU µs server", ".1f"),
    Column("cpu_ratio", "of empty", ".2f"),
    Column("database_us", "CPU µs PostgreSQL", ".1f"),
    Column("half_p50_ms", "p50 ms half load", ".2f"),
    Column("half_p99_ms", "p99 ms half load", ".2f"),
    Column("half_p99_ratio", "of empty", ".2f"),
)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of one contender found.

    Parameters:
        number: of the round; those with the same number were next to each other in time.
        server_us, database_us, generator_us: how many microseconds processors worked for one call.
        others: which part of all processors' time went to anything else.
    """

    number: int
    contender: str
    per_second: float
    answered: int
    server_us: float
    database_us: float
    p50_ms: float
    p99_ms: float
    generator_us: float
    others: float


class Contender(Protocol):
    """Something that is called as fast as it answers."""

    @property
    def name(self) -> str:
        """What people call it."""

    async def play(self, number: int) -> Round:
        """One round.

        Raises:
            WrongAnswersError: what was measured is not what the name says.
        """


@dataclass(slots=True)
class Empty:
    """A server beside keysvc: the empty handler, or a naive service.

    Parameters:
        served: keysvc, on the same PostgreSQL.
        basis: of all its answers.
    """

    session: Session
    beside: Beside
    served: Served
    basis: str = "MEMORY"

    @property
    def name(self) -> str:
        """As the server's."""
        return self.beside.name

    async def play(self, number: int) -> Round:
        """One round; the server has to have counted the same calls."""
        bodies = [body(key.key_string) for key in self.session.hot]
        before = await self.beside.count()
        worked, database, watch = self.beside.processor_seconds(), self.served.database_seconds(), Watch()
        answers = await self.session.generator.run([self.beside.address], bodies, self.session.effort.closed_loop())
        worked, database = self.beside.processor_seconds() - worked, self.served.database_seconds() - database
        others = watch.others(worked + database + answers.processor_seconds)
        answers.check_all("VALID", self.basis)
        counted = await self.beside.count() - before
        if counted != answers.answered:
            raise WrongAnswersError(f"{self.name} counted {counted} calls, the generator {answers.answered}")
        return _round(number, self.name, answers, (worked, database, others))


@dataclass(slots=True)
class Keysvc:
    """keysvc, asked for keys of which so many are remembered.

    Parameters:
        last: what the server said of itself when it last had nothing to do.
        valid: how many answers have been VALID so far.
    """

    session: Session
    served: Served
    last: Counters
    valid: int = 0

    async def play(self, name: str, number: int, bodies: Sequence[bytes], loop: Loop, cold: int) -> Round:
        """One round.

        Parameters:
            cold: how many of the bodies are not remembered, each sent once; all others are.
        """
        server, database, watch = self.served.server_seconds(), self.served.database_seconds(), Watch()
        answers = await self.session.generator.run([self.served.address], bodies, loop)
        server, database = self.served.server_seconds() - server, self.served.database_seconds() - database
        others = watch.others(server + database + answers.processor_seconds)
        answers.check_all("VALID", *(("MEMORY",) if not cold else ("MEMORY", "DATABASE")))
        looked_up = answers.count("VALID", "DATABASE")
        if looked_up != cold:
            raise WrongAnswersError(f"{name}: {cold} answers should be from the database, but {looked_up} were")
        now = await settle(self.served)
        hits, misses = now.hits - self.last.hits, now.misses - self.last.misses
        if misses != cold or hits < answers.answered - cold:
            raise WrongAnswersError(
                f"{name}: the server counted {hits} hits and {misses} misses, "
                f"the generator {answers.answered} calls, {cold} of them for what is not remembered"
            )
        self.last = now
        self.valid += answers.answered
        return _round(number, name, answers, (server, database, others))


@dataclass(slots=True)
class Hot:
    """Verify of keys that are remembered."""

    keysvc: Keysvc
    bodies: Sequence[bytes]
    name: str = "hot"

    async def play(self, number: int) -> Round:
        """One round."""
        return await self.keysvc.play(self.name, number, self.bodies, self.keysvc.session.effort.closed_loop(), 0)


@dataclass(slots=True)
class Cold:
    """Verify of keys that are not remembered, but for some.

    Parameters:
        every: each so-manyth is not.
        hot: those that are.
    """

    keysvc: Keysvc
    every: int = 1
    hot: Sequence[Minted] = ()
    name: str = "cold"

    async def play(self, number: int) -> Round:
        """One round."""
        session = self.keysvc.session
        requests = session.effort.cold_requests
        fresh = iter(session.pool.take(-(-requests // self.every)))
        keys = [
            next(fresh) if place % self.every == 0 else self.hot[place % len(self.hot)] for place in range(requests)
        ]
        cold = -(-requests // self.every)
        bodies = [body(key.key_string) for key in keys]
        return await self.keysvc.play(self.name, number, bodies, Loop(requests=requests), cold)


async def measure(session: Session, names: Sequence[str]) -> Topic:
    """Rounds of all that is wanted, and of the empty handler."""
    rounds: list[Round] = []
    latencies: dict[str, Latencies] = {}
    async with AsyncExitStack() as stack:
        served = stack.enter_context(session.serve())
        await session.prime([served], session.hot)
        empty = await stack.enter_async_context(open_empty(session, served))
        keysvc = Keysvc(session, served, await settle(served))
        counted_before = _counted(session)
        contenders: list[Contender] = [Empty(session, empty, served)]
        if "hot" in names:
            contenders.append(Hot(keysvc, [body(key.key_string) for key in session.hot]))
            asked = enumerate(key for _ in range(DIFFERENT_REQUESTS) for key in session.hot)
            bodies = [full_body(key, session.workspace_of(key), number) for number, key in asked]
            contenders.append(Hot(keysvc, bodies, "hot, all fields asked"))
        if "cold" in names:
            contenders.append(Cold(keysvc))
        if "naive" in names:
            naive = await stack.enter_async_context(open_naive(session))
            contenders.append(Empty(session, naive, served, "DATABASE"))
        if "mixed" in names:
            contenders.append(Cold(keysvc, MIXED_COLD_EVERY, session.hot, "mixed, 90 % hot"))
        for number in range(session.effort.rounds):
            session.chance.shuffle(contenders)
            rounds += [await contender.play(number) for contender in contenders]
            session.say(f"  round {number + 1}: " + ", ".join(_told(each) for each in rounds[-len(contenders) :]))
        counted = _counted(session) - counted_before
        if "hot" in names:
            half = spread([each.per_second for each in rounds if each.contender == "hot"])[0] / 2
            latencies = await at_rate(session, {"empty": empty.address, "hot": served.address}, half)
    if counted != keysvc.valid:
        raise WrongAnswersError(f"usage has {counted} valid Verifies more, but {keysvc.valid} were answered")
    topic = Topic(
        "contest",
        "Verify, as fast as it goes",
        f"Closed loop, {Loop().connections} connections with {Loop().streams} calls under way on each; "
        f"{session.effort.rounds} interleaved rounds in random order. Medians over rounds; a ratio is to the empty "
        "handler's round of the same number.",
        COLUMNS,
        checks=[
            f"each of {sum(each.answered for each in rounds):,} answers was VALID, and on the basis that the row says",
            "the server counted as many misses as keys were asked for that it did not remember, and no others",
            f"usage counted exactly the {counted:,} Verifies that were answered",
            _neighbours(rounds),
        ],
        raw=[asdict(each) for each in rounds],
    )
    topic.checks.extend(
        f"{name} at half load ({each.rate:,.0f}/s): {each.told}" for name, each in sorted(latencies.items())
    )
    order = ["empty", "hot", "hot, all fields asked", "mixed, 90 % hot", "cold", "naive"]
    for name in sorted({each.contender for each in rounds}, key=order.index):
        topic.rows.append(_row(name, rounds, latencies))
        session.rates[name] = topic.rows[-1].figures["per_second"] or 0.0
    return topic


def _round(number: int, name: str, answers: Answers, used: tuple[float, float, float]) -> Round:
    """A round; ``used``: processor seconds of server and database, and the part of others."""
    server, database, others = used
    return Round(
        number,
        name,
        answers.per_second,
        answers.answered,
        server / answers.answered * 1e6,
        database / answers.answered * 1e6,
        answers.latency_ms["p50"],
        answers.latency_ms["p99"],
        answers.processor_seconds / answers.answered * 1e6,
        others,
    )


def _row(name: str, rounds: Sequence[Round], latencies: Mapping[str, Latencies]) -> Row:
    """The medians of one contender."""
    of_empty = {each.number: each for each in rounds if each.contender == "empty"}
    own = [each for each in rounds if each.contender == name]
    ratio, low, high = spread([each.per_second / of_empty[each.number].per_second for each in own])
    half = latencies.get(name)
    minimum = {"hot": HOT_RATIO_MIN, "cold": COLD_RATIO_MIN}.get(name)

    def middle(figure: str) -> float:
        return spread([getattr(each, figure) for each in own])[0]

    return Row(
        name,
        {
            "per_second": middle("per_second"),
            "ratio": ratio,
            "ratio_low": low,
            "ratio_high": high,
            "server_us": middle("server_us"),
            "cpu_ratio": spread([each.server_us / of_empty[each.number].server_us for each in own])[0],
            "database_us": middle("database_us"),
            "half_p50_ms": half.ms["p50"] if half else None,
            "half_p99_ms": half.ms["p99"] if half else None,
            "half_p99_ratio": half.ms["p99"] / latencies["empty"].ms["p99"] if half else None,
        },
        target=f"at least {minimum:.2f} of empty" if minimum else "",
        holds=ratio >= minimum if minimum else None,
    )


def _neighbours(rounds: Sequence[Round]) -> str:
    """What else the processors did."""
    generator = spread([each.generator_us for each in rounds])[0]
    others = [each.others for each in rounds]
    return (
        f"the generator needed {generator:.0f} µs of a processor for a call; processes of others "
        f"took {spread(others)[0]:.0%} of the machine, at most {max(others):.0%}"
    )


def _told(each: Round) -> str:
    return f"{each.contender} {each.per_second:,.0f}/s {each.server_us:.0f} µs"


def _counted(session: Session) -> int:
    """How many valid Verifies usage has, those of callers' own keys left out."""
    with psycopg.connect(session.deployment.url) as connection:
        row = connection.execute(
            "SELECT sum(verify_count) FROM usage_total WHERE verdict = 'valid' AND workspace <> 'keysvc/system'"
        ).fetchone()
    return int(row[0] or 0) if row else 0
