"""RenewLease and memos, as the contract has them."""

import asyncio
import time
from typing import Any

import grpc
import pytest

from keysvc.v1 import key_service_pb2, receipt_pb2, verify_pb2
from tests.deployment import WORKSPACE, Client, Deployment, Refused, eventually


@pytest.fixture
async def operator(deployment: Deployment) -> Client:
    """An operator with one workspace."""
    operator = await deployment.client()
    await operator.create_workspace()
    return operator


async def renew(client: Client, **fields: Any) -> key_service_pb2.RenewLeaseResponse:
    """Renew a lease."""
    request = key_service_pb2.RenewLeaseRequest(**{"session_id": "a", **fields})
    answer: key_service_pb2.RenewLeaseResponse = await client.call(client.keys.RenewLease, request)
    return answer


def place(answer: key_service_pb2.RenewLeaseResponse) -> dict[str, str]:
    """Up to where whoever got this answer has applied changes."""
    return {"epoch": answer.epoch, "applied": answer.revision}


async def memo(client: Client, key_string: str, **fields: Any) -> verify_pb2.Memo | None:
    """What a Verify says for whoever wants to remember its answer."""
    answer = await client.verify(key_string, memo=True, **fields)
    return answer.memo if answer.HasField("memo") else None


async def test_a_lease_says_until_when_and_what_has_changed(operator: Client) -> None:
    """The first answer has everything forgotten, later ones name what changed, once."""
    created = await operator.create()
    first = await renew(operator)
    assert 0 < first.ttl.ToMilliseconds() <= 2500, "3 s on any clock"
    assert first.flush
    assert not first.HasField("stale_ttl")
    second = await renew(operator, **place(first))
    assert (second.flush, list(second.changed_ids)) == (False, [])
    assert abs(second.database_time.ToNanoseconds() / 1e9 - time.time()) < 60, "an estimate, on the same machine"
    known = await memo(operator, created.key_string)
    assert known is not None
    receipt = asyncio.create_task(operator.revoke(created.key.id))

    async def is_told() -> bool:
        return bool((await renew(operator, **place(second))).changed_ids)

    await eventually(is_told)
    third = await renew(operator, **place(second))
    assert set(third.changed_ids) & set(known.subject_ids)
    assert third.revision.endswith(".1")
    assert not receipt.done(), "the client has been told, and has not said that it has applied it"
    fourth = await renew(operator, **place(third))
    assert (fourth.flush, list(fourth.changed_ids)) == (False, [])
    assert (await receipt).receipt.path == receipt_pb2.Receipt.PATH_ACK


async def test_a_session_that_is_closed_holds_up_nothing(operator: Client) -> None:
    """And the answer grants nothing."""
    key_id = (await operator.create()).key.id
    await renew(operator)
    closed = await renew(operator, close=True)
    assert not closed.HasField("ttl")
    assert (await operator.revoke(key_id)).receipt.path == receipt_pb2.Receipt.PATH_ACK


async def test_a_client_that_vanishes_is_waited_for(operator: Client) -> None:
    """Until its lease has ended; and the receipt does not say who that was, since no member was late."""
    key_id = (await operator.create()).key.id
    await renew(operator)
    receipt = (await operator.revoke(key_id)).receipt
    assert receipt.state == receipt_pb2.Receipt.STATE_COMPLETE
    assert receipt.waited.ToMilliseconds() > 500


async def test_bad_renewals_are_told(operator: Client) -> None:
    """Each field with what is allowed."""
    epoch = (await renew(operator)).epoch
    for fields, bad in (
        ({"session_id": ""}, {"session_id"}),
        ({"session_id": "a" * 129}, {"session_id"}),
        ({"epoch": "nonsense"}, {"epoch", "applied"}),
        ({"epoch": epoch}, {"applied"}),
        ({"applied": f"{epoch.partition('.')[0]}.1"}, {"epoch"}),
        ({"epoch": epoch, "applied": f"{'0' * 32}.1"}, {"applied"}),
        ({"epoch": f"{epoch}9", "applied": f"{epoch.partition('.')[0]}.1"}, {"epoch"}),
        ({"epoch": epoch, "applied": f"{epoch.partition('.')[0]}.{2**63}"}, {"applied"}),
    ):
        with pytest.raises(Refused) as refused:
            await renew(operator, **fields)
        assert set(refused.value.violations) == bad, fields
    odd = await renew(operator, session_id="s", epoch=f"{epoch[:-1]}F", applied=f"{epoch.partition('.')[0]}.0")
    assert odd.flush, "another timeline"


async def test_leases_need_the_permission_to_verify(operator: Client, deployment: Deployment) -> None:
    """For both calls."""
    reader = await operator.create(workspace="keysvc/system", scopes=["keys.read"])
    client = await deployment.client(reader.key_string)
    with pytest.raises(Refused):
        await renew(client)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await anext(aiter(watch(client)))
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


def watch(client: Client) -> Any:
    """The stream of wake-ups."""
    metadata = [("authorization", f"Bearer {client.key_string}")]
    return client.keys.WatchWakeUps(key_service_pb2.WatchWakeUpsRequest(session_id="a"), metadata=metadata)


async def test_wake_ups_bring_changes(operator: Client) -> None:
    """All since what the client has said that it has applied; before it has said anything, that it should renew."""
    created = await operator.create()
    known = await memo(operator, created.key_string)
    other = (await operator.create()).key.id
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await anext(aiter(watch(operator)))
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    first = await renew(operator)
    earlier = aiter(watch(operator))
    assert not (await anext(earlier)).epoch
    stream = aiter(watch(operator))
    assert not (await anext(stream)).epoch
    with pytest.raises(StopAsyncIteration):
        await anext(earlier)
    await renew(operator, **place(first))
    changing = asyncio.create_task(operator.suspend(created.key.id))
    told = await anext(stream)
    assert (told.epoch, told.after) == (first.epoch, first.revision)
    assert known is not None
    assert set(told.changed_ids) & set(known.subject_ids)
    second = await renew(operator, epoch=told.epoch, applied=told.revision)
    assert (second.revision, second.flush, list(second.changed_ids)) == (told.revision, False, [])
    await changing
    again = asyncio.create_task(operator.suspend(other))
    assert (await anext(stream)).after == second.revision
    await renew(operator, close=True)
    await again


@pytest.mark.parametrize("known", [False, True], ids=["looked up", "remembered"])
async def test_a_memo_names_what_the_answer_depends_on(operator: Client, known: bool) -> None:
    """Key, workspace and caller; the same ids whoever is told them."""
    created = await operator.create(ttl={"seconds": 600})
    other = await operator.create(ip_allowlist=["192.0.2.1"])
    if known:
        for each in (created, other):
            await operator.verify(each.key_string)
    first = await memo(operator, created.key_string, required_scopes=["pdf.read"])
    second = await memo(operator, other.key_string, source_ip="192.0.2.1")
    assert first is not None
    assert second is not None
    assert first.epoch == second.epoch == (await renew(operator, close=False)).epoch
    assert len(set(first.subject_ids)) == len(set(second.subject_ids)) == 3
    assert len(set(first.subject_ids) & set(second.subject_ids)) == 2
    assert (first.for_address, second.for_address) == (False, True)
    assert first.end_time == created.key.expire_time
    assert not second.HasField("end_time")
    assert created.key.id not in str(first)


async def test_not_everything_may_be_remembered(operator: Client) -> None:
    """Not what proves no secret, nor what nobody has asked a memo for."""
    created = await operator.create()
    for text in ("nonsense", created.key_string[:-1] + ("a" if created.key_string[-1] != "a" else "b")):
        assert await memo(operator, text) is None
    assert not (await operator.verify(created.key_string)).HasField("memo")
    batch = verify_pb2.VerifyBatchRequest(
        requests=[{"key_string": created.key_string, "memo": True}, {"key_string": created.key_string}]
    )
    answers = (await operator.call(operator.keys.VerifyBatch, batch)).responses
    assert [each.HasField("memo") for each in answers] == [True, False]
    assert all(each.workspace == WORKSPACE for each in answers)
