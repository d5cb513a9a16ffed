"""Parses the requests of health and reflection, which anybody who can connect may call, and says what parses.

Left to gRPC, bytes that are no such message would be UNKNOWN with the name of a Python class, and a traceback in the
log.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError, Message

M = TypeVar("M", bound=Message)
T = TypeVar("T")


def slow_parser() -> str | None:
    """Why messages would be parsed slowly, a sentence for who starts a server; None if they are not."""
    kind = api_implementation.Type()
    if kind == "upb":
        return None
    return (
        f"protobuf parses with its slow implementation, {kind!r} instead of 'upb': "
        "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, and install protobuf from a wheel"
    )


async def parse(raw: bytes, request_class: type[M], context: "grpc.aio.ServicerContext[Any, Any]") -> M:
    """The request; bytes that are none end the call with INVALID_ARGUMENT."""
    try:
        return request_class.FromString(raw)
    except DecodeError:
        message = f"the bytes are no {request_class.DESCRIPTOR.full_name}"
    return await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)


def parsing(
    handle: Callable[[M, Any], Awaitable[T]], request_class: type[M]
) -> Callable[[bytes, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[T]]:
    """A handler of bytes, made of one of a message."""

    async def serve(raw: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> T:
        return await handle(await parse(raw, request_class, context), context)

    return serve


def parsing_stream(
    handle: Callable[..., Any], request_class: type[M]
) -> Callable[[AsyncIterator[bytes], "grpc.aio.ServicerContext[Any, Any]"], AsyncIterator[Any]]:
    """As ``parsing``, for a stream of requests and one of answers.

    Parameters:
        handle: takes an iterator of messages and the context; an asynchronous generator.
    """

    async def serve(raws: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[Any, Any]") -> AsyncIterator[Any]:
        async def requests() -> AsyncIterator[M]:
            async for raw in raws:
                yield await parse(raw, request_class, context)

        async for answer in handle(requests(), context):
            yield answer

    return serve
