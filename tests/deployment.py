"""A running keysvc as tests see it: a socket, the generated stubs, an operator key."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import grpc
from google.rpc import error_details_pb2, status_pb2

from keysvc.app import bootstrap, open_server
from keysvc.core.pepper import Peppers
from keysvc.lease.terms import Terms
from keysvc.rpc.limits import Limits as ServerLimits
from keysvc.rpc.server import LIMITS
from keysvc.settings import Settings
from keysvc.storage import Limits, open_storage
from keysvc.tls import open_tls
from keysvc.v1 import key_pb2, key_service_pb2, receipt_pb2, verify_pb2, workspace_service_pb2
from keysvc.v1.audit_service_pb2_grpc import AuditServiceStub
from keysvc.v1.key_service_pb2_grpc import KeyServiceStub
from keysvc.v1.usage_service_pb2_grpc import UsageServiceStub
from keysvc.v1.workspace_service_pb2_grpc import WorkspaceServiceStub

T = TypeVar("T")
M = TypeVar("M", bound=Any)

WORKSPACE = "acme-corp/sales"

PATIENT = Limits(change_seconds=20, look_up_seconds=20)
"""For tests that are not about time, on machines that are busy with others."""


TERMS = Terms()
"""Of leases, as they are by default."""


@dataclass
class Refused(Exception):  # noqa: N818 (named for what happened)
    """An RPC that failed, with its details unpacked."""

    code: grpc.StatusCode
    message: str
    violations: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    retry_after_seconds: float | None = None

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Self:
        """Unpack an error."""
        refused = cls(error.code(), error.details() or "")
        for name, value in error.trailing_metadata() or ():
            if name == "grpc-status-details-bin":
                refused._unpack(status_pb2.Status.FromString(value))
        return refused

    def _unpack(self, status: status_pb2.Status) -> None:
        assert status.code == self.code.value[0]
        for detail in status.details:
            info, bad, retry = (
                error_details_pb2.ErrorInfo(),
                error_details_pb2.BadRequest(),
                error_details_pb2.RetryInfo(),
            )
            if detail.Unpack(info):
                assert info.domain == "keysvc"
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad):
                self.violations = {each.field: each.description for each in bad.field_violations}
            elif detail.Unpack(retry):
                self.retry_after_seconds = retry.retry_delay.ToMilliseconds() / 1000


class Client:
    """One caller: the stubs, and short words for what tests do most."""

    def __init__(self, channel: grpc.aio.Channel, key_string: str | None) -> None:
        self.channel = channel
        self.key_string = key_string
        self.keys = KeyServiceStub(channel)
        self.workspaces = WorkspaceServiceStub(channel)
        self.usage = UsageServiceStub(channel)
        self.audit = AuditServiceStub(channel)

    async def call(self, method: Callable[..., Awaitable[T]], request: Any, **metadata: str) -> T:
        """Call a method; an error is raised as ``Refused``."""
        headers = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        if self.key_string is not None:
            headers.append(("authorization", f"Bearer {self.key_string}"))
        try:
            return await method(request, metadata=headers, timeout=20)
        except grpc.aio.AioRpcError as error:
            raise Refused.of(error) from None

    async def create_workspace(self, name: str = WORKSPACE, **fields: Any) -> workspace_service_pb2.Workspace:
        """Create a workspace."""
        workspace = workspace_service_pb2.Workspace(name=name, **fields)
        request = workspace_service_pb2.CreateWorkspaceRequest(workspace=workspace)
        return (await self.call(self.workspaces.CreateWorkspace, request)).workspace

    async def create(self, **fields: Any) -> key_service_pb2.CreateResponse:
        """Create a key."""
        defaults: dict[str, Any] = {
            "workspace": WORKSPACE,
            "display_name": "a key",
            "environment": key_pb2.ENVIRONMENT_LIVE,
        }
        return await self.call(self.keys.Create, key_service_pb2.CreateRequest(**(defaults | fields)))

    async def get(self, key_id: str) -> key_pb2.Key:
        """Get a key."""
        return (await self.call(self.keys.Get, key_service_pb2.GetRequest(key_id=key_id))).key

    async def list(self, **fields: Any) -> key_service_pb2.ListResponse:
        """List keys; filters may be given by their name."""
        known = key_service_pb2.ListRequest.DESCRIPTOR.fields_by_name
        request = {name: value for name, value in fields.items() if name in known}
        conditions = {name: value for name, value in fields.items() if name not in known}
        return await self.call(
            self.keys.List,
            key_service_pb2.ListRequest(filter=key_service_pb2.ListRequest.Filter(**conditions), **request),
        )

    async def verify(self, key_string: str, **fields: Any) -> verify_pb2.VerifyResponse:
        """Verify a key string."""
        return await self.call(self.keys.Verify, verify_pb2.VerifyRequest(key_string=key_string, **fields))

    async def verdict(self, key_string: str, **fields: Any) -> str:
        """The verdict on a key string, such as ``VALID``."""
        verdict = (await self.verify(key_string, **fields)).verdict
        return verify_pb2.Verdict.Name(verdict).removeprefix("VERDICT_")

    async def revoke(self, key_id: str, **fields: Any) -> key_service_pb2.RevokeResponse:
        """Revoke a key; its receipt must be complete."""
        response = await self.call(self.keys.Revoke, key_service_pb2.RevokeRequest(key_id=key_id, **fields))
        assert response.receipt.state == receipt_pb2.Receipt.STATE_COMPLETE
        return response

    async def update(self, key_id: str, *paths: str, **fields: Any) -> key_service_pb2.UpdateResponse:
        """Update a key; all given fields but the etag, or those that ``paths`` name."""
        key = key_pb2.Key(id=key_id, **fields)
        request = key_service_pb2.UpdateRequest(
            key=key, update_mask={"paths": paths or [f for f in fields if f != "etag"]}
        )
        return await self.call(self.keys.Update, request)

    async def rotate(self, key_id: str, **fields: Any) -> key_service_pb2.RotateResponse:
        """Rotate a key."""
        return await self.call(self.keys.Rotate, key_service_pb2.RotateRequest(key_id=key_id, **fields))

    async def suspend(self, key_id: str, **fields: Any) -> key_service_pb2.SuspendResponse:
        """Suspend a key."""
        return await self.call(self.keys.Suspend, key_service_pb2.SuspendRequest(key_id=key_id, **fields))

    async def resume(self, key_id: str, **fields: Any) -> key_service_pb2.ResumeResponse:
        """Resume a key."""
        return await self.call(self.keys.Resume, key_service_pb2.ResumeRequest(key_id=key_id, **fields))


class Deployment:
    """A server, and clients of it."""

    def __init__(self, stack: AsyncExitStack, settings: Settings, address: str, operator_key: str) -> None:
        self._stack = stack
        self.settings = settings
        self.database_url = settings.database_url or ""
        self.address = address
        self.operator_key = operator_key

    @classmethod
    async def open(  # noqa: PLR0913, PLR0917 (all that tests choose)
        cls,
        stack: AsyncExitStack,
        database_url: str,
        peppers: Peppers,
        operator_key: str | None = None,
        limits: Limits = PATIENT,
        terms: Terms = TERMS,
        server_limits: ServerLimits = LIMITS,
        **tls: Path,
    ) -> Self:
        """Start a server; ``stack`` stops it. Without an operator key one is created.

        ``tls`` are files as in ``Settings``.
        """
        settings = Settings(database_url=database_url, peppers=peppers, listen="127.0.0.1:0", terms=terms, **tls)
        if operator_key is None:
            created = await bootstrap(settings, another=False)
            assert created is not None
            operator_key = created.reveal()
        storage = await stack.enter_async_context(open_storage(settings, limits=limits))
        server, callers = await stack.enter_async_context(open_server(storage, settings))
        tls_of_server = await stack.enter_async_context(open_tls(settings, callers))
        port = await server.start(settings.listen, tls_of_server, server_limits)
        return cls(stack, settings, f"127.0.0.1:{port}", operator_key)

    async def client(
        self,
        key_string: str | None = None,
        *,
        anonymous: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> Client:
        """A client; as the operator, if no key string is given. With credentials, over TLS."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            channel = grpc.aio.insecure_channel(self.address, options)
        else:
            channel = grpc.aio.secure_channel(self.address, credentials, options)
        self._stack.push_async_callback(channel.close)
        return Client(channel, None if anonymous else key_string or self.operator_key)

    async def caller(self, *scopes: str, **fields: Any) -> Client:
        """A client whose key has these permissions only."""
        operator = await self.client()
        created = await operator.create(workspace="keysvc/system", scopes=scopes, **fields)
        return await self.client(created.key_string)


async def eventually(check: Callable[[], Awaitable[T]], seconds: float = 20) -> T:
    """What a check answers when it first answers something; for what servers do by themselves after a while."""
    async with asyncio.timeout(seconds):
        while not (answer := await check()):  # noqa: ASYNC110 (a server cannot set our event)
            await asyncio.sleep(0.05)
    return answer


def settled(response: M) -> M:
    """An answer without how long it waited and how fresh its usage is, to be compared with that of a repeat."""
    response.receipt.ClearField("waited")
    if hasattr(response, "key"):
        response.key.ClearField("usage_time")
    return response


def request_id() -> str:
    """A new request id."""
    return str(uuid4())
