"""Records: Get, List and Create, over gRPC with the generated stubs."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from bench.deployment import Served
from bench.result import Column, Row, Topic, percentile
from bench.seeding import key_id, workspace_name
from bench.session import CALL_SECONDS_MAX, Session, metadata_of, stub_of
from keysvc.v1 import key_pb2, key_service_pb2

GET_MS_MAX: Final = 5.0
LIST_MS_MAX: Final = 20.0
CREATE_PER_SECOND_MIN: Final = 1_000.0
PAGE_SIZE: Final = 50
IN_FLIGHT: Final = 32
_FOR_NOW: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})


if TYPE_CHECKING:
    from keysvc.v1.key_service_pb2_grpc import KeyServiceAsyncStub

Answer = TypeVar("Answer")
Method: TypeAlias = Callable[..., Awaitable[Answer]]


COLUMNS: Final = (
    Column("calls", "calls"),
    Column("p50_ms", "p50 ms", ",.1f"),
    Column("p99_ms", "p99 ms", ",.1f"),
    Column("per_second", "per second"),
    Column("cpu_ms", "CPU ms", ",.2f"),
)


async def measure(session: Session) -> Topic:
    """Get, every kind of list, and Create, which writes and so comes last."""
    topic = Topic(
        "records",
        f"Records: {session.keys:,} keys in {session.workspaces:,} workspaces",
        "Through the generated stubs, over one connection. Get and List: one call after the other, the first few not "
        "counted; a target holds if p50 meets it. Create: many under way. CPU: what keysvc and PostgreSQL used for one "
        "call.",
        COLUMNS,
    )
    effort = session.effort
    with session.serve() as served:
        async with stub_of(served) as stub:
            records = Records(stub, served, session)
            topic.rows.append(await records.get(effort.gets))
            topic.rows.extend([row async for row in records.pages(effort.pages)])
            if session.workspaces > 1:
                topic.rows.append(await records.create(effort.creates, workspaces=session.workspaces))
            topic.rows.append(await records.create(effort.creates, workspaces=1))
    return topic


class Records:
    """Measures one server.

    Parameters:
        stub: of the server.
    """

    def __init__(self, stub: "KeyServiceAsyncStub", served: Served, session: Session) -> None:
        self._stub = stub
        self._cpu_seconds = served.processor_seconds
        self._metadata = metadata_of(session.operator)
        self._keys = session.keys
        self._chance = session.chance
        self._warm_calls = session.effort.warm_calls

    async def get(self, calls: int) -> Row:
        """Get of random keys."""
        ids = [str(key_id(self._chance.randint(1, self._keys))) for _ in range(calls + self._warm_calls)]
        requests = [key_service_pb2.GetRequest(key_id=each) for each in ids]
        seconds, cpu_ms = await self._one_by_one(self._stub.Get, requests)
        return _latency("Get", seconds, cpu_ms, GET_MS_MAX)

    async def pages(self, calls: int) -> AsyncIterator[Row]:
        """A page of each kind of list: the first, and those that follow, from the start again at the end."""
        for name, request in self._lists():
            request.page_size = PAGE_SIZE
            seconds, found, empty = [], 0, 0
            cpu = 0.0
            for number in range(calls + self._warm_calls):
                if number == self._warm_calls:
                    cpu = self._cpu_seconds()
                began = time.perf_counter()
                page = await self._call(self._stub.List, request)
                if number >= self._warm_calls:
                    seconds.append(time.perf_counter() - began)
                    found += len(page.keys)
                    empty += not page.keys
                request.page_token = page.next_page_token
            note = f"{found / calls:.0f} keys a page" + (f", {empty} of {calls} pages empty" if empty else "")
            cpu_ms = (self._cpu_seconds() - cpu) * 1000 / calls
            yield _latency(f"List {name}", seconds, cpu_ms, LIST_MS_MAX, note)

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

    async def create(self, calls: int, *, workspaces: int) -> Row:
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
            for number in range(calls + self._warm_calls * IN_FLIGHT)
        ]
        rate, cpu_ms, refused = await self._side_by_side(self._stub.Create, requests, IN_FLIGHT, calls)
        told = [f"{IN_FLIGHT} under way"]
        if workspaces == 1:
            told.append("one after the other: each locks the workspace")
        if refused:
            told.append(f"{refused} refused for now, which are not in the rate")
        where = "one workspace" if workspaces == 1 else f"{workspaces} workspaces"
        return Row(
            f"Create in {where}",
            {"calls": calls, "per_second": rate, "cpu_ms": cpu_ms},
            target="" if workspaces == 1 else f"at least {CREATE_PER_SECOND_MIN:,.0f}/s",
            holds=None if workspaces == 1 else rate >= CREATE_PER_SECOND_MIN,
            note="; ".join(told),
        )

    async def _call(self, method: Method[Answer], request: Message) -> Answer:
        return await method(request, metadata=self._metadata, timeout=CALL_SECONDS_MAX)

    async def _one_by_one(self, method: Method[Any], requests: Sequence[Message]) -> tuple[list[float], float]:
        """How many seconds each call took, but for the first few, and the processors' milliseconds for one."""
        for request in requests[: self._warm_calls]:
            await self._call(method, request)
        seconds = []
        cpu = self._cpu_seconds()
        for request in requests[self._warm_calls :]:
            began = time.perf_counter()
            await self._call(method, request)
            seconds.append(time.perf_counter() - began)
        return seconds, (self._cpu_seconds() - cpu) * 1000 / len(seconds)

    async def _side_by_side(
        self, method: Method[Answer], requests: Sequence[Message], in_flight: int, calls: int
    ) -> tuple[float, float, int]:
        """How many of the last ``calls`` were answered per second, what one took, and how many were refused for now.

        That is the answer where the disk takes longer than callers are promised to wait.
        """
        refused = 0

        async def work(waiting: Iterator[Message]) -> None:
            nonlocal refused
            for request in waiting:
                try:
                    await self._call(method, request)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in _FOR_NOW:
                        raise
                    refused += 1

        async def run(some: Sequence[Message]) -> None:
            waiting = iter(some)
            await asyncio.gather(*(work(waiting) for _ in range(in_flight)))

        await run(requests[:-calls])
        refused = 0
        began, cpu = time.perf_counter(), self._cpu_seconds()
        await run(requests[-calls:])
        answered = (calls - refused) / (time.perf_counter() - began)
        return answered, (self._cpu_seconds() - cpu) * 1000 / calls, refused


def _latency(name: str, seconds: Sequence[float], cpu_ms: float, limit_ms: float, note: str = "") -> Row:
    """A row of calls that came one after the other."""
    p50_ms = percentile(seconds, 0.5) * 1000
    return Row(
        name,
        {"calls": len(seconds), "p50_ms": p50_ms, "p99_ms": percentile(seconds, 0.99) * 1000, "cpu_ms": cpu_ms},
        target=f"p50 under {limit_ms:g} ms",
        holds=p50_ms < limit_ms,
        note=note,
    )


def _timestamp(at: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(at)
    return timestamp
