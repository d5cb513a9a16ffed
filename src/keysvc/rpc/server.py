"""The gRPC server: our services, health and reflection on one port."""

import socket
from collections.abc import Mapping
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2

from keysvc.rpc.door import Door, Quick
from keysvc.rpc.parsing import parsing
from keysvc.rpc.reflection import add_reflection
from keysvc.rpc.tls import Tls
from keysvc.v1 import audit_service_pb2, key_service_pb2, usage_service_pb2, workspace_service_pb2

MESSAGE_BYTES_MAX: Final = 1 << 20

OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # Otherwise a second server on the port would take half of its connections without a word.
    ("grpc.so_reuseport", 0),
)
"""Of gRPC, for every server; the bench measures an empty one with the same."""

CONTRACT: Final = (
    key_service_pb2.DESCRIPTOR.services_by_name["KeyService"],
    workspace_service_pb2.DESCRIPTOR.services_by_name["WorkspaceService"],
    usage_service_pb2.DESCRIPTOR.services_by_name["UsageService"],
    audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"],
)
"""The services of the contract."""


class Server:
    """Serves the contract, health and reflection.

    Parameters:
        door: makes the handlers.
        servicers: by name of the service, such as ``KeyService``.
        quick: by name of the service and of the RPC, what answers without the door whatever it can.
    """

    def __init__(self, door: Door, servicers: Mapping[str, object], quick: Mapping[str, Mapping[str, Quick]]) -> None:
        self._server = grpc.aio.server(options=OPTIONS)
        self._server.add_generic_rpc_handlers(
            [
                door.service(descriptor, servicers[descriptor.name], quick.get(descriptor.name, {}))
                for descriptor in CONTRACT
            ]
        )
        self._health = health.aio.HealthServicer()
        self._server.add_generic_rpc_handlers([_health_handler(self._health)])
        add_reflection(self._server, [descriptor.full_name for descriptor in CONTRACT] + [health.SERVICE_NAME])

    async def start(self, address: str, tls: Tls | None) -> int:
        """Listen, and say in the health service that we do; the port, which is new if ``address`` asked for port 0.

        Parameters:
            address: ``host:port``.

        Raises:
            OSError: the address cannot be bound.
        """
        try:
            if tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, tls.credentials())
        except RuntimeError:
            port = 0
        if port == 0:
            raise OSError(f"cannot listen on {address}")
        await self._server.start()
        for name in ("", *(descriptor.full_name for descriptor in CONTRACT)):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self, grace_seconds: float) -> None:
        """Say that we are going, take no more calls, and let those under way finish."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)


def _health_handler(servicer: health.aio.HealthServicer) -> grpc.GenericRpcHandler:
    """The health service."""
    request_class, write = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse.SerializeToString
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Check": grpc.unary_unary_rpc_method_handler(parsing(servicer.Check, request_class), response_serializer=write),
        "Watch": grpc.unary_stream_rpc_method_handler(
            parsing(servicer.Watch, request_class), response_serializer=write
        ),
    }
    return grpc.method_handlers_generic_handler(health.SERVICE_NAME, handlers)


def check_address(listen: str) -> None:
    """Raise ``OSError`` if nobody can listen there: before anything is built, and with the reason, which gRPC hides.

    Parameters:
        listen: ``host:port``.
    """
    host, _, port = listen.rpartition(":")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
