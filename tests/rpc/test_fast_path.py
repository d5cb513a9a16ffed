"""Verify's fast path: the answers of the door, without the door."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from keysvc.v1 import usage_service_pb2, verify_pb2
from keysvc.v1.key_service_pb2_grpc import KeyServiceStub
from tests.deployment import WORKSPACE, Client, Deployment, Refused, eventually

KEY: dict[str, Any] = {
    "owner": "team-billing",
    "role": "viewer",
    "scopes": ["pdf.read", "pdf.write"],
    "ip_allowlist": ["203.0.113.0/24", "2001:db8::/32", "198.51.100.7"],
    "metadata": {"plan": "gold", "empty": ""},
}
HERE = {"source_ip": "203.0.113.9"}


@pytest.fixture
async def operator(deployment: Deployment) -> Client:
    """An operator, beside a workspace."""
    operator = await deployment.client()
    await operator.create_workspace()
    return operator


def in_an_hour() -> Timestamp:
    """A time that tests do not reach."""
    time = Timestamp()
    time.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    return time


def without_origin(answer: verify_pb2.VerifyResponse) -> verify_pb2.VerifyResponse:
    """An answer without where it came from."""
    answer.ClearField("basis")
    return answer


@pytest.mark.parametrize(
    "asked",
    [
        HERE,
        {**HERE, "workspace": WORKSPACE, "environment": "ENVIRONMENT_LIVE", "required_scopes": ["pdf.read", "x.read"]},
        {**HERE, "resource": "GET /invoices/{id}", "request_id": "a trace", "consistency": {"leased": {}}},
        {"source_ip": "::ffff:203.0.113.200"},
        {"source_ip": "2001:db8::1"},
        {"source_ip": "198.51.100.7"},
        {},
        {"source_ip": "198.51.100.8"},
        {**HERE, "workspace": "acme-corp/other"},
        {**HERE, "environment": "ENVIRONMENT_TEST"},
        {**HERE, "required_scopes": ["pdf.read", "pdf.delete", "pdf.delete"]},
    ],
)
async def test_what_is_answered_from_memory_is_what_the_database_says(operator: Client, asked: dict[str, Any]) -> None:
    """Field by field, whatever is asked for, valid or not."""
    created = await operator.create(**KEY, expire_time=in_an_hour())
    await operator.rotate(created.key.id)
    strong = await operator.verify(created.key_string, **{**asked, "consistency": {"strong": {}}})
    await operator.verify(created.key_string)
    hot = await operator.verify(created.key_string, **asked)
    assert hot.basis == verify_pb2.BASIS_MEMORY
    assert strong.basis == verify_pb2.BASIS_DATABASE
    assert hot.metadata == KEY["metadata"]
    assert hot.HasField("retire_time")
    assert without_origin(hot) == without_origin(strong)


async def test_a_batch_tells_the_same(operator: Client) -> None:
    """Whether its answers are remembered or not."""
    created = await operator.create(**KEY)
    one = await operator.verify(created.key_string, **HERE)
    request = verify_pb2.VerifyRequest(key_string=created.key_string, **HERE)
    batch = await operator.call(operator.keys.VerifyBatch, verify_pb2.VerifyBatchRequest(requests=[request, request]))
    assert [without_origin(answer) for answer in batch.responses] == [without_origin(one)] * 2


async def test_a_caller_without_permission_is_refused_also_when_it_is_remembered(
    deployment: Deployment, operator: Client
) -> None:
    """Each time."""
    created = await operator.create()
    reader = await deployment.caller("keys.read")
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            await reader.verify(created.key_string)
        assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED


async def test_what_a_caller_may_see_is_its_own(deployment: Deployment, operator: Client) -> None:
    """One remembers a key for all, and each still sees only its own workspaces."""
    await operator.create_workspace("acme-corp/other")
    created = await operator.create()
    limited = await deployment.caller("verify", workspaces=["acme-corp/other"])
    for _ in range(3):
        assert await operator.verdict(created.key_string) == "VALID"
        assert await limited.verdict(created.key_string) == "NOT_FOUND"


async def test_a_caller_that_changes_is_another_one_at_once(deployment: Deployment, operator: Client) -> None:
    """What was worked out of its key is worked out again: permissions, workspaces, suspension, revocation."""
    await operator.create_workspace("acme-corp/other")
    created = await operator.create()
    caller = await operator.create(workspace="keysvc/system", scopes=["verify"])
    client = await deployment.client(caller.key_string)

    async def outcome() -> str:
        verdicts = set()
        for _ in range(3):
            try:
                verdicts.add(await client.verdict(created.key_string))
            except Refused as refused:
                verdicts.add(refused.code.name)
        return verdicts.pop() if len(verdicts) == 1 else str(verdicts)

    assert await outcome() == "VALID"
    await operator.update(caller.key.id, workspaces=["acme-corp/other"])
    assert await outcome() == "NOT_FOUND"
    await operator.update(caller.key.id, "workspaces", "scopes", scopes=["keys.read"])
    assert await outcome() == "PERMISSION_DENIED"
    await operator.update(caller.key.id, scopes=["verify"])
    assert await outcome() == "VALID"
    await operator.suspend(caller.key.id)
    assert await outcome() == "UNAUTHENTICATED"
    await operator.resume(caller.key.id)
    assert await outcome() == "VALID"
    await operator.update(caller.key.id, ip_allowlist=["203.0.113.1"])
    assert await outcome() == "UNAUTHENTICATED"
    await operator.update(caller.key.id, ip_allowlist=["127.0.0.1"])
    assert await outcome() == "VALID"
    await operator.revoke(caller.key.id)
    assert await outcome() == "UNAUTHENTICATED"


async def test_a_caller_ends_at_its_time(deployment: Deployment, operator: Client) -> None:
    """Nothing changes then: the time is looked at in each call."""
    created = await operator.create()
    caller = await operator.create(workspace="keysvc/system", scopes=["verify"], ttl={"seconds": 2})
    client = await deployment.client(caller.key_string)
    assert await client.verdict(created.key_string) == "VALID"
    assert await client.verdict(created.key_string) == "VALID"

    async def is_over() -> bool:
        try:
            await client.verdict(created.key_string)
        except Refused as refused:
            return refused.code is grpc.StatusCode.UNAUTHENTICATED
        return False

    await eventually(is_over)
    assert datetime.now(UTC) >= caller.key.expire_time.ToDatetime(UTC) - timedelta(milliseconds=100)


@pytest.mark.parametrize(
    ("sent", "is_echoed"), [(None, False), ("trace-1", True), ("two words", False), ("x" * 200, False)]
)
async def test_a_request_id_comes_back(operator: Client, sent: str | None, is_echoed: bool) -> None:
    """That of the caller, if it is one; an answer from memory makes up none."""
    created = await operator.create()
    await operator.verify(created.key_string)
    metadata = [("authorization", f"Bearer {operator.key_string}")]
    if sent is not None:
        metadata.append(("x-request-id", sent))
    request = verify_pb2.VerifyRequest(key_string=created.key_string)
    call = KeyServiceStub(operator.channel).Verify(request, metadata=metadata)
    assert (await call).basis == verify_pb2.BASIS_MEMORY
    trailers = dict(await call.trailing_metadata())
    assert trailers == ({"x-request-id": sent} if is_echoed else {})


async def test_every_answer_from_memory_is_counted_with_its_caller(deployment: Deployment, operator: Client) -> None:
    """Once for the key, and once for the key of the caller."""
    created = await operator.create()
    caller = await operator.create(workspace="keysvc/system", scopes=["verify"])
    client = await deployment.client(caller.key_string)
    for _ in range(7):
        assert await client.verdict(created.key_string) == "VALID"
    await asyncio.gather(*(client.verdict(created.key_string, required_scopes=["no.scope"]) for _ in range(3)))

    async def counts() -> dict[str, int] | None:
        found = {}
        for key_id in (created.key.id, caller.key.id):
            request = usage_service_pb2.QueryUsageRequest(key_id=key_id)
            buckets = (await operator.call(operator.usage.QueryUsage, request)).buckets
            found[key_id] = sum(bucket.verify_count for bucket in buckets)
        return found if found[created.key.id] >= 10 else None

    assert await eventually(counts) == {created.key.id: 10, caller.key.id: 10}


async def test_a_look_up_is_answered_and_counted_once_too(deployment: Deployment, operator: Client) -> None:
    """Whether the key was remembered makes no difference to what is counted, and to which request id comes back."""
    created = await operator.create()
    metadata = [("authorization", f"Bearer {operator.key_string}"), ("x-request-id", "trace-2")]
    request = verify_pb2.VerifyRequest(key_string=created.key_string)
    call = KeyServiceStub(operator.channel).Verify(request, metadata=metadata)
    assert (await call).basis == verify_pb2.BASIS_DATABASE
    assert dict(await call.trailing_metadata()) == {"x-request-id": "trace-2"}

    async def count() -> int:
        query = usage_service_pb2.QueryUsageRequest(key_id=created.key.id)
        buckets = (await operator.call(operator.usage.QueryUsage, query)).buckets
        return sum(bucket.verify_count for bucket in buckets)

    assert await eventually(count) == 1


async def test_what_a_look_up_finds_wrong_has_a_status(operator: Client) -> None:
    """An error past the door is what it is at the door: a status, its details, and the call's request id."""
    created = await operator.create()
    epoch, _, seq = (await operator.verify(created.key_string)).revision.partition(".")
    later = f"{epoch}.{int(seq) + 1000}"
    request = verify_pb2.VerifyRequest(key_string=created.key_string, consistency={"at_least": later})
    with pytest.raises(Refused) as refused:
        await operator.call(operator.keys.Verify, request)
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.value.message == "consistency.at_least is a revision that this database has not reached"
    metadata = [("authorization", f"Bearer {operator.key_string}")]
    call = KeyServiceStub(operator.channel).Verify(request, metadata=metadata)
    assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert dict(await call.trailing_metadata())["x-request-id"]


async def test_a_refusal_is_logged_once_and_its_caller_told_where(
    operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """With the request id that the caller sees. The same one again is counted, but does not fill the log."""
    caplog.set_level(logging.INFO, "keysvc.verify")
    created = await operator.create(scopes=["pdf.read"])
    metadata = [("authorization", f"Bearer {operator.key_string}")]
    for scope in ("no.scope", "no.scope", "none.either"):
        request = verify_pb2.VerifyRequest(key_string=created.key_string, required_scopes=[scope])
        call = KeyServiceStub(operator.channel).Verify(request, metadata=metadata)
        assert (await call).verdict == verify_pb2.VERDICT_INSUFFICIENT_SCOPE
        logged = [record.msg for record in caplog.records if record.name == "keysvc.verify"]
        assert len(logged) == 1
        if scope == "no.scope" and (trailers := dict(await call.trailing_metadata())):
            assert logged[0]["request_id"] == trailers["x-request-id"]
    assert (logged[0]["event"], logged[0]["verdict"]) == ("key refused", "INSUFFICIENT_SCOPE")
    assert (logged[0]["key_id"], logged[0]["workspace"]) == (created.key.id, WORKSPACE)
