"""Revoke with several holders, idle and under load."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Final

from bench.deployment import Served
from bench.generator import Loop, WrongAnswersError
from bench.result import Column, Row, Topic
from bench.revoking import Revocations
from bench.seeding import Minted
from bench.session import Session, body, stub_of
from keysvc.capacity import connections_each

LOADED_KEYS: Final = 200
P50_MS_MAX: Final = {4: 6.0, 16: 12.0}
P99_MS_MAX: Final = {4: 25.0}

COLUMNS: Final = (
    Column("holders", "holders", "d"),
    Column("revocations", "revocations"),
    Column("first_ms", "first ms", ".1f"),
    Column("revoke_p50", "p50 ms", ".1f"),
    Column("revoke_p99", "p99 ms", ".1f"),
    Column("revoke_max", "max ms", ".1f"),
    Column("ack", "ACK"),
    Column("timer", "TIMER"),
    Column("pending", "PENDING"),
    Column("load", "Verify per second"),
    Column("load_p99", "their p99 ms", ".2f"),
)


async def measure(session: Session) -> Topic:
    """For each number of holders."""
    topic = Topic(
        "revoke",
        "Revoke, until nobody accepts the key",
        "Each holder is a server process of its own on one database. Every key has been verified at every holder, so "
        "that all remember it; then it is revoked through one of them, one key after the other. The first is not in "
        f"the quantiles. Under load: {session.effort.load_per_second:,.0f} Verifies per second over all holders.",
        COLUMNS,
    )
    refused = 0
    for holders in session.effort.holders:
        try:
            # As many as each of so many workers of one server would have.
            connections = f"--connections={connections_each(holders)}"
            with session.deployment.serve_several(holders, "--workers=1", connections) as served:
                refused += await _measure_one(session, served, topic)
        except (RuntimeError, OSError) as error:
            # The others are measured all the same: so many may not fit the machine, or the database's connections.
            topic.rows.append(Row(_name(holders), {"holders": holders}, "to be measured", holds=False, note=str(error)))
            session.say(f"  {topic.rows[-1].name}: {error}")
    topic.checks.append(
        f"each key was VALID from memory at each holder before; afterwards all of {refused:,} answers refused it"
    )
    return topic


async def _measure_one(session: Session, served: Sequence[Served], topic: Topic) -> int:
    """Idle, then under load; how many answers refused the keys afterwards."""
    refused = 0
    busy = session.pool.take(min(LOADED_KEYS, len(session.pool) // 20))
    await session.prime(served, busy)
    for loaded in (False, True):
        keys = session.pool.take(session.effort.revocations)
        await session.prime(served, keys)
        async with stub_of(served[0]) as stub, _load(session, served, busy if loaded else []) as load:
            revocations = Revocations(session, stub)
            await revocations.revoke_each(keys)
        if revocations.failures:
            raise WrongAnswersError(f"revocations failed: {dict(revocations.failures)}")
        refused += await revocations.check(served)
        row = _row(len(served), revocations, load)
        topic.rows.append(row)
        topic.raw.append({"loaded": loaded, "seconds": revocations.seconds, **asdict(row)})
        session.say(f"  {row.name}: p50 {row.figures['revoke_p50']:.1f} ms, p99 {row.figures['revoke_p99']:.1f} ms")
    return refused


@asynccontextmanager
async def _load(session: Session, served: Sequence[Served], keys: Sequence[Minted]) -> AsyncIterator[dict[str, float]]:
    """Have servers verify keys meanwhile; how fast that was, known afterwards."""
    found: dict[str, float] = {}
    if not keys:
        yield found
        return
    enough = asyncio.Event()
    loop = Loop(rate=session.effort.load_per_second, seconds=24 * 3600, connections=max(8, len(served)))
    bodies = [body(key.key_string) for key in keys]
    running = asyncio.create_task(session.generator.run([each.address for each in served], bodies, loop, enough))
    try:
        await asyncio.sleep(session.effort.warm_seconds)
        yield found
    finally:
        enough.set()
        answers = await running
    answers.check_all("VALID", "MEMORY")
    found |= {"load": answers.per_second, "load_p99": answers.latency_ms["p99"]}


def _row(holders: int, revocations: Revocations, load: dict[str, float]) -> Row:
    figures = revocations.figures(skipped=1)
    limits = [
        (figures[f"revoke_{name}"], name, limits[holders])
        for name, limits in (("p50", P50_MS_MAX), ("p99", P99_MS_MAX))
        if holders in limits
    ]
    return Row(
        f"{_name(holders)}, {'under load' if load else 'idle'}",
        {"holders": holders, "first_ms": revocations.seconds[0] * 1000, **figures, **load},
        target=", ".join(f"{name} at most {limit:g} ms" for _, name, limit in limits),
        holds=all((found or 0) <= limit for found, _, limit in limits) if limits else None,
    )


def _name(holders: int) -> str:
    return f"{holders} {'holder' if holders == 1 else 'holders'}"
