"""Hostile input: whatever bytes and metadata arrive, an answer comes that says what is wrong and nothing else.

Every RPC gets some hundred inputs; ``--hypothesis-profile=long`` sends each of them more than 5 000.
"""

import asyncio
import io
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from keysvc.core.keystring import is_key_string_in
from keysvc.rpc.limits import MESSAGE_BYTES_MAX
from keysvc.rpc.server import CONTRACT
from keysvc.v1 import audit_service_pb2, key_pb2, workspace_service_pb2
from tests.deployment import Client, Deployment, request_id
from tests.hostile import Hostile, Input

METHODS: Final = {f"{service.name}/{method.name}": method for service in CONTRACT for method in service.methods}
TOGETHER: Final = 10
"""So many inputs are on their way at once."""

HOSTILE: Final = settings(
    max_examples=settings().max_examples // 5,
    derandomize=True,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)

SECONDS_MAX: Final = 20

PATIENT: Final = pytest.mark.timeout(600)
"""For the long profile; each call has a limit of its own."""

UNTOLD: Final = re.compile(
    r"Traceback|\.py\b|line \d+, in|<class|object at 0x|\b[A-Z]\w*(?:Error|Exception|Warning)\b|NoneType|attribute|"
    r"psycopg|sqlalchemy|postgres|protobuf|"
    r"\b(?:SELECT|INSERT|UPDATE|DELETE|FROM|WHERE)\b|constraint|violates|relation|column|syntax|_[pf]key|_check"
)
"""Words of Python, its libraries and PostgreSQL, that no caller should read."""

_NOT_BUILT_COMMENT: Final = re.compile(
    r"// [^\n]*Not built yet[^\n]*\n(?:\s*//[^\n]*\n)*\s*(?:rpc (\w+)|(?:[\w.]+ )*(\w+) = \d+;)"
)
NOT_BUILT: Final = {
    rpc or name
    for path in (Path(__file__).parents[2] / "protos" / "keysvc" / "v1").glob("*.proto")
    for rpc, name in _NOT_BUILT_COMMENT.findall(path.read_text(encoding="utf-8"))
}
"""Names of RPCs, fields and values of which the contract says "Not built yet"."""

NEEDED: Final = {
    *("id", "key_id", "secret_id", "key_string", "workspace", "name", "display_name", "environment"),
    *("key", "update_mask", "paths", "requests", "records", "source_id", "batch_seq", "outcome"),
}
"""Names of fields without which nothing happens."""


@dataclass
class Target:
    """A server under attack.

    Parameters:
        seen: how often each status was answered.
    """

    client: Client
    hostile: Hostile
    log: io.StringIO
    seen: Counter[str] = field(default_factory=Counter)

    async def send(self, method: MethodDescriptor, sent: Input) -> None:
        """Send one input, and check what comes back."""
        channel, path = self.client.channel, f"/{method.containing_service.full_name}/{method.name}"
        metadata = sent.metadata
        if sent.authorized:
            # The last one counts, so that a hostile one is heard only without it.
            metadata = (*metadata, ("authorization", f"Bearer {self.client.key_string}"))
        try:
            if method.server_streaming:
                call: Any = channel.unary_stream(path)(sent.body, metadata=metadata, timeout=SECONDS_MAX)
                async for _ in call:
                    pass
            else:
                await channel.unary_unary(path)(sent.body, metadata=metadata, timeout=SECONDS_MAX)
        except grpc.aio.AioRpcError as error:
            self.seen[error.code().name] += 1
            check_refusal(method, sent, error)
        else:
            self.seen["OK"] += 1

    async def check_health(self) -> None:
        """A key of an untouched workspace is created, verified and revoked."""
        created = await self.client.create(workspace="safe/side", scopes=["pdf.read"])
        assert await self.client.verdict(created.key_string, required_scopes=["pdf.read"]) == "VALID"
        await self.client.revoke(created.key.id)
        assert await self.client.verdict(created.key_string) == "REVOKED"


def check_refusal(method: MethodDescriptor, sent: Input, error: grpc.aio.AioRpcError) -> None:
    """A refusal has one of the documented codes, ErrorInfo, and nothing of our insides."""
    told = f"{error.code().name}: {error.details()}"
    metadata = dict(error.trailing_metadata() or ())
    if "grpc-status-details-bin" not in metadata:
        # gRPC's own, since the message or the metadata is too large.
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, told
        assert f"vs. {MESSAGE_BYTES_MAX})" in told or "metadata size" in told, told
        return
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = error_details_pb2.ErrorInfo()
    (packed, *_) = [each for each in status.details if each.Is(info.DESCRIPTOR)]
    packed.Unpack(info)
    assert info.domain == "keysvc"
    assert error.code().name in {
        "INVALID_ARGUMENT",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "ABORTED",
        "FAILED_PRECONDITION",
        "RESOURCE_EXHAUSTED",
        "UNIMPLEMENTED",
    }, told
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        assert method.name in NOT_BUILT or names_what_is_not_built(method, sent.body), told
        assert info.reason == "NOT_BUILT"
    texts = str(status.message) + "".join(map(str, status.details))
    assert not UNTOLD.search(texts), texts
    assert not is_key_string_in(texts)
    assert re.fullmatch(r"[\x21-\x7e]{1,128}", str(metadata["x-request-id"]))


def check_refusal_of_others(error: grpc.aio.AioRpcError) -> None:
    """A refusal of health or reflection tells as little."""
    assert error.code().name in {"NOT_FOUND", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
    assert not UNTOLD.search(error.details() or "")


def names_what_is_not_built(method: MethodDescriptor, body: bytes) -> bool:
    """Whether a request uses a field or value that is not built yet."""

    def names(message: Message) -> set[str]:
        found = set()
        for each, value in message.ListFields():
            found.add(each.name)
            for one in value if each.is_repeated else [value]:
                if isinstance(one, Message):
                    found |= names(one)
                elif each.enum_type is not None and one in each.enum_type.values_by_number:
                    found.add(each.enum_type.values_by_number[one].name)
                elif isinstance(one, str):
                    found.add(one)  # the path of a mask
        return found

    try:
        return not NOT_BUILT.isdisjoint(names(GetMessageClass(method.input_type).FromString(body)))
    except DecodeError:
        return False


async def known_texts(operator: Client) -> dict[str, list[str]]:
    """By the name of a field, texts that mean something there."""
    await operator.create_workspace("safe/side")
    await operator.create_workspace()
    await operator.create_workspace(
        "acme-corp/capped", allowed_scopes=["pdf.*"], roles=[{"name": "clerk", "scopes": ["pdf.read"]}], key_limit=5
    )
    await operator.create_workspace("acme-corp/closed")
    closed = workspace_service_pb2.SuspendWorkspaceRequest(name="acme-corp/closed")
    await operator.call(operator.workspaces.SuspendWorkspace, closed)
    created = [
        await operator.create(scopes=["pdf.*", "*.read"], role="viewer", tags=["t"], metadata={"a": "b"}),
        await operator.create(workspace="acme-corp/capped", role="clerk", ip_allowlist=["203.0.113.0/24"]),
        await operator.create(workspace="acme-corp/closed", environment=key_pb2.ENVIRONMENT_TEST),
        await operator.create(workspace="keysvc/system", scopes=["verify"]),
        await operator.create(display_name="suspended"),
        await operator.create(display_name="rotated"),
        await operator.create(display_name="revoked"),
    ]
    keys = [each.key for each in created]
    await operator.suspend(keys[4].id)
    rotated = await operator.rotate(keys[5].id)
    receipt = (await operator.revoke(keys[6].id)).receipt
    tokens = [
        (await operator.list(page_size=1)).next_page_token,
        (
            await operator.call(
                operator.workspaces.ListWorkspaces, workspace_service_pb2.ListWorkspacesRequest(page_size=1)
            )
        ).next_page_token,
        (
            await operator.call(operator.audit.ListAuditEvents, audit_service_pb2.ListAuditEventsRequest(page_size=1))
        ).next_page_token,
    ]
    ids = [*(key.id for key in keys), "01234567-89ab-4cde-8f01-23456789abcd"]
    workspaces = ["acme-corp/sales", "acme-corp/capped", "acme-corp/closed", "keysvc/system", "no/such"]
    scopes = ["pdf.read", "pdf.*", "*.read", "*", "operator"]
    return {
        "id": ids,
        "key_id": ids,
        "actor": [ids[0], "bootstrap"],
        "secret_id": [secret.id for key in (*keys, rotated.key) for secret in key.secrets],
        "key_string": [each.key_string for each in (*created, rotated)],
        "workspace": workspaces,
        "name": workspaces,
        "workspaces": workspaces[:2],
        "organization": ["acme-corp", "keysvc"],
        "display_name": ["a key", "b"],
        "display_name_prefix": ["a", "r"],
        "scopes": scopes,
        "allowed_scopes": scopes,
        "required_scopes": ["pdf.read", "read", "csv.write"],
        "role": ["viewer", "clerk", "admin"],
        "ip_allowlist": ["203.0.113.0/24", "::1", "::ffff:198.51.100.0/120"],
        "source_ip": ["203.0.113.7", "::1"],
        "hint_prefix": [keys[0].secrets[0].hint, "sk_live_", "%"],
        "etag": [keys[0].etag, "2", ""],
        "page_token": ["", "", *tokens],
        "request_id": [request_id(), request_id(), ""],
        "keysvc.v1.Workspace.name": [*workspaces, *(f"new/{number}" for number in range(10))],
        "keysvc.v1.Role.name": ["clerk", "other"],
        "google.protobuf.FieldMask.paths": [
            *("display_name", "display_name", "display_name", "owner", "tags", "scopes", "role", "metadata"),
            *("expire_time", "ip_allowlist", "workspaces", "allowed_scopes", "roles", "max_ttl", "key_limit"),
        ],
        "method": ["keysvc.v1.KeyService/Create"],
        "at_least": [receipt.revision],
        "source_id": ["a-source", request_id()],
        "session_id": [request_id()],
        "service": ["keysvc.v1.KeyService", ""],
        "file_by_filename": ["keysvc/v1/key.proto"],
        "file_containing_symbol": ["keysvc.v1.KeyService.Create", "keysvc.v1.Key"],
    }


OTHERS: Final[dict[str, type[Message]]] = {
    "/grpc.health.v1.Health/Check": health_pb2.HealthCheckRequest,
    "/grpc.health.v1.Health/Watch": health_pb2.HealthCheckRequest,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": reflection_pb2.ServerReflectionRequest,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": reflection_pb2.ServerReflectionRequest,
}
"""What is served besides the contract."""


@pytest.fixture
async def target(deployment: Deployment, log: io.StringIO) -> AsyncIterator[Target]:
    """A server that is as well afterwards as it was before."""
    client = await deployment.client()
    target = Target(client, Hostile(await known_texts(client), needed=NEEDED, rare=NOT_BUILT), log)
    yield target
    await target.check_health()
    check_log(log.getvalue())


def check_log(text: str) -> None:
    """Every line is JSON, none tells of an error, and none has a key string."""
    for line in text.splitlines():
        told = json.loads(line)
        assert told["level"] not in {"error", "critical"}, line
        assert "Traceback" not in line, line
    assert not is_key_string_in(text)


def test_at_least_5000_inputs_are_sent() -> None:
    """Every method gets its share."""
    assert len(METHODS) * HOSTILE.max_examples * TOGETHER >= 5000


@PATIENT
@pytest.mark.parametrize("name", METHODS)
@HOSTILE
@given(data=st.data())
async def test_hostile_input_gets_an_answer(target: Target, name: str, data: st.DataObject) -> None:
    """A documented status within seconds, whatever was sent; afterwards the server does its work as before."""
    method = METHODS[name]
    inputs = data.draw(target.hostile.inputs(method.input_type, TOGETHER))
    await asyncio.gather(*(target.send(method, each) for each in inputs))


@PATIENT
@pytest.mark.parametrize("path", OTHERS)
@HOSTILE
@given(data=st.data())
async def test_hostile_input_does_health_and_reflection_no_harm(target: Target, path: str, data: st.DataObject) -> None:
    """What anybody may call without a key answers as well, tells nothing of Python, and logs no errors."""
    channel = target.client.channel

    async def send(sent: Input) -> None:
        try:
            if path.endswith("/Check"):
                await channel.unary_unary(path)(sent.body, metadata=sent.metadata, timeout=SECONDS_MAX)
                return
            if path.endswith("/Watch"):
                call: Any = channel.unary_stream(path)(sent.body, metadata=sent.metadata, timeout=SECONDS_MAX)
            else:
                call = channel.stream_stream(path)(iter([sent.body]), metadata=sent.metadata, timeout=SECONDS_MAX)
            await call.read()
            call.cancel()
        except grpc.aio.AioRpcError as error:
            check_refusal_of_others(error)

    inputs = data.draw(target.hostile.inputs(OTHERS[path].DESCRIPTOR, TOGETHER))
    await asyncio.gather(*map(send, inputs))
