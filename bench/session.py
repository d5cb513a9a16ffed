"""What all topics share: the deployment, its keys, the generator, and how much is done."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final
from uuid import UUID

import grpc

from bench.deployment import Counters, Deployment, Served
from bench.generator import UNAVAILABLE, Answers, Generator, Loop
from bench.seeding import Minted, workspace_of
from keysvc.core.keystring import KeyString
from keysvc.v1 import key_pb2, key_service_pb2, verify_pb2
from keysvc.v1.key_service_pb2_grpc import KeyServiceStub

if TYPE_CHECKING:
    from keysvc.v1.key_service_pb2_grpc import KeyServiceAsyncStub

SCOPE: Final = "pdf.read"
HOT_KEYS: Final = 1_000
CALL_SECONDS_MAX: Final = 60.0
ONE_WORKER: Final = ("--workers", "1")

_REPORT_SECONDS_MAX: Final = 10.0
"""A report is written with a renewal, once a second; on a busy machine later."""

_PRIMINGS_MAX: Final = 5
"""The first time after that all is remembered, unless the machine is so busy that a look-up takes too long."""

_IDLE: Final = 0.1
_IDLE_SECONDS_MAX: Final = 20.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done.

    Parameters:
        rounds: of each contender.
        round_seconds, warm_seconds: of a round; the latter are not counted.
        round_requests: in a round, instead; 0: as many as it takes.
        cold_requests: in a round of look-ups.
        rate_rounds, rate_seconds: of calls at a fixed rate; as many rounds find out what can be answered at most.
        flood_seconds: of calls while something else happens.
        revocations: for each number of holders.
        load_per_second: Verifies meanwhile.
        holders: how many there are.
        clients: that verify by themselves.
        usage_seconds: of RecordUsage.
        memory_keys: remembered by one server.
        starts: of each kind.
        gets, pages, creates: calls.
        warm_calls: of each kind before these.
    """

    rounds: int = 10
    round_seconds: float = 3.0
    round_requests: int = 0
    warm_seconds: float = 0.5
    cold_requests: int = 15_000
    rate_rounds: int = 3
    rate_seconds: float = 8.0
    flood_seconds: float = 10.0
    revocations: int = 300
    load_per_second: float = 2_000.0
    holders: tuple[int, ...] = (1, 4, 16)
    clients: tuple[int, ...] = (1, 10, 100)
    usage_seconds: float = 8.0
    memory_keys: int = 100_000
    starts: int = 5
    gets: int = 1_000
    pages: int = 100
    creates: int = 5_000
    warm_calls: int = 10

    def closed_loop(self) -> Loop:
        """A round, as fast as it goes."""
        if self.round_requests:
            return Loop(requests=self.round_requests)
        return Loop(seconds=self.round_seconds, warm=self.warm_seconds)


QUICK: Final = Effort(
    rounds=1,
    round_requests=400,
    warm_seconds=0.1,
    cold_requests=150,
    rate_rounds=1,
    rate_seconds=0.2,
    flood_seconds=0.5,
    revocations=5,
    load_per_second=100.0,
    holders=(1, 2),
    clients=(2,),
    usage_seconds=0.3,
    memory_keys=500,
    starts=1,
    gets=5,
    pages=1,
    creates=32,
    warm_calls=1,
)
"""Whether it runs, not how fast."""


class OutOfKeysError(RuntimeError):
    """There are not enough keys that nobody has used."""


class Pool:
    """Keys that verify; each is given out once.

    Parameters:
        minted: in any order.
        chance: their order.
    """

    def __init__(self, minted: Sequence[Minted], chance: random.Random) -> None:
        self._minted = list(minted)
        chance.shuffle(self._minted)

    def take(self, number: int) -> list[Minted]:
        """So many that nobody had before.

        Raises:
            OutOfKeysError: there are not so many left.
        """
        if number > len(self._minted):
            raise OutOfKeysError(f"{number} unused keys are needed, {len(self._minted)} are left: give more --keys")
        taken, self._minted = self._minted[:number], self._minted[number:]
        return taken

    def __len__(self) -> int:
        """How many are left."""
        return len(self._minted)


@dataclass(slots=True)
class Session:
    """One run.

    Parameters:
        operator: a key that may do everything.
        caller: a key that may verify.
        say: tells whoever waits.
        keys, workspaces: what was loaded.
        rates: how many calls per second were answered at most, by name of the contender, as far as that is known.
    """

    deployment: Deployment
    operator: KeyString
    generator: Generator
    pool: Pool
    effort: Effort
    chance: random.Random
    say: Callable[[str], None]
    keys: int
    workspaces: int
    rates: dict[str, float] = field(default_factory=dict)
    _hot: list[Minted] = field(default_factory=list)

    @property
    def hot(self) -> list[Minted]:
        """Keys that are verified again and again."""
        if not self._hot:
            self._hot = self.pool.take(min(HOT_KEYS, max(len(self.pool) // 10, 1)))
        return self._hot

    @contextmanager
    def serve(self) -> Iterator[Served]:
        """A server with one worker."""
        with self.deployment.serve(*ONE_WORKER) as served:
            yield served

    def workspace_of(self, key: Minted) -> str:
        """The workspace that a key was loaded into."""
        return workspace_of(key.number, self.workspaces)

    async def prime(self, served: Sequence[Served], keys: Sequence[Minted]) -> None:
        """Have servers remember keys, and see that they do.

        Raises:
            WrongAnswersError: a key is not valid, or is not remembered.
        """
        bodies = [body(key.key_string) for key in keys]
        loop = Loop(requests=len(bodies), connections=2)
        for each in served:
            answers = await self.generator.run([each.address], bodies, loop)
            for _ in range(_PRIMINGS_MAX):
                good = all(kind.verdict == "VALID" or kind.status == UNAVAILABLE for kind in answers.kinds)
                if not good or answers.count("VALID", "MEMORY") == answers.answered:
                    break
                answers = await self.generator.run([each.address], bodies, loop)
            answers.check_all("VALID", "MEMORY")

    async def capacity(self, served: Served) -> float:
        """How many Verifies of remembered keys are answered per second, at most; measured where it is not known."""
        if "hot" not in self.rates:
            loop = self.effort.closed_loop()
            found = [await self.verify(served, self.hot, loop) for _ in range(self.effort.rate_rounds)]
            self.rates["hot"] = median(each.per_second for each in found)
        return self.rates["hot"]

    async def cold_capacity(self, served: Served) -> float:
        """The same of keys that are not remembered."""
        if "cold" not in self.rates:
            found = []
            for _ in range(self.effort.rate_rounds):
                keys = self.pool.take(min(self.effort.cold_requests, len(self.pool) // 10))
                answers = await self.verify(served, keys, Loop(requests=len(keys)), "DATABASE")
                found.append(answers.per_second)
            self.rates["cold"] = median(found)
        return self.rates["cold"]

    async def verify(self, served: Served, keys: Sequence[Minted], loop: Loop, basis: str = "MEMORY") -> Answers:
        """Ask for keys as most callers do; each has to be valid, on this basis."""
        answers = await self.generator.run([served.address], [body(key.key_string) for key in keys], loop)
        answers.check_all("VALID", basis)
        return answers


def body(key_string: KeyString) -> bytes:
    """What most callers send: a key string, and the scope that their own request needs."""
    return verify_pb2.VerifyRequest(key_string=key_string.reveal(), required_scopes=[SCOPE]).SerializeToString()


def full_body(key: Minted, workspace: str, number: int) -> bytes:
    """A request with everything in it that can be asked, and a request id of its own.

    Parameters:
        number: of the request.
    """
    return verify_pb2.VerifyRequest(
        key_string=key.key_string.reveal(),
        workspace=workspace,
        environment=key_pb2.ENVIRONMENT_LIVE,
        required_scopes=[SCOPE, "invoices.read"],
        source_ip="203.0.113.7",
        resource="GET /v1/documents/{id}",
        request_id=str(UUID(int=number)),
    ).SerializeToString()


async def settle(served: Served) -> Counters:
    """Wait until a server has written what it has counted, and has nothing more to do; what it says of itself then."""
    said = await _await_report(served)
    limit = time.monotonic() + _IDLE_SECONDS_MAX
    while time.monotonic() < limit:
        before = served.processor_seconds()
        await asyncio.sleep(0.25)
        if served.processor_seconds() - before < _IDLE * 0.25:
            break
    return said


async def _await_report(served: Served) -> Counters:
    """What a server says of itself in the second report from now on: the first may have been on its way."""
    said = served.counters()
    async with asyncio.timeout(_REPORT_SECONDS_MAX):
        for _ in range(2):
            before = said.time
            while said.time == before:
                await asyncio.sleep(0.1)
                said = served.counters()
    return said


@asynccontextmanager
async def stub_of(served: Served) -> AsyncIterator["KeyServiceAsyncStub"]:
    """The generated stub of a server."""
    async with grpc.aio.insecure_channel(served.address) as channel:
        yield KeyServiceStub(channel)


def metadata_of(caller: KeyString) -> tuple[tuple[str, str], ...]:
    """What a caller sends with each call."""
    return (("authorization", f"Bearer {caller.reveal()}"),)


async def create_caller(served: Served, operator: KeyString) -> KeyString:
    """A key that may verify and nothing else, as a service has that authenticates its callers."""
    async with stub_of(served) as stub:
        request = key_service_pb2.CreateRequest(
            workspace="keysvc/system",
            display_name="gateway",
            environment=key_pb2.ENVIRONMENT_LIVE,
            scopes=["verify"],
        )
        answer = await stub.Create(request, metadata=metadata_of(operator), timeout=CALL_SECONDS_MAX)
    return KeyString(answer.key_string)
