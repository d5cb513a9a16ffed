"""Revoke with processes that verify by themselves, under leases of the client library."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Final, Self

from bench.deployment import Served
from bench.generator import WrongAnswersError
from bench.result import Column, Row, Topic
from bench.revoking import Revocations
from bench.seeding import Minted
from bench.session import Session, stub_of
from keysvc.core.keystring import KeyString
from keysvc.lease.terms import Terms

HOLDERS: Final = 2

STARTING: Final = 8
"""So many at once: more would only wait for the processors."""

ANSWER_SECONDS_MAX: Final = 60.0
PRIMED_ASKINGS_MAX: Final = 200
MARGIN_SECONDS: Final = 0.25

COLUMNS: Final = (
    Column("clients", "clients", "d"),
    Column("revocations", "revocations"),
    Column("revoke_p50", "p50 ms", ".1f"),
    Column("revoke_p99", "p99 ms", ".1f"),
    Column("revoke_max", "max ms", ".1f"),
    Column("ack", "ACK"),
    Column("timer", "TIMER"),
)


class Client:
    """A process that verifies by itself."""

    def __init__(
        self, process: asyncio.subprocess.Process, asked: asyncio.StreamWriter, said: asyncio.StreamReader
    ) -> None:
        self.process = process
        self._asked = asked
        self._said = said

    @classmethod
    async def start(cls, target: str, api_key: KeyString) -> Self:
        """Start it."""
        words = ["-m", "bench.leased_client", target, api_key.reveal()]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(sys.executable, *words, stdin=pipe, stdout=pipe)
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a process was started without pipes")
        return cls(process, process.stdin, process.stdout)

    async def ask(self, key: Minted) -> str:
        """What it says of a key: the verdict, and OWN or TOLD."""
        self._asked.write(f"{key.key_string.reveal()}\n".encode())
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            return (await self._said.readline()).decode().strip()

    async def prime(self, key: Minted) -> None:
        """Ask until it answers by itself that the key is valid."""
        for _ in range(PRIMED_ASKINGS_MAX):
            if await self.ask(key) == "VALID OWN":
                return
            await asyncio.sleep(0.02)
        raise WrongAnswersError("a client does not answer by itself")


async def measure(session: Session) -> Topic:
    """With each number of clients, then with one of them killed."""
    topic = Topic(
        "leased",
        "Revoke, with clients that verify by themselves",
        f"{HOLDERS} servers; each client is a process that has a lease from one of them. Every key was VALID from the "
        "memory of every client; then it is revoked, one key after the other. At last one client is killed, and the "
        "next key revoked at once: that waits until its lease must have ended.",
        COLUMNS,
    )
    refused = 0
    for number in session.effort.clients:
        async with _open(session, number) as (served, clients):
            refused += await _revoke(session, topic, served, clients, killed=False)
            refused += await _revoke(session, topic, served, clients, killed=True)
    topic.checks.append(f"all of {refused:,} answers of clients after a Revoke refused the key")
    return topic


async def _revoke(
    session: Session, topic: Topic, served: Sequence[Served], clients: list[Client], *, killed: bool
) -> int:
    keys = session.pool.take(1 if killed else max(session.effort.revocations // 3, 1))
    number = len(clients)
    for key in keys:
        await asyncio.gather(*(client.prime(key) for client in clients))
    if killed:
        clients[-1].process.kill()
        clients = clients[:-1]
    refused = 0
    async with stub_of(served[0]) as stub:
        revocations = Revocations(session, stub)
        for key in keys:
            await revocations.revoke(key)
            answers = await asyncio.gather(*(client.ask(key) for client in clients))
            if wrong := [each for each in answers if each.split(" ")[0] not in {"REVOKED", "REVOKING"}]:
                raise WrongAnswersError(f"of a revoked key: {wrong[0]}")
            refused += len(answers)
    if revocations.failures:
        raise WrongAnswersError(f"revocations failed: {dict(revocations.failures)}")
    topic.rows.append(_row(number, revocations, killed=killed))
    topic.raw.append({"seconds": revocations.seconds, **asdict(topic.rows[-1])})
    session.say(f"  {topic.rows[-1].name}: {topic.rows[-1].figures['revoke_p50']:.1f} ms")
    return refused


def _row(number: int, revocations: Revocations, *, killed: bool) -> Row:
    name = "1 client" if number == 1 else f"{number} clients"
    figures = {"clients": number, **revocations.figures()}
    if not killed:
        return Row(name, figures)
    terms = Terms()
    bound = terms.wait_seconds(terms.lease_ms) + MARGIN_SECONDS
    holds = max(revocations.seconds) <= bound
    return Row(f"{name}, one just killed", figures, f"at most {1000 * bound:,.0f} ms", holds)


@asynccontextmanager
async def _open(session: Session, number: int) -> AsyncIterator[tuple[list[Served], list[Client]]]:
    """Servers, and clients that have begun."""
    clients: list[Client] = []
    starting = asyncio.Semaphore(STARTING)
    (key,) = session.pool.take(1)
    with session.deployment.serve_several(HOLDERS, "--workers=1") as served:
        target = "ipv4:" + ",".join(each.address for each in served)

        async def start() -> None:
            async with starting:
                client = await Client.start(target, session.operator)
                clients.append(client)
                await client.prime(key)

        try:
            await asyncio.gather(*(start() for _ in range(number)))
            yield served, clients
        finally:
            for client in clients:
                if client.process.returncode is None:
                    client.process.kill()
                await client.process.wait()
