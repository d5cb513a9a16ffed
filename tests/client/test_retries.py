"""What the library sends again by itself, and what it never does."""

import asyncio
from typing import Any

import grpc
import pytest

from keysvc.rpc.limits import PING_SECONDS_MIN
from keysvc.v1.verify_pb2 import VERDICT_VALID, VerifyResponse
from keysvc_client import KeysvcError, Presentation, Unavailable, Verdict, channels
from keysvc_client.channels import ATTEMPTS_MAX, PING_SECONDS, RETRY_THROTTLING
from keysvc_client.methods import METHODS, Method
from tests.cli.peer import Peer, Refusal
from tests.client.conftest import AnyClient, Connect, call
from tests.client.wire import Wire
from tests.deployment import WORKSPACE, Client, Deployment, eventually

AWAY = Refusal(grpc.StatusCode.UNAVAILABLE, "the database cannot be reached", "UNAVAILABLE")
NOT_REPEATABLE = {"Update", "CreateWorkspace", "UpdateWorkspace"}
"""By the contract: a repeat of a success is an error, or undoes what somebody else did in between."""


async def send(client: AnyClient, method: Method[Any, Any]) -> None:
    """Send an empty request."""
    await call(client._calls.call, method, method.request(), 20)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_only_what_is_safe_is_sent_again(connect: Connect, peer: Peer, method: Method[Any, Any]) -> None:
    """A few times, and only where keysvc is not available; what the contract does not call safe is sent once."""
    client = connect(peer.address, api_key="key")
    peer.answers(method.name, *[AWAY] * (ATTEMPTS_MAX + 1))
    with pytest.raises(Unavailable) as raised:
        await send(client, method)
    assert len(peer.requests[method.name]) == (1 if method.name in NOT_REPEATABLE else ATTEMPTS_MAX)
    assert raised.value.reason == "UNAVAILABLE"
    assert {each["x-request-id"] for each in peer.metadata} == {raised.value.request_id}


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code.name not in {"OK", "UNAVAILABLE", "CANCELLED"}]
)
async def test_no_other_error_is_sent_again(connect: Connect, peer: Peer, code: grpc.StatusCode) -> None:
    """It would be the same again, or only more work for a service that has too much."""
    peer.answers("Verify", *[Refusal(code, "because")] * 2)
    with pytest.raises(KeysvcError):
        await call(connect(peer.address, api_key="key").verify, "nonsense")
    assert len(peer.requests["Verify"]) == 1


async def test_a_verify_gets_its_answer_at_last(connect: Connect, peer: Peer) -> None:
    """Nobody hears of what went wrong before: a service that was not available, and a server that stopped."""
    stopped = Refusal(grpc.StatusCode.CANCELLED, "CANCELLED")
    peer.answers("Verify", AWAY, stopped, VerifyResponse(verdict=VERDICT_VALID))
    assert await call(connect(peer.address, api_key="key").verify, "nonsense", timeout=20)


async def test_a_service_that_is_down_is_not_asked_again_and_again(connect: Connect, peer: Peer) -> None:
    """After many failures each call is sent once."""
    client = connect(peer.address, api_key="key")
    failures = int(RETRY_THROTTLING["maxTokens"])
    peer.answers("Verify", *[AWAY] * (failures + 1))

    async def fail() -> None:
        with pytest.raises(Unavailable):
            await call(client.verify, "nonsense", timeout=20)

    await asyncio.gather(*(fail() for _ in range(failures // ATTEMPTS_MAX)))
    sent = len(peer.requests["Verify"])
    await fail()
    assert len(peer.requests["Verify"]) == sent + 1


@pytest.mark.parametrize("minting", ["create", "rotate"])
async def test_a_lost_answer_mints_no_second_secret(
    connect: Connect, deployment: Deployment, operator: Client, minting: str
) -> None:
    """The connection is cut after the secret was minted and before the answer: the retry answers the same one."""
    key = (await operator.create()).key

    async def minted() -> int:
        keys = (await operator.list(workspace=WORKSPACE)).keys
        return sum(len(each.secrets) for each in keys) > 1

    async with Wire(deployment.address) as wire:
        client = connect(wire.address, api_key=deployment.operator_key, timeout=30)
        await call(client.keys.get, key.id)
        wire.hold_answers()
        if minting == "create":
            fields = {"workspace": WORKSPACE, "display_name": "another", "environment": "live"}
            minting_it = asyncio.create_task(call(client.keys.create, **fields))
        else:
            minting_it = asyncio.create_task(call(client.keys.rotate, key.id))
        await eventually(minted)
        wire.cut()
        answer = await minting_it
        assert wire.connections == 2
    assert await operator.verdict(answer.key_string) == "VALID"
    keys = (await operator.list(workspace=WORKSPACE)).keys
    assert [len(each.secrets) for each in keys] == ([1, 1] if minting == "create" else [2])


async def test_a_server_that_falls_silent_is_left(
    connect: Connect, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody closes the connection, and nothing comes back: pings tell, and the call is sent on another one."""
    monkeypatch.setattr(channels, "PING_SECONDS", 1)
    monkeypatch.setattr(channels, "PING_SECONDS_MAX", 1)
    async with Wire(deployment.address) as wire:
        client = connect(wire.address, api_key=deployment.operator_key, verify_timeout=40)
        await call(client.verify, "nonsense")
        wire.hold_answers()
        verifying = asyncio.create_task(call(client.verify, "nonsense"))

        async def connected_again() -> bool:
            return wire.connections > 1

        await eventually(connected_again)
        wire.cut()
        assert (await verifying).verdict is Verdict.MALFORMED


def test_pings_are_no_more_than_servers_allow() -> None:
    """Twice as far apart, so that none is early."""
    assert PING_SECONDS >= 2 * PING_SECONDS_MIN


async def test_a_batch_may_have_large_answers(client: AnyClient, operator: Client) -> None:
    """More than what gRPC takes by default."""
    created = await operator.create(metadata={f"{number}": "x" * 1000 for number in range(4)})
    presentations = [Presentation(created.key_string)] * 1000
    verifications = await call(client.verify_batch, presentations, timeout=30)
    assert len(verifications) == 1000
    assert sum(len(text) for each in verifications for text in each.metadata.values()) == 4_000_000
