"""The fake as a server: the real door, servicers and services over what is kept in memory, on a port of this machine.

gRPC serves it with threads and everything happens in one event loop of its own: a second ``grpc.aio`` beside that of
the tests would disturb theirs.
"""

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final, NoReturn, cast
from uuid import uuid4

import grpc
import structlog

from keysvc.core.errors import NotBuilt, Unavailable
from keysvc.core.page import PageTokens
from keysvc.core.pepper import PEPPER_BYTES, Peppers
from keysvc.core.permission import Permission
from keysvc.core.usage import Meter
from keysvc.fake.changes import Changes
from keysvc.fake.reads import Listings, Lookups, Registry
from keysvc.fake.state import State
from keysvc.lease.barrier import Promotions
from keysvc.lease.holder import Holder
from keysvc.lease.memory import Memory
from keysvc.lease.terms import Terms, boottime
from keysvc.rpc.door import Door, new_request_id, refuse
from keysvc.rpc.limits import Limits
from keysvc.rpc.refusals import Refusals
from keysvc.rpc.servicers import AuditServicer, KeyServicer, WorkspaceServicer
from keysvc.rpc.translate.leases import Memos
from keysvc.rpc.translate.verify import Answers, describe
from keysvc.service.callers import Call, Caller, Callers
from keysvc.service.confirming import Confirming
from keysvc.service.issuing import Issuing
from keysvc.service.lifecycle import Lifecycle
from keysvc.service.minting import Minting
from keysvc.service.peppering import Rehashing
from keysvc.service.reading import Reading
from keysvc.service.rotating import Rotating
from keysvc.service.tenancy import Tenancy
from keysvc.service.updating import Updating
from keysvc.service.verifying import Verifying
from keysvc.service.waiting import Waiting
from keysvc.v1 import audit_service_pb2, key_service_pb2, usage_service_pb2, workspace_service_pb2

NOT_COVERED: Final = frozenset({"RecordUsage", "RenewLease", "WatchWakeUps", "QueryUsage"})
"""RPCs that the server has and the fake has not: it counts no usage and grants no leases."""

HOLDER: Final = "fake"
"""What answers name as the process that answered."""

THREADS: Final = 8

GRACE_SECONDS: Final = 0.5
"""For calls under way at the end, of which there are none in most tests."""

_THREAD_NAME: Final = "keysvc fake"
_NOT_AGAIN: Final = ("grpc-retry-pushback-ms", "-1")
"""Tells clients not to send a call again: tests need not wait for what they know."""


class FakeServer:
    """A keysvc in memory that listens on 127.0.0.1.

    Parameters:
        clock: the time.

    Attributes:
        address: where it listens.
        operator_key: key string of an operator.
        is_down: refuse every call with UNAVAILABLE.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        _keep_quiet()
        self.is_down = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=_THREAD_NAME, daemon=True)
        self._thread.start()
        handlers, issuing = self._run(_build(State(clock)))
        caller = Caller("bootstrap", (Permission.OPERATOR,))
        call = Call(caller, "keysvc bootstrap", str(uuid4()), "")
        operator_key = self._run(issuing.create_operator(call, another=False))
        if operator_key is None:
            raise RuntimeError("there is an operator before the first one")
        self.operator_key: Final[str] = operator_key.reveal()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix=_THREAD_NAME)
        self._server = grpc.server(
            self._pool,
            handlers=[_Bridge(handlers, self._answer)],
            options=[*Limits().options(), ("grpc.so_reuseport", 0)],
        )
        self.address: Final = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        """End it, with all that it kept. A second time does nothing."""
        if self._loop.is_closed():
            return
        self._server.stop(GRACE_SECONDS).wait()
        self._pool.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Awaitable[Any]) -> Any:  # noqa: ANN401 (whatever it gives)
        async def wait() -> Any:  # noqa: ANN401 (as above)
            return await work

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result()

    def _answer(self, serve: "_Serve", raw: bytes, context: grpc.ServicerContext) -> bytes | None:
        """Have a handler of the door answer."""
        try:
            return cast("bytes | None", self._run(self._serve(serve, raw, _Context(context))))
        except _Aborted as aborted:
            again = (_NOT_AGAIN,) if aborted.code is grpc.StatusCode.UNAVAILABLE else ()
            context.set_trailing_metadata((*aborted.trailing_metadata, *again))
            context.abort(aborted.code, aborted.details)

    async def _serve(self, serve: "_Serve", raw: bytes, context: "_Context") -> bytes | None:
        # What the door needs of a context, ours has.
        door_context = cast("grpc.aio.ServicerContext[Any, Any]", context)
        if self.is_down:
            await refuse(door_context, Unavailable("this keysvc is down, as the test wants it"), new_request_id())
        return await serve(raw, door_context)


async def _build(state: State) -> tuple[list[grpc.GenericRpcHandler], Issuing]:
    """The services, over what a state keeps."""
    peppers, tag_key = Peppers([secrets.token_bytes(PEPPER_BYTES)]), secrets.token_bytes(32)
    changes, memory = Changes(state), Memory()
    terms = Terms()
    confirming = Confirming(changes, Waiting(Registry(state), Promotions(), terms, boottime), boottime)
    verifying = Verifying(
        Lookups(state, describe),
        Holder(memory, terms, boottime),  # which never joins, so that every answer is of the state itself
        peppers,
        tag_key=tag_key,
        hash_key=secrets.token_bytes(32),
        meter=Meter(),
        rehashing=Rehashing(peppers, memory, cast("Any", None)),  # there is one pepper
    )
    minting = Minting(peppers, tag_key=tag_key, entropy=secrets.token_bytes)
    issuing = Issuing(changes, minting)
    reading = Reading(Listings(state), cast("Any", None), PageTokens(tag_key))
    keys = KeyServicer(
        issuing,
        Updating(confirming),
        Rotating(confirming, minting),
        Lifecycle(confirming),
        reading,
        verifying,
        cast("Any", None),
        cast("Any", None),
        Answers(HOLDER),
        Memos(tag_key, lambda: None),
        Refusals(),
    )
    door = Door(Callers(verifying))
    services = (
        (key_service_pb2.DESCRIPTOR.services_by_name["KeyService"], keys),
        (
            workspace_service_pb2.DESCRIPTOR.services_by_name["WorkspaceService"],
            WorkspaceServicer(Tenancy(changes, confirming), reading),
        ),
        (usage_service_pb2.DESCRIPTOR.services_by_name["UsageService"], object()),
        (audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"], AuditServicer(reading)),
    )
    return [door.service(descriptor, _Covered(servicer)) for descriptor, servicer in services], issuing


class _Covered:
    """A servicer without what the fake does not have."""

    def __init__(self, servicer: object) -> None:
        self._servicer = servicer

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (as the servicer has it)
        if name not in NOT_COVERED:
            return getattr(self._servicer, name)

        error = NotBuilt(f"FakeKeysvc has no {name}: it counts no usage and grants no leases")

        async def refuse_it(_request: object, _call: Call) -> object:
            raise error

        async def refuse_stream(request: object, call: Call) -> AsyncIterator[object]:
            yield await refuse_it(request, call)

        return refuse_stream if name == "WatchWakeUps" else refuse_it


_Serve = Callable[[bytes, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[bytes | None]]


class _Aborted(Exception):  # noqa: N818 (named for what happened)
    """A handler has ended its call with a status."""

    def __init__(
        self, code: grpc.StatusCode, details: str, trailing_metadata: Iterable[tuple[str, str | bytes]]
    ) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.trailing_metadata = tuple(trailing_metadata)


class _Context:
    """What the door asks of the context of a call."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (as gRPC has it)
        return getattr(self._context, name)

    async def abort(
        self, code: grpc.StatusCode, details: str, trailing_metadata: Iterable[tuple[str, str | bytes]]
    ) -> NoReturn:
        """End the call; gRPC is told in the thread that serves it."""
        raise _Aborted(code, details, trailing_metadata)


class _Bridge(grpc.GenericRpcHandler):
    """Lets handlers that are made for an event loop serve threads.

    Parameters:
        handlers: of the door, on bytes.
        answer: has one of them answer.
    """

    def __init__(
        self,
        handlers: list[grpc.GenericRpcHandler],
        answer: Callable[[_Serve, bytes, grpc.ServicerContext], bytes | None],
    ) -> None:
        self._handlers = handlers
        self._answer = answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, Any] | None":
        """The handler of a method."""
        found: Any = next(filter(None, (each.service(handler_call_details) for each in self._handlers)), None)
        if found is None:
            return None
        if not found.response_streaming:
            return grpc.unary_unary_rpc_method_handler(
                lambda raw, context: self._answer(found.unary_unary, raw, context)
            )

        def stream(raw: bytes, context: grpc.ServicerContext) -> Iterable[bytes]:
            self._answer(found.unary_stream, raw, context)
            return ()

        return grpc.unary_stream_rpc_method_handler(stream)


def _keep_quiet() -> None:
    """Keep what the services log out of the output of tests; what tests log themselves stays."""
    processors = structlog.get_config()["processors"]
    if _drop_ours not in processors:
        structlog.configure(processors=[_drop_ours, *processors])


def _drop_ours(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if threading.current_thread().name == _THREAD_NAME:
        raise structlog.DropEvent
    return event
