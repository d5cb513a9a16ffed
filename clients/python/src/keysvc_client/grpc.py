"""gRPC: every method of a server needs a key.

    server = grpc.aio.server(interceptors=[AsyncKeysvcInterceptor(AsyncKeysvcClient(lease=True))])

    class Pdf(PdfServicer):
        @requires_scopes("pdf.read")
        async def Read(self, request, context):
            print(current_principal().workspace)

`KeysvcInterceptor` is for `grpc.server`. A method without stated scopes is not served.
"""

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio

from keysvc_client._async.client import AsyncKeysvcClient
from keysvc_client._sync.client import KeysvcClient
from keysvc_client.errors import KeysvcError
from keysvc_client.middleware.gate import Gate, Question, request_id_of
from keysvc_client.middleware.outcomes import Outcomes
from keysvc_client.middleware.policy import Policy
from keysvc_client.middleware.principal import Principal, current_principal, principal_of_this_request
from keysvc_client.middleware.refusals import Refusal
from keysvc_client.middleware.rpc import (
    REQUEST_ID,
    Methods,
    headers_of,
    peer_address,
    requires_scopes,
    status_of,
    trailers_of,
    trailers_with,
)

__all__ = [
    "AsyncKeysvcInterceptor",
    "KeysvcInterceptor",
    "Policy",
    "Principal",
    "current_principal",
    "requires_scopes",
]

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = Any
"""Of a call; both kinds of server have methods of the same names."""

NOTHING: Final[Mapping[str, Iterable[str]]] = MappingProxyType({})


class _Interceptor(ABC):
    """What both interceptors have in common.

    Parameters:
        client: asks keysvc. It is not closed here.
        scopes: by the full name of a method, such as `/pdf.v1.Pdf/Read`, for what has no `@requires_scopes`; `*`: of
            all others.
        policy: what all calls need; None: a valid key.
    """

    def __init__(
        self,
        client: KeysvcClient | AsyncKeysvcClient,
        scopes: Mapping[str, Iterable[str]] = NOTHING,
        policy: Policy | None = None,
    ) -> None:
        policy = policy or Policy()
        self._gate = Gate(policy)
        self._headers_of = headers_of(policy)
        spool_dir = client._spool_dir  # noqa: SLF001 (of the same library)
        self._outcomes = Outcomes(client._connection, spool_dir) if policy.report_outcomes else None  # noqa: SLF001
        self._methods = Methods(self._gate, scopes, self._guard)

    def _guard(self, handler: Any, kind: str, scopes: tuple[str, ...]) -> Handler:  # noqa: ANN401
        """A handler of the same kind that serves those with these scopes alone."""
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        behavior = self._behind(getattr(handler, kind), scopes, streams=kind.endswith("stream"))
        return make(behavior, handler.request_deserializer, handler.response_serializer)  # type: ignore[no-any-return]

    @abstractmethod
    def _behind(self, behavior: Any, scopes: tuple[str, ...], *, streams: bool) -> Callable[..., Any]:  # noqa: ANN401
        """The same for those with these scopes alone."""

    def _question(self, context: Context, scopes: tuple[str, ...]) -> tuple[Question | Refusal, str]:
        """What to ask about a call, and its id."""
        headers = self._headers_of(context.invocation_metadata())
        request_id = request_id_of(headers.request_ids)
        return self._gate.question(headers, scopes, peer_address(context.peer()), request_id), request_id

    def _begin(self, principal: Principal, context: Context) -> None:
        principal_of_this_request.set(principal)  # each call has a context of its own, with threads too
        context.set_trailing_metadata(((REQUEST_ID, principal.request_id),))

    def _end(self, principal: Principal, context: Context, *, is_done: bool) -> None:
        """Count what became of a call."""
        if is_done:
            context.set_trailing_metadata(trailers_with(principal.request_id, context.trailing_metadata()))
        if self._outcomes is not None:
            status = status_of(context.code(), is_done=is_done)
            self._outcomes.add(principal.verification, status, is_success=is_done and not status)


class AsyncKeysvcInterceptor(_Interceptor, grpc.aio.ServerInterceptor):
    """Lets calls through to the methods of a `grpc.aio` server if keysvc says that their key is valid.

    It must have the scopes of the method, too. Methods must be asynchronous.
    """

    def __init__(
        self,
        client: AsyncKeysvcClient,
        scopes: Mapping[str, Iterable[str]] = NOTHING,
        policy: Policy | None = None,
    ) -> None:
        super().__init__(client, scopes, policy)
        self._client = client

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:  # noqa: ANN401 (None too: gRPC answers UNIMPLEMENTED)
        """Put the handler of a method behind the gate."""
        return self._methods.behind_the_gate(handler_call_details.method, await continuation(handler_call_details))

    async def close(self) -> None:
        """Report the last outcomes. The end of the process does so too."""
        if self._outcomes is not None:
            await asyncio.to_thread(self._outcomes.close)

    def _behind(self, behavior: Any, scopes: tuple[str, ...], *, streams: bool) -> Callable[..., Any]:  # noqa: ANN401
        if streams and inspect.isasyncgenfunction(behavior):
            return self._streaming(behavior, scopes)
        if not inspect.iscoroutinefunction(behavior):
            raise TypeError(f"{behavior} is not asynchronous: AsyncKeysvcInterceptor cannot protect it")

        async def guarded(request: Any, context: Context) -> Any:  # noqa: ANN401
            principal = await self._identify(context, scopes)
            is_done = False
            try:
                answer = await behavior(request, context)
                is_done = True
            finally:
                self._end(principal, context, is_done=is_done)
            return answer

        return guarded

    def _streaming(self, behavior: Any, scopes: tuple[str, ...]) -> Callable[..., AsyncIterator[Any]]:  # noqa: ANN401
        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401
            principal = await self._identify(context, scopes)
            is_done = False
            try:
                async for answer in behavior(request, context):
                    yield answer
                is_done = True
            finally:
                self._end(principal, context, is_done=is_done)

        return guarded

    async def _identify(self, context: Context, scopes: tuple[str, ...]) -> Principal:
        """Whom a call is from; a refusal ends it here, by an exception of gRPC's."""
        question, request_id = self._question(context, scopes)
        judged = question if isinstance(question, Refusal) else await self._ask(question)
        if isinstance(judged, Principal):
            self._begin(judged, context)
            return judged
        await context.abort(judged.code, judged.message, trailers_of(judged, request_id))
        raise AssertionError("abort raises")

    async def _ask(self, question: Question) -> Principal | Refusal:
        try:
            verification = await self._client.verify(**question._asdict())
        except KeysvcError as error:
            return self._gate.unjudged(error, question.request_id)
        return self._gate.judged(verification, question.request_id)


class KeysvcInterceptor(_Interceptor, grpc.ServerInterceptor):
    """Lets calls through to the methods of a `grpc.server` if keysvc says that their key is valid.

    It must have the scopes of the method, too.
    """

    def __init__(
        self, client: KeysvcClient, scopes: Mapping[str, Iterable[str]] = NOTHING, policy: Policy | None = None
    ) -> None:
        super().__init__(client, scopes, policy)
        self._client = client

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:  # noqa: ANN401 (None too: gRPC answers UNIMPLEMENTED)
        """Put the handler of a method behind the gate."""
        return self._methods.behind_the_gate(handler_call_details.method, continuation(handler_call_details))

    def close(self) -> None:
        """Report the last outcomes. The end of the process does so too."""
        if self._outcomes is not None:
            self._outcomes.close()

    def _behind(self, behavior: Any, scopes: tuple[str, ...], *, streams: bool) -> Callable[..., Any]:  # noqa: ANN401
        def guarded(request: Any, context: Context) -> Any:  # noqa: ANN401
            principal = self._identify(context, scopes)
            is_done = False
            try:
                answer = behavior(request, context)
                is_done = True
            finally:
                self._end(principal, context, is_done=is_done)
            return answer

        def guarded_stream(request: Any, context: Context) -> Iterator[Any]:  # noqa: ANN401
            principal = self._identify(context, scopes)
            is_done = False
            try:
                yield from behavior(request, context)
                is_done = True
            finally:
                self._end(principal, context, is_done=is_done)

        return guarded_stream if streams else guarded

    def _identify(self, context: Context, scopes: tuple[str, ...]) -> Principal:
        """Whom a call is from; a refusal ends it here, by an exception of gRPC's."""
        question, request_id = self._question(context, scopes)
        judged = question if isinstance(question, Refusal) else self._ask(question)
        if isinstance(judged, Principal):
            self._begin(judged, context)
            return judged
        context.set_trailing_metadata(trailers_of(judged, request_id))
        context.abort(judged.code, judged.message)
        raise AssertionError("abort raises")

    def _ask(self, question: Question) -> Principal | Refusal:
        try:
            verification = self._client.verify(**question._asdict())
        except KeysvcError as error:
            return self._gate.unjudged(error, question.request_id)
        return self._gate.judged(verification, question.request_id)
