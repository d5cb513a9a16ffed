"""The door: what happens to every call of ours before and after its handler, in one place.

A call is given its request id, its caller is authenticated and must have the method's permission, the bytes are parsed,
the handler runs, errors become statuses, and one line is logged. Handlers are registered on raw bytes instead of behind
interceptors: bytes that are no such message would otherwise be answered by gRPC with the name of a Python class, and a
chain of interceptors is the slowest way to do four things on each call.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeAlias
from uuid import uuid4

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from keysvc.core.address import Address, parse_address
from keysvc.core.errors import InvalidArgument, KeysvcError, NotBuilt, PermissionDenied, Unauthenticated
from keysvc.core.keystring import is_key_string_in
from keysvc.core.permission import Permission
from keysvc.rpc.permissions import PERMISSIONS
from keysvc.rpc.status import code_of, status_of
from keysvc.rpc.tls import peer_certificate
from keysvc.service.callers import Call, Caller, Callers

Handler: TypeAlias = Callable[[Any, Call], Awaitable[Message | bytes]]
"""Takes a request and returns the answer, or what it is on the wire."""

StreamHandler: TypeAlias = Callable[[Any, Call], AsyncIterator[Message]]
"""Takes a request and gives answers, one after the other."""

Serve: TypeAlias = Callable[[bytes, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[bytes | None]]
"""What gRPC calls; None: the answers have been written."""

Fast: TypeAlias = Callable[[bytes, "grpc.aio.ServicerContext[Any, Any]"], bytes | Awaitable[bytes] | None]
"""Answers without the door, at once or later; None: the call must come through the door."""

_log = structlog.get_logger("keysvc.rpc")

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_BUSY: Final = frozenset({Permission.VERIFY, Permission.USAGE_WRITE})
"""Methods with these permissions are called on every request of other services: only failures of ours are logged."""


class Door:
    """Makes gRPC handlers of ours.

    Parameters:
        callers: authenticates them.
    """

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    def service(
        self, descriptor: ServiceDescriptor, servicer: object, fast: Mapping[str, Fast] = MappingProxyType({})
    ) -> grpc.GenericRpcHandler:
        """All methods of a service. A method that ``servicer`` does not have answers UNIMPLEMENTED.

        Parameters:
            descriptor: of the contract.
            servicer: has methods named like the RPCs that take a request and a ``Call`` and return the answer.
            fast: by name of the RPC.
        """
        handlers = {
            method.name: self._handler(method, servicer, fast.get(method.name)) for method in descriptor.methods
        }
        return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)

    def _handler(
        self, method: MethodDescriptor, servicer: object, fast: Fast | None
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """The gRPC handler of one method, on bytes."""
        name = f"{method.containing_service.full_name}/{method.name}"
        handle = getattr(servicer, method.name, None)
        deliver = _in_stream if method.server_streaming and handle else _at_once
        serve = self._serve(name, GetMessageClass(method.input_type), deliver, handle or _not_built(name))
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(serve)
        return grpc.unary_unary_rpc_method_handler(_first(fast, serve) if fast else serve)

    def _serve(self, name: str, request_class: type[Message], deliver: "_Deliver", handle: Any) -> Serve:  # noqa: ANN401
        """The function that gRPC calls.

        Parameters:
            deliver: has ``handle`` answer.
        """
        permission = PERMISSIONS[name]
        quiet = permission in _BUSY

        def read(raw: bytes, call: Call) -> Message:
            if not call.caller.may(permission):
                raise PermissionDenied(f"{name} needs the permission {permission}", permission=permission)
            try:
                return request_class.FromString(raw)
            except DecodeError:
                raise InvalidArgument([], f"the bytes are no {request_class.DESCRIPTOR.full_name}") from None

        async def serve(raw: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes | None:
            started = time.monotonic()
            sent = context.invocation_metadata() or ()
            metadata = dict(sent)
            request_id = sent_request_id(metadata.get("x-request-id")) or new_request_id()
            address = peer_address(context.peer())
            caller = None
            with structlog.contextvars.bound_contextvars(request_id=request_id):
                try:
                    if "authorization" in metadata:
                        if len(metadata) < len(sent):
                            _check_one_authorization(sent)
                        caller = await self._callers.authenticate(_text(metadata["authorization"]), address)
                    else:
                        caller = self._callers.identify(peer_certificate(context))
                    call = Call(
                        caller, name, request_id, "" if address is None else str(address), context.time_remaining
                    )
                    response = await deliver(handle, read(raw, call), call, context)
                except asyncio.CancelledError:
                    # The caller went away or ran out of time; what was begun in the database is finished.
                    if deliver is not _in_stream:
                        _log.info("call cancelled", method=name, caller=caller and caller.name)
                    raise
                except Exception as error:  # noqa: BLE001 (see ``refuse``)
                    log_call(name, caller, error, time.monotonic() - started, quiet=quiet)
                    return await refuse(context, error, request_id)
                log_call(name, caller, None, time.monotonic() - started, quiet=quiet)
                context.set_trailing_metadata((("x-request-id", request_id),))
                return response

        return serve


async def _at_once(
    handle: Handler, request: Message, call: Call, _context: "grpc.aio.ServicerContext[Any, Any]"
) -> bytes:
    """Have a handler answer."""
    response = await handle(request, call)
    return response if isinstance(response, bytes) else response.SerializeToString()


async def _in_stream(
    handle: StreamHandler, request: Message, call: Call, context: "grpc.aio.ServicerContext[Any, Any]"
) -> None:
    """Have a handler answer for as long as it likes."""
    async for response in handle(request, call):
        await context.write(response.SerializeToString())


_Deliver: TypeAlias = Callable[
    [Any, Message, Call, "grpc.aio.ServicerContext[Any, Any]"], Coroutine[Any, Any, bytes | None]
]


def _first(fast: Fast, serve: Serve) -> Serve:
    """The function that gRPC calls, of a method that has a way past the door."""

    async def answer(raw: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes | None:
        given = fast(raw, context)
        if given is None:
            return await serve(raw, context)
        return given if isinstance(given, bytes) else await given

    return answer


async def refuse(context: "grpc.aio.ServicerContext[Any, Any]", error: Exception, request_id: str) -> NoReturn:
    """End a call with the status of an error: the one place where errors become statuses."""
    status = status_of(error)
    details = ("grpc-status-details-bin", status.SerializeToString())
    trailers = (("x-request-id", request_id), details)
    await context.abort(code_of(error), status.message, trailing_metadata=trailers)


def log_call(name: str, caller: Caller | None, error: Exception | None, seconds: float, *, quiet: bool) -> None:
    """One line for a call; of a busy method, only what is wrong with keysvc itself."""
    if quiet and (error is None or isinstance(error, KeysvcError)):
        return
    fields = {"method": name, "milliseconds": round(seconds * 1000, 1), "caller": caller and caller.name}
    if error is None:
        _log.info("call", status="OK", **fields)
    elif isinstance(error, KeysvcError):
        _log.info("call refused", status=code_of(error).name, reason=error.message, **fields)
    else:
        _log.error("call failed", status="INTERNAL", exc_info=error, **fields)


def _not_built(name: str) -> Handler:
    async def refuse(_request: Message, _call: Call) -> Message:
        raise NotBuilt(f"{name} is not built yet")

    return refuse


def _check_one_authorization(metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Raise ``Unauthenticated`` for a call that names several callers."""
    if [name for name, _ in metadata].count("authorization") > 1:
        raise Unauthenticated("there must not be more than one authorization in the metadata")


def _text(value: str | bytes | None) -> str | None:
    """A value of ASCII metadata."""
    return value if isinstance(value, str) else None


def sent_request_id(value: str | bytes | None) -> str | None:
    """The caller's request id, if it is one."""
    text = _text(value) or ""
    return text if _REQUEST_ID.fullmatch(text) and not is_key_string_in(text) else None


def new_request_id() -> str:
    """The request id of a call whose caller has sent none."""
    return str(uuid4())


def peer_address(peer: str) -> Address | None:
    """The address in gRPC's name of a peer (``ipv4:1.2.3.4:5``, ``ipv6:[::1]:5``); None for a local socket."""
    family, _, rest = peer.partition(":")
    if family not in {"ipv4", "ipv6"}:
        return None
    host = rest.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]").strip("[]").partition("%")[0]
    try:
        return parse_address(host)
    except ValueError:
        return None
