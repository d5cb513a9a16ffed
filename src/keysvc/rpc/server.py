"""The gRPC server: our services, health and reflection on one port."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2

from keysvc.rpc.door import Door, Fast
from keysvc.rpc.limits import Limits
from keysvc.rpc.parsing import parsing
from keysvc.rpc.reflection import reflection_handlers
from keysvc.rpc.tls import Tls
from keysvc.v1 import audit_service_pb2, key_service_pb2, usage_service_pb2, workspace_service_pb2

CONTRACT: Final = (
    key_service_pb2.DESCRIPTOR.services_by_name["KeyService"],
    workspace_service_pb2.DESCRIPTOR.services_by_name["WorkspaceService"],
    usage_service_pb2.DESCRIPTOR.services_by_name["UsageService"],
    audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"],
)
"""The services of the contract."""

LIMITS: Final = Limits()


class Server:
    """Serves the contract, health and reflection.

    Parameters:
        door: makes the handlers.
        servicers: by name of the service, such as ``KeyService``.
        fast: by name of the service and of the RPC, what answers without the door whatever it can.
        shares_port: with other processes, among which the kernel spreads the connections.
    """

    def __init__(
        self,
        door: Door,
        servicers: Mapping[str, object],
        fast: Mapping[str, Mapping[str, Fast]],
        *,
        shares_port: bool = False,
    ) -> None:
        self._shares_port = shares_port
        self._health = health.aio.HealthServicer()
        self._handlers = [
            *(
                door.service(descriptor, servicers[descriptor.name], fast.get(descriptor.name, {}))
                for descriptor in CONTRACT
            ),
            _health_handler(self._health),
            *reflection_handlers([descriptor.full_name for descriptor in CONTRACT] + [health.SERVICE_NAME]),
        ]
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str, tls: Tls | None, limits: Limits = LIMITS) -> int:
        """Listen, and say in the health service that we do; the port, which is new if ``address`` asked for port 0.

        Parameters:
            address: ``host:port``.
            limits: what is taken from whoever can connect.

        Raises:
            OSError: the address cannot be bound.
        """
        server = self._server = limited_server(self._handlers, limits, shares_port=self._shares_port)
        try:
            if tls is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, tls.credentials())
        except RuntimeError:
            port = 0
        if port == 0:
            raise OSError(f"cannot listen on {address}")
        await server.start()
        for name in ("", *(descriptor.full_name for descriptor in CONTRACT)):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self, grace_seconds: float) -> None:
        """Say that we are going, take no more calls, and let those under way finish."""
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(grace_seconds)


def limited_server(
    handlers: Sequence[grpc.GenericRpcHandler], limits: Limits = LIMITS, *, shares_port: bool = False
) -> grpc.aio.Server:
    """A gRPC server as keysvc runs it; the bench measures one that does nothing else."""
    return grpc.aio.server(
        handlers=handlers,
        # Alone, or a second server on the port would take half of its connections without a word.
        options=[*limits.options(), ("grpc.so_reuseport", int(shares_port))],
        maximum_concurrent_rpcs=limits.calls_max,
    )


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
