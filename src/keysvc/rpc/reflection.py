"""Server reflection, in the version that older tools speak and in the newer one.

grpcio-reflection brings the older one alone. The messages of both are the same on the wire.
"""

from contextlib import suppress
from typing import Any, Final, cast

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.json_format import MessageToJson, Parse
from grpc_reflection.v1alpha import reflection, reflection_pb2

from keysvc.rpc.parsing import parsing_stream

_V1: Final = "grpc.reflection.v1.ServerReflection"
_VERSIONS: Final = (reflection.SERVICE_NAME, _V1)


def reflection_handlers(names: list[str]) -> list[grpc.GenericRpcHandler]:
    """What lets a server tell of its services.

    Parameters:
        names: of the services, but for reflection itself.
    """
    _describe_v1()
    pool = _SymbolPool(descriptor_pool.Default())  # type: ignore[no-untyped-call]
    servicer = reflection.aio.ReflectionServicer([*names, *_VERSIONS], pool=pool)
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        parsing_stream(servicer.ServerReflectionInfo, reflection_pb2.ServerReflectionRequest),
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": handler}
    return [grpc.method_handlers_generic_handler(name, handlers) for name in _VERSIONS]


class _SymbolPool:
    """A descriptor pool that also finds the files of methods, fields and enum values, as reflection promises."""

    def __init__(self, pool: Any) -> None:  # noqa: ANN401 (protobuf's pools have no types)
        self._pool = pool

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (everything else is the pool's)
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 (the pool's name)
        """The file of a symbol; raise ``KeyError`` if there is none."""
        try:
            file = self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            parent, _, name = symbol.rpartition(".")
            file = self._pool.FindFileContainingSymbol(parent)
            if not _has(self._pool, parent, name):
                raise
        return cast("FileDescriptor", file)


def _has(pool: Any, parent: str, name: str) -> bool:  # noqa: ANN401 (as above)
    """Whether a service, message or enum has a method, field or value of this name."""
    for find, members in (
        (pool.FindServiceByName, "methods_by_name"),
        (pool.FindMessageTypeByName, "fields_by_name"),
        (pool.FindEnumTypeByName, "values_by_name"),
    ):
        with suppress(KeyError):
            return name in getattr(find(parent), members)
    return False


def _describe_v1() -> None:
    """Make the v1 service known to reflection itself: grpcio-reflection brings the older one alone."""
    pool = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    try:
        pool.FindServiceByName(_V1)
    except KeyError:
        file = FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)  # type: ignore[no-untyped-call]
        pool.Add(Parse(MessageToJson(file).replace("v1alpha", "v1"), FileDescriptorProto()))
