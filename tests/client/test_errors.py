"""The errors of the library: which, and what they tell."""

import pickle
import traceback
from datetime import timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keysvc_client
from keysvc.v1.key_service_pb2 import GetResponse
from keysvc_client import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    KeysvcError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from keysvc_client.details import TRAILER, read_details
from tests.cli.peer import Peer, Refusal
from tests.client.conftest import AnyClient, Connect, call
from tests.client.wire import Wire
from tests.deployment import Client, Deployment
from tests.guides.guide import free_address

CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.UNKNOWN: Internal,
    grpc.StatusCode.DATA_LOSS: KeysvcError,
}


async def test_bad_fields_are_named(client: AnyClient, operator: Client) -> None:
    """All at once, with what is allowed; by a real server, as all that follows but what is prepared."""
    with pytest.raises(InvalidArgument) as raised:
        await call(client.keys.create, workspace="Acme", display_name="", environment="live", ip_allowlist=["nonsense"])
    error = raised.value
    assert error.violations.keys() == {"workspace", "display_name", "ip_allowlist[0]"}
    assert all(error.violations.values())
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert error.message
    assert str(error) == f"INVALID_ARGUMENT: {error.message} (request {error.request_id})"


async def test_callers_are_told_who_they_are_not(
    client: AnyClient, connect: Connect, deployment: Deployment, operator: Client
) -> None:
    """Nobody knows the one; the other lacks a permission, which is named; nobody has such a key."""
    nobody = connect(deployment.address, api_key="sk_live_nonsense")
    with pytest.raises(Unauthenticated):
        await call(nobody.verify, "nonsense")
    verifier = connect(deployment.address, api_key=(await deployment.caller("verify")).key_string)
    with pytest.raises(PermissionDenied) as denied:
        await call(verifier.keys.get, str(uuid4()))
    assert denied.value.metadata == {"permission": "keys.read"}
    with pytest.raises(NotFound):
        await call(client.keys.get, str(uuid4()))


async def test_a_server_that_is_not_there(connect: Connect) -> None:
    """Says where, and why, in words; at once, since no call waits for a connection."""
    address = free_address()
    with pytest.raises(Unavailable) as raised:
        await call(connect(address, api_key="key").verify, "nonsense")
    assert not isinstance(raised.value, DeadlineExceeded)
    assert raised.value.message == f"{address} cannot be reached: nothing listens there"
    assert raised.value.reason == ""


async def test_a_deadline_is_kept_and_told(deployment: Deployment, connect: Connect) -> None:
    """The call's own, the client's for Verify and that for all others; nobody answers here."""
    async with Wire(deployment.address) as wire:
        client = connect(wire.address, api_key=deployment.operator_key, verify_timeout=0.3, timeout=0.4)
        wire.hold_answers()
        for method, arguments, told in (
            (client.verify, {"timeout": 0.2}, "0.2 s"),
            (client.verify, {}, "0.3 s"),
            (client.keys.get, {}, "0.4 s"),
        ):
            with pytest.raises(DeadlineExceeded) as raised:
                await call(method, "nonsense", **arguments)
            assert raised.value.message == f"no answer from {wire.address} within {told}"
            assert isinstance(raised.value, Unavailable)


@pytest.mark.parametrize("code", CODES)
async def test_each_status_has_its_error(connect: Connect, peer: Peer, code: grpc.StatusCode) -> None:
    """With all that the service says about it; the way of gRPC to it is not shown."""
    peer.answers(
        "UpdateWorkspace", Refusal(code, "because", "SOME_REASON", {"a.b": "no", "c": "too"}, timedelta(seconds=1.5))
    )
    client = connect(peer.address, api_key="the-key-of-the-caller")
    with pytest.raises(KeysvcError) as raised:
        await call(client.workspaces.update, "acme-corp/sales", display_name="x")
    error = raised.value
    assert type(error) is CODES[code]
    assert (error.code, error.message, error.reason) == (code, "because", "SOME_REASON")
    assert error.violations == {"a.b": "no", "c": "too"}
    assert error.retry_after_seconds == 1.5
    assert error.request_id == peer.metadata[0]["x-request-id"]
    assert (error.__cause__, error.__context__) == (None, None)
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert "_channel.py" not in shown
    assert "the-key-of-the-caller" not in shown


async def test_a_call_has_a_request_id_of_its_own(connect: Connect, peer: Peer) -> None:
    """Each another one."""
    peer.answers("Get", GetResponse(), GetResponse())
    client = connect(peer.address, api_key="key")
    await call(client.keys.get, "x")
    await call(client.keys.get, "x")
    first, second = (each["x-request-id"] for each in peer.metadata)
    assert first != second
    assert [each["authorization"] for each in peer.metadata] == ["Bearer key"] * 2


async def test_a_key_string_in_a_message_is_cut(connect: Connect, peer: Peer) -> None:
    """Whoever put it there."""
    key_string = "sk_live_1" + "a" * 64
    peer.answers("Get", Refusal(grpc.StatusCode.NOT_FOUND, f"there is no {key_string}"))
    with pytest.raises(NotFound) as raised:
        await call(connect(peer.address, api_key="key").keys.get, key_string)
    assert str(raised.value).startswith("NOT_FOUND: there is no sk_live_1… (")


async def test_a_closed_client_says_so(connect: Connect, deployment: Deployment) -> None:
    """Whether it was used or not, and it can be closed again."""
    for used in (False, True):
        client = connect(deployment.address, api_key=deployment.operator_key)
        if used:
            await call(client.verify, "nonsense")
        await call(client.close)
        with pytest.raises(RuntimeError, match="this client is closed"):
            await call(client.verify, "nonsense")


def test_an_error_crosses_processes() -> None:
    """As a pool of processes wants it: the same error, with everything."""
    error = NotFound("none", code=grpc.StatusCode.NOT_FOUND, metadata={"a": "b"}, request_id="r", retry_after_seconds=2)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is NotFound
    assert (vars(copy), str(copy)) == (vars(error), str(error))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_details_say_nothing(value: bytes) -> None:
    """Whatever a server or a proxy sends as details, the error itself is told."""
    read_details([(TRAILER, value), ("other", "x")])


def test_the_library_says_what_it_exports() -> None:
    """In order, and all of it is there."""
    names: list[Any] = keysvc_client.__all__
    assert names == sorted(names)
    assert all(hasattr(keysvc_client, name) for name in names)
