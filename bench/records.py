"""What is measured: each figure with the way it was got, over gRPC, with the generated stubs."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from bench.deployment import Served
from bench.load import key_id, workspace_name
from keysvc.core.keystring import KeyString
from keysvc.v1 import key_pb2, key_service_pb2, verify_pb2
from keysvc.v1.key_service_pb2_grpc import KeyServiceStub

GET_MS_MAX: Final = 5.0
LIST_MS_MAX: Final = 20.0
CREATE_PER_SECOND_MIN: Final = 1_000.0
PAGE_SIZE: Final = 50
IN_FLIGHT: Final = 32
VERIFIES_IN_FLIGHT: Final = 64
CALL_SECONDS_MAX: Final = 60.0
WARM_UP: Final = 10


if TYPE_CHECKING:
    from keysvc.v1.key_service_pb2_grpc import KeyServiceAsyncStub

Answer = TypeVar("Answer")
Method: TypeAlias = Callable[..., Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the result.

    Parameters:
        name: what was measured.
        calls: how many were made.
        p50_ms, p99_ms: how long a call took, from the caller's side; None: they ran side by side.
        per_second: how many were answered, side by side; None: they came one after the other.
        cpu_ms: how long processors worked for one call, in keysvc and PostgreSQL: what does not depend on how busy the
            machine is with others.
        target: what it should be; None: nothing is promised.
        holds: whether the target is met, by p50 or by the rate.
        note: what to know when reading it.
    """

    name: str
    calls: int
    p50_ms: float | None = None
    p99_ms: float | None = None
    per_second: float | None = None
    cpu_ms: float | None = None
    target: str | None = None
    holds: bool | None = None
    note: str = ""

    @classmethod
    def of_latency(cls, name: str, seconds: Sequence[float], cpu_ms: float, limit_ms: float, note: str = "") -> Self:
        """A figure of calls that came one after the other."""
        cuts = quantiles(seconds, n=100, method="inclusive")
        p50_ms, p99_ms = cuts[49] * 1000, cuts[98] * 1000
        return cls(
            name,
            len(seconds),
            p50_ms=p50_ms,
            p99_ms=p99_ms,
            cpu_ms=cpu_ms,
            target=f"< {limit_ms:g} ms",
            holds=p50_ms < limit_ms,
            note=note,
        )


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done for each figure.

    Parameters:
        gets, pages, creates, verifies: calls.
    """

    gets: int = 1_000
    pages: int = 100
    creates: int = 5_000
    verifies: int = 20_000


class Measures:
    """Measures one server.

    Parameters:
        stub: of the server.
        cpu_seconds: how long processors have worked for it so far.
        operator: whose calls these are.
        keys, workspaces: what was loaded.
    """

    def __init__(
        self,
        stub: "KeyServiceAsyncStub",
        cpu_seconds: Callable[[], float],
        operator: KeyString,
        *,
        keys: int,
        workspaces: int,
    ) -> None:
        self._stub = stub
        self._cpu_seconds = cpu_seconds
        self._metadata = (("authorization", f"Bearer {operator.reveal()}"),)
        self._keys = keys
        self._workspaces = workspaces
        self._chance = random.Random(1)  # noqa: S311 (the same calls in every run)

    async def get(self, calls: int) -> Figure:
        """Get of random keys."""
        ids = [str(key_id(self._chance.randint(1, self._keys))) for _ in range(calls + WARM_UP)]
        requests = [key_service_pb2.GetRequest(key_id=each) for each in ids]
        seconds, cpu_ms = await self._one_by_one(self._stub.Get, requests)
        return Figure.of_latency("Get", seconds, cpu_ms, GET_MS_MAX)

    async def pages(self, calls: int) -> AsyncIterator[Figure]:
        """A page of each kind of list: the first, and those that follow, from the start again at the end."""
        for name, request in self._lists():
            request.page_size = PAGE_SIZE
            seconds, found, empty = [], 0, 0
            cpu = 0.0
            for number in range(calls + WARM_UP):
                if number == WARM_UP:
                    cpu = self._cpu_seconds()
                began = time.perf_counter()
                page = await self._call(self._stub.List, request)
                if number >= WARM_UP:
                    seconds.append(time.perf_counter() - began)
                    found += len(page.keys)
                    empty += not page.keys
                request.page_token = page.next_page_token
            note = f"{found / calls:.0f} keys a page" + (f", {empty} of {calls} pages empty" if empty else "")
            cpu_ms = (self._cpu_seconds() - cpu) * 1000 / calls
            yield Figure.of_latency(f"List {name}", seconds, cpu_ms, LIST_MS_MAX, note)

    def _lists(self) -> list[tuple[str, key_service_pb2.ListRequest]]:
        """Every condition, easy and hard, and conditions that exclude each other."""
        now = datetime.now(UTC)
        workspace = workspace_name(0)
        conditions: list[tuple[str, str, dict[str, Any]]] = [
            ("of everything", "", {}),
            ("of a workspace", workspace, {}),
            ("state active", "", {"state": key_pb2.Key.STATE_ACTIVE}),
            ("state suspended", "", {"state": key_pb2.Key.STATE_SUSPENDED}),
            ("state revoked: old keys", "", {"state": key_pb2.Key.STATE_REVOKED}),
            ("state expired: old keys", "", {"state": key_pb2.Key.STATE_EXPIRED}),
            ("environment", "", {"environment": key_pb2.ENVIRONMENT_TEST}),
            ("owner of 50", "", {"owner": "owner-7"}),
            ("owner of 10 %: old keys", "", {"owner": "old-owner"}),
            ("owner of 5: the oldest", "", {"owner": "rare-owner"}),
            ("owner of nothing", "", {"owner": "nobody"}),
            ("role of 30 %", "", {"role": "viewer"}),
            ("role of 10 %: old keys", "", {"role": "auditor"}),
            ("tag of 50 %", "", {"tag": "even"}),
            ("tag of 500", "", {"tag": "team-7"}),
            ("tag of 10 %: old keys", "", {"tag": "legacy"}),
            ("tag of 5: the oldest", "", {"tag": "rare"}),
            ("hint, whole", "", {"hint_prefix": "sk_live_1AbCdEfG"}),
            ("hint of nearly all", "", {"hint_prefix": "sk_live_1"}),
            ("hint of 1 in 300", "", {"hint_prefix": "sk_test_1a"}),
            ("display name of 45 %", "", {"display_name_prefix": "odd"}),
            ("display name of 10 %: old keys", "", {"display_name_prefix": "legacy"}),
            ("display name of 1", "", {"display_name_prefix": f"legacy service {self._keys // 20}"}),
            ("expire_before next month", "", {"expire_before": _timestamp(now + timedelta(days=30))}),
            ("expire_before: old keys", "", {"expire_before": _timestamp(now - timedelta(days=200))}),
            ("tag and name that exclude each other", "", {"tag": "even", "display_name_prefix": "odd"}),
            ("owner and role that exclude each other", "", {"owner": "old-owner", "role": "viewer"}),
            ("role and name that exclude each other", "", {"role": "viewer", "display_name_prefix": "legacy"}),
            (
                "hint and environment, likewise",
                "",
                {"hint_prefix": "sk_test_", "environment": key_pb2.ENVIRONMENT_LIVE},
            ),
            ("of a workspace, role of old keys", workspace, {"role": "auditor"}),
            ("of a workspace, excluding tag and name", workspace, {"tag": "even", "display_name_prefix": "odd"}),
        ]
        return [
            (name, key_service_pb2.ListRequest(workspace=where, filter=key_service_pb2.ListRequest.Filter(**asked)))
            for name, where, asked in conditions
        ]

    async def create(self, calls: int, *, workspaces: int) -> Figure:
        """Create, many in flight, spread over workspaces."""
        requests = [
            key_service_pb2.CreateRequest(
                workspace=workspace_name(number % workspaces),
                display_name=f"bench {number}",
                environment=key_pb2.ENVIRONMENT_LIVE,
                owner=f"owner-{number % 1000}",
                role="viewer",
                scopes=["pdf.read"],
                tags=["even", f"team-{number % 500}"],
                metadata={"cost_center": "cc-7"},
            )
            for number in range(calls + WARM_UP * IN_FLIGHT)
        ]
        rate, cpu_ms = await self._side_by_side(self._stub.Create, requests, IN_FLIGHT, calls)
        where = "one workspace" if workspaces == 1 else f"{workspaces} workspaces"
        return Figure(
            f"Create in {where}",
            calls,
            per_second=rate,
            cpu_ms=cpu_ms,
            target=None if workspaces == 1 else f">= {CREATE_PER_SECOND_MIN:,.0f}/s",
            holds=None if workspaces == 1 else rate >= CREATE_PER_SECOND_MIN,
            note=f"{IN_FLIGHT} in flight" + ("; one after the other: each locks the workspace" * (workspaces == 1)),
        )

    async def verify(self, calls: int, key_strings: Sequence[KeyString]) -> Figure:
        """Verify of random keys, many in flight."""
        requests = [
            verify_pb2.VerifyRequest(key_string=each.reveal())
            for each in self._chance.choices(key_strings, k=calls + WARM_UP * VERIFIES_IN_FLIGHT)
        ]
        rate, cpu_ms = await self._side_by_side(
            self._stub.Verify, requests, VERIFIES_IN_FLIGHT, calls, check=_check_valid
        )
        note = f"{VERIFIES_IN_FLIGHT} in flight, {len(key_strings)} different keys, each read from the database"
        return Figure("Verify", calls, per_second=rate, cpu_ms=cpu_ms, note=note)

    async def _call(self, method: Method[Answer], request: Message) -> Answer:
        return await method(request, metadata=self._metadata, timeout=CALL_SECONDS_MAX)

    async def _one_by_one(self, method: Method[Any], requests: Sequence[Message]) -> tuple[list[float], float]:
        """How many seconds each call took, but for the first few, and the processors' milliseconds for one."""
        for request in requests[:WARM_UP]:
            await self._call(method, request)
        seconds = []
        cpu = self._cpu_seconds()
        for request in requests[WARM_UP:]:
            began = time.perf_counter()
            await self._call(method, request)
            seconds.append(time.perf_counter() - began)
        return seconds, (self._cpu_seconds() - cpu) * 1000 / len(seconds)

    async def _side_by_side(
        self,
        method: Method[Answer],
        requests: Sequence[Message],
        in_flight: int,
        calls: int,
        check: Callable[[Answer], None] = lambda _: None,
    ) -> tuple[float, float]:
        """How many calls were answered per second, the last ``calls`` of all."""

        async def work(waiting: Iterator[Message]) -> None:
            for request in waiting:
                check(await self._call(method, request))

        async def run(some: Sequence[Message]) -> None:
            waiting = iter(some)
            await asyncio.gather(*(work(waiting) for _ in range(in_flight)))

        await run(requests[:-calls])
        began, cpu = time.perf_counter(), self._cpu_seconds()
        await run(requests[-calls:])
        return calls / (time.perf_counter() - began), (self._cpu_seconds() - cpu) * 1000 / calls


@asynccontextmanager
async def open_measures(served: Served, operator: KeyString, *, keys: int, workspaces: int) -> AsyncIterator[Measures]:
    """Measures over one connection."""
    async with grpc.aio.insecure_channel(served.address) as channel:
        yield Measures(KeyServiceStub(channel), served.cpu_seconds, operator, keys=keys, workspaces=workspaces)


def _timestamp(at: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(at)
    return timestamp


def _check_valid(answer: verify_pb2.VerifyResponse) -> None:
    if answer.verdict != verify_pb2.VERDICT_VALID:
        raise RuntimeError(f"a key that was loaded is {verify_pb2.Verdict.Name(answer.verdict)}")
