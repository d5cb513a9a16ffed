"""A service with every kind of method, for both kinds of gRPC server."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from keysvc_client import current_principal
from keysvc_client.grpc import requires_scopes

SERVICE = "pdf.v1.Pdf"


def said(request: StringValue) -> StringValue:
    """What methods answer."""
    return StringValue(value=f"{request.value} for {current_principal().display_name}")


class Pdf:
    """A servicer, by every kind of method."""

    @requires_scopes("pdf.read")
    def Read(self, request: StringValue, context: Any) -> StringValue:  # noqa: D102, N802
        return said(request)

    @requires_scopes("pdf.read")
    def ReadMany(self, request: StringValue, context: Any) -> Iterator[StringValue]:  # noqa: D102, N802
        for _ in range(2):
            yield said(request)

    @requires_scopes("pdf.read", "pdf.write")
    def Write(self, requests: Iterator[StringValue], context: Any) -> StringValue:  # noqa: D102, N802
        return said(StringValue(value=" ".join(request.value for request in requests)))

    @requires_scopes()
    def Talk(self, requests: Iterator[StringValue], context: Any) -> Iterator[StringValue]:  # noqa: D102, N802
        for request in requests:
            yield said(request)

    @requires_scopes()
    def Fail(self, request: StringValue, context: Any) -> StringValue:  # noqa: D102, N802
        context.set_trailing_metadata((("x-own", "1"),))
        if request.value == "abort":
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such page")
        if request.value == "code":
            context.set_code(grpc.StatusCode.OUT_OF_RANGE)
            return StringValue()
        if request.value == "fail":
            raise RuntimeError("this fails")
        return said(request)

    def Stated(self, request: StringValue, context: Any) -> StringValue:  # noqa: D102, N802
        return said(request)

    def Forgotten(self, request: StringValue, context: Any) -> StringValue:  # noqa: D102, N802
        return said(request)

    def Public(self, request: StringValue, context: Any) -> StringValue:  # noqa: D102, N802
        with pytest.raises(LookupError):
            current_principal()
        return request


class AsyncPdf:
    """The same for asyncio."""

    @requires_scopes("pdf.read")
    async def Read(self, request: StringValue, context: Any) -> StringValue:  # noqa: D102, N802
        return said(request)

    @requires_scopes("pdf.read")
    async def ReadMany(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:  # noqa: D102, N802
        for _ in range(2):
            yield said(request)

    @requires_scopes("pdf.read", "pdf.write")
    async def Write(self, requests: AsyncIterator[StringValue], context: Any) -> StringValue:  # noqa: D102, N802
        return said(StringValue(value=" ".join([request.value async for request in requests])))

    @requires_scopes()
    async def Talk(self, requests: AsyncIterator[StringValue], context: Any) -> None:  # noqa: D102, N802
        async for request in requests:
            await context.write(said(request))

    @requires_scopes()
    async def Fail(self, request: StringValue, context: Any) -> StringValue:  # noqa: D102, N802
        context.set_trailing_metadata((("x-own", "1"),))
        if request.value == "abort":
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such page")
        if request.value == "code":
            context.set_code(grpc.StatusCode.OUT_OF_RANGE)
            return StringValue()
        if request.value == "fail":
            raise RuntimeError("this fails")
        return said(request)

    async def Stated(self, request: StringValue, context: Any) -> StringValue:  # noqa: D102, N802
        return said(request)

    async def Forgotten(self, request: StringValue, context: Any) -> StringValue:  # noqa: D102, N802
        return said(request)

    async def Public(self, request: StringValue, context: Any) -> StringValue:  # noqa: D102, N802
        with pytest.raises(LookupError):
            current_principal()
        return request


KINDS = {"ReadMany": "unary_stream", "Write": "stream_unary", "Talk": "stream_stream"}
NAMES = ("Read", "ReadMany", "Write", "Talk", "Fail", "Stated", "Forgotten", "Public")


def register(server: Any, servicer: Any) -> None:
    """Register all methods, as generated code does."""
    handlers = {
        name: getattr(grpc, f"{KINDS.get(name, 'unary_unary')}_rpc_method_handler")(
            getattr(servicer, name), StringValue.FromString, StringValue.SerializeToString
        )
        for name in NAMES
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
