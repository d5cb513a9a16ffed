"""Hot Verify while something else happens: revocations, or a flood of keys that are none."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from secrets import token_bytes
from statistics import median
from typing import Final

import psycopg

from bench.deployment import Served
from bench.generator import CANCELLED, GRPC_OK, RESOURCE_EXHAUSTED, UNAVAILABLE, Answers, Loop, WrongAnswersError
from bench.result import Column, Row, Topic
from bench.revoking import Revocations
from bench.session import Session, body, settle, stub_of
from keysvc.core.keystring import Environment, KeyString, mint

HOT_SHARE: Final = 0.25
CHEAP_SHARE: Final = 0.50
COLD_TIMES: Final = 2.0
REVOCATIONS_PER_SECOND: Final = 50.0
SELDOM_PER_SECOND: Final = 4.0
P99_RATIO_MAX: Final = 2.0
LOOK_UPS_MAX: Final = 0.001
FLOOD_CONNECTIONS: Final = 8
FLOOD_IN_FLIGHT_MAX: Final = 512

COLUMNS: Final = (
    Column("offered", "flood/s"),
    Column("answered", "answered/s"),
    Column("hot_p50", "hot p50 ms", ".2f"),
    Column("hot_p99", "hot p99 ms", ".2f"),
    Column("ratio", "of quiet", ".2f"),
    Column("control_ratio", "of valid calls", ".2f"),
    Column("hot_failed", "hot failed"),
    Column("misses", "look-ups"),
    Column("revocations", "Revokes"),
    Column("revoke_failed", "Revokes failed"),
    Column("revoke_p50", "Revoke p50 ms", ".1f"),
    Column("revoke_p99", "p99 ms", ".1f"),
)

MALFORMED: Final = "malformed keys"
FORGED: Final = "forged keys"
UNKNOWN: Final = "unknown keys"
CONTROL: Final = "as many valid calls"
QUIET: Final = "quiet"
REVOCATIONS: Final = "50 revocations/s"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens beside hot Verify.

    Parameters:
        per_second: calls of the flood; 0: there is none.
        verdict: of its answers.
        looks_up: each of them needs the database.
        revocations: per second.
    """

    name: str
    per_second: float = 0.0
    verdict: str = ""
    looks_up: bool = False
    revocations: float = SELDOM_PER_SECOND


@dataclass(frozen=True, slots=True)
class Found:
    """What one round of a trouble found."""

    hot: Answers
    flood: Answers | None
    misses: int
    revocations: dict[str, float | int | None]


class Flood:
    """Rounds of trouble for one server.

    Parameters:
        tag_key: of the deployment.
    """

    def __init__(self, session: Session, served: Served, rate: float, tag_key: bytes) -> None:
        self._session = session
        self._served = served
        self._rate = rate
        self._tag_key = tag_key
        self.refused = 0

    async def play(self, trouble: Trouble, number: int) -> Found:
        """One round.

        Raises:
            WrongAnswersError: somebody was told what is not so.
        """
        session, served = self._session, self._served
        seconds = session.effort.flood_seconds
        keys = session.pool.take(int(trouble.revocations * (seconds + 2 * session.effort.warm_seconds + 1)))
        await session.prime([served], keys)
        bodies = self._bodies(trouble, seconds + 2)
        before = await settle(served)
        enough = asyncio.Event()
        async with stub_of(served) as stub, asyncio.TaskGroup() as group:
            revocations = Revocations(session, stub)
            flood = group.create_task(self._flood(trouble, bodies, enough))
            revoking = group.create_task(revocations.revoke_at(keys, trouble.revocations, enough))
            await asyncio.sleep(session.effort.warm_seconds)
            loop = Loop(rate=self._rate, seconds=seconds, warm=session.effort.warm_seconds, seed=number)
            hot = await session.generator.run([served.address], [body(key.key_string) for key in session.hot], loop)
            enough.set()
            await revoking
        _check(f"hot keys, {trouble.name}", hot, "VALID")
        misses = (await settle(served)).misses - before.misses
        self.refused += await revocations.check([served])
        answers = flood.result()
        if answers is not None:
            _check(f"flood, {trouble.name}", answers, trouble.verdict)
        if answers is not None and trouble.looks_up and misses < answers.count(trouble.verdict, "DATABASE"):
            raise WrongAnswersError(f"{trouble.name}: the server counted only {misses} misses")
        return Found(hot, answers, misses, revocations.figures())

    async def _flood(self, trouble: Trouble, bodies: Sequence[bytes], enough: asyncio.Event) -> Answers | None:
        if not bodies:
            return None
        loop = Loop(
            rate=trouble.per_second,
            seconds=24 * 3600,
            connections=FLOOD_CONNECTIONS,
            shed_above=FLOOD_IN_FLIGHT_MAX,
        )
        return await self._session.generator.run([self._served.address], bodies, loop, enough)

    def _bodies(self, trouble: Trouble, seconds: float) -> list[bytes]:
        """Enough different ones where the same one would be remembered; few where not."""
        match trouble.name:
            case "malformed keys":
                texts = [token_bytes(20 + number % 40).hex() for number in range(1000)]
            case "forged keys":
                texts = [_forged(token_bytes(32)) for _ in range(10_000)]
            case "unknown keys":
                number = int(trouble.per_second * seconds * 1.1)
                minted = (mint(Environment.LIVE, self._tag_key, token_bytes) for _ in range(number))
                return [body(each.key_string) for each in minted]
            case "as many valid calls":
                return [body(key.key_string) for key in self._session.hot]
            case _:
                texts = []
        return [body(KeyString(text)) for text in texts]


async def measure(session: Session) -> Topic:
    """Each trouble, in rounds in random order."""
    topic = Topic(
        "flood",
        "Verify of remembered keys while something else happens",
        f"Open loop at {HOT_SHARE:.0%} of what hot Verify answers at most. Floods come over other connections, at "
        f"{CHEAP_SHARE:.0%} of it, those that need look-ups at {COLD_TIMES:g} times what cold Verify answers at most; "
        f"at most {FLOOD_IN_FLIGHT_MAX} calls of a flood are under way. As many valid calls show what any such load "
        f"costs. There are {SELDOM_PER_SECOND:g} revocations per second, once {REVOCATIONS_PER_SECOND:g}. Medians "
        f"of {session.effort.rate_rounds} interleaved rounds of {session.effort.flood_seconds:g} s.",
        COLUMNS,
    )
    with session.serve() as served:
        await session.prime([served], session.hot)
        hot, cold = await session.capacity(served), await session.cold_capacity(served)
        troubles = [
            Trouble(QUIET),
            Trouble(REVOCATIONS, revocations=REVOCATIONS_PER_SECOND),
            Trouble(CONTROL, CHEAP_SHARE * hot, "VALID"),
            Trouble(MALFORMED, CHEAP_SHARE * hot, "MALFORMED"),
            Trouble(FORGED, CHEAP_SHARE * hot, "MALFORMED"),
            Trouble(UNKNOWN, COLD_TIMES * cold, "NOT_FOUND", looks_up=True),
        ]
        flood = Flood(session, served, HOT_SHARE * hot, _tag_key(session.deployment.url))
        found: dict[str, list[Found]] = {trouble.name: [] for trouble in troubles}
        for number in range(session.effort.rate_rounds):
            for trouble in session.chance.sample(troubles, len(troubles)):
                one = await flood.play(trouble, number)
                found[trouble.name].append(one)
                topic.raw.append({"trouble": asdict(trouble), "number": number, **asdict(one)})
                session.say(f"  {trouble.name}: hot p99 {one.hot.latency_ms['p99']:.2f} ms")
    quiet, control = (_middle(found[name])["hot_p99"] or 0.0 for name in (QUIET, CONTROL))
    topic.rows.extend(_row(trouble, found[trouble.name], quiet, control) for trouble in troubles)
    answered = sum(each.hot.answered for some in found.values() for each in some)
    failed = sum(int(row.figures["hot_failed"] or 0) for row in topic.rows)
    topic.checks.append(f"of {answered:,} calls for hot keys all were VALID but for {failed:,} that got no judgement")
    topic.checks.append(f"all of {flood.refused:,} answers for keys that had been revoked meanwhile refused them")
    return topic


def _middle(rounds: Sequence[Found]) -> dict[str, float | int | None]:
    """Medians of rounds; what is counted is added up."""
    figures: dict[str, float | int | None] = {}
    for name in ("revoke_p50", "revoke_p99"):
        figures[name] = median(each.revocations[name] or 0.0 for each in rounds)
    for name in ("revocations", "revoke_failed", "ack", "timer", "pending"):
        figures[name] = sum(int(each.revocations[name] or 0) for each in rounds)
    floods = [each.flood for each in rounds if each.flood is not None]
    failed = sum(kind.count for each in rounds for kind in each.hot.kinds if kind.status != GRPC_OK)
    return figures | {
        "hot_p50": median(each.hot.latency_ms["p50"] for each in rounds),
        "hot_p99": median(each.hot.latency_ms["p99"] for each in rounds),
        "hot_failed": failed,
        "misses": sum(each.misses for each in rounds),
        "answered": median(each.per_second for each in floods) if floods else None,
    }


def _row(trouble: Trouble, rounds: Sequence[Found], quiet: float, control: float) -> Row:
    figures = _middle(rounds)
    p99 = figures["hot_p99"] or 0.0
    figures["ratio"] = p99 / quiet
    figures["offered"] = trouble.per_second or None
    is_flood = trouble.name in {MALFORMED, FORGED, UNKNOWN}
    if is_flood:
        figures["control_ratio"] = p99 / control
    target = f"p99 < {P99_RATIO_MAX:g} x quiet" + ("" if trouble.looks_up else ", no look-up")
    # A lease that lapses on a busy machine costs the hot keys look-ups too; those of a flood would be as many as it.
    few = (figures["misses"] or 0) <= LOOK_UPS_MAX * (figures["answered"] or 0)
    holds = p99 < P99_RATIO_MAX * quiet and (trouble.looks_up or few)
    elsewhere = sum(kind.count for each in rounds for kind in each.hot.kinds if kind.basis == "DATABASE")
    receipts = {name: figures[name.lower()] for name in ("ACK", "TIMER", "PENDING")}
    notes = [f"{number} {name}" for name, number in receipts.items() if number]
    return Row(
        trouble.name,
        figures,
        target=target if is_flood else "",
        holds=holds if is_flood else None,
        note=", ".join(notes + [f"{elsewhere} hot answers from the database"] * bool(elsewhere)),
    )


def _check(name: str, answers: Answers, verdict: str) -> None:
    """Raise ``WrongAnswersError`` for an answer with another verdict; an overloaded server may give none."""
    overloaded = {CANCELLED, RESOURCE_EXHAUSTED, UNAVAILABLE}
    wrong = [
        kind
        for kind in answers.kinds
        if (kind.verdict != verdict if kind.status == GRPC_OK else kind.status not in overloaded)
    ]
    if wrong or not answers.answered:
        raise WrongAnswersError(
            f"{name}: all answers should be {verdict}, but there were {', '.join(map(str, wrong)) or 'none'}"
        )


def _forged(entropy: bytes) -> str:
    """A text with the shape of a key string, and a tag that is not this deployment's."""
    return mint(Environment.LIVE, entropy, token_bytes).key_string.reveal()


def _tag_key(url: str) -> bytes:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT key FROM tag_key").fetchone()
    if row is None:
        raise RuntimeError("the database has not been migrated")
    return bytes(row[0])
