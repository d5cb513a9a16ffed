"""Rotate: a second secret takes over without a moment in which neither works."""

import asyncio

import pytest

from keysvc.v1 import audit_service_pb2, key_pb2, key_service_pb2, verify_pb2
from tests.deployment import Client, Deployment, Refused, settled

DAY = 86_400


@pytest.fixture
async def operator(deployment: Deployment) -> Client:
    """An operator with one workspace."""
    operator = await deployment.client()
    await operator.create_workspace()
    return operator


async def test_both_secrets_work_during_the_overlap(operator: Client) -> None:
    """The key stays the same key; Verify tells the old secret's end; the new one has none."""
    created = await operator.create(scopes=["pdf.read"])
    rotated = await operator.rotate(created.key.id)
    old, new = rotated.key.secrets
    assert rotated.key.id == created.key.id
    assert old.id == created.key.secrets[0].id
    assert old.retire_time.seconds - new.create_time.seconds == DAY
    assert not new.HasField("retire_time")
    first, second = await operator.verify(created.key_string), await operator.verify(rotated.key_string)
    assert (first.verdict, second.verdict) == (verify_pb2.VERDICT_VALID, verify_pb2.VERDICT_VALID)
    assert (first.secret_id, second.secret_id) == (old.id, new.id)
    assert first.retire_time == old.retire_time
    assert not second.HasField("retire_time")
    assert first.revision == rotated.receipt.revision
    assert await operator.get(created.key.id) == rotated.key
    (event, _) = (
        await operator.call(
            operator.audit.ListAuditEvents,
            audit_service_pb2.ListAuditEventsRequest(filter={"key_id": created.key.id}),
        )
    ).events
    assert event.secret_id == new.id


async def test_without_overlap_the_old_secret_ends_at_once(operator: Client) -> None:
    """An overlap of 0 is allowed, one of 30 days too; more and less are not."""
    created = await operator.create()
    rotated = await operator.rotate(created.key.id, overlap={})
    assert await operator.verdict(created.key_string) == "EXPIRED"
    assert await operator.verdict(rotated.key_string) == "VALID"
    assert rotated.key.secrets[0].state == key_pb2.Key.STATE_EXPIRED
    for overlap in ({"seconds": -1}, {"seconds": 30 * DAY, "nanos": 1}, {"nanos": -1}, {"seconds": 10**12}):
        with pytest.raises(Refused) as refused:
            await operator.rotate(created.key.id, overlap=overlap)
        assert set(refused.value.violations) == {"overlap"}
    await operator.rotate(created.key.id, overlap={"seconds": 30 * DAY})


async def test_a_third_living_secret_is_refused(operator: Client) -> None:
    """Of ten concurrent rotations one succeeds; when a secret has gone the next one may come."""
    created = await operator.create()
    outcomes = await asyncio.gather(*(operator.rotate(created.key.id) for _ in range(10)), return_exceptions=True)
    refusals = [each for each in outcomes if isinstance(each, Refused)]
    assert len(refusals) == 9
    assert {each.code.name for each in refusals} == {"FAILED_PRECONDITION"}
    old = created.key.secrets[0]
    await operator.revoke(created.key.id, secret_id=old.id)
    assert await operator.verdict(created.key_string) == "REVOKED"
    await operator.rotate(created.key.id)


async def test_an_earlier_end_is_never_extended(operator: Client) -> None:
    """The key's expiry stays; an old secret that is to retire sooner still does."""
    created = await operator.create(ttl={"seconds": 3600})
    rotated = await operator.rotate(created.key.id, overlap={"seconds": 10 * DAY})
    assert rotated.key.expire_time == created.key.expire_time
    cancelled = (await cancel(operator, created.key.id)).key
    assert not cancelled.secrets[0].HasField("retire_time")


async def cancel(operator: Client, key_id: str) -> key_service_pb2.CancelRotationResponse:
    """Cancel a rotation."""
    return await operator.call(operator.keys.CancelRotation, key_service_pb2.CancelRotationRequest(key_id=key_id))


async def test_a_rotation_is_cancelled(operator: Client) -> None:
    """The new secret is revoked, the old one lives on; a repeat changes nothing."""
    created = await operator.create()
    rotated = await operator.rotate(created.key.id)
    cancelled = await cancel(operator, created.key.id)
    assert await operator.verdict(rotated.key_string) == "REVOKED"
    assert await operator.verdict(created.key_string) == "VALID"
    assert [secret.state for secret in cancelled.key.secrets] == [
        key_pb2.Key.STATE_ACTIVE,
        key_pb2.Key.STATE_REVOKED,
    ]
    assert settled(await cancel(operator, created.key.id)) == settled(cancelled)
    await operator.rotate(created.key.id)


async def test_a_key_without_living_secrets_gets_one(operator: Client) -> None:
    """Rotate is the way back for a key whose last secret was revoked, suspended keys included."""
    created = await operator.create()
    await operator.revoke(created.key.id, secret_id=created.key.secrets[0].id)
    await operator.suspend(created.key.id)
    rotated = await operator.rotate(created.key.id)
    assert await operator.verdict(rotated.key_string) == "SUSPENDED"
    await operator.resume(created.key.id)
    assert await operator.verdict(rotated.key_string) == "VALID"
    assert await operator.verdict(created.key_string) == "REVOKED"


async def test_nobody_rotates_what_they_do_not_hold(deployment: Deployment, operator: Client) -> None:
    """Rotating hands out a key string, and with it all that the key grants."""
    key_id = (await operator.create(scopes=["csv.read"])).key.id
    caller = await deployment.caller("keys.write", "pdf.*")
    with pytest.raises(Refused) as refused:
        await caller.rotate(key_id)
    assert refused.value.code.name == "PERMISSION_DENIED"
    holder = await deployment.caller("keys.write", "csv.*")
    await holder.rotate(key_id)


async def test_a_cancelled_rotation_brings_back_the_end_that_was(operator: Client) -> None:
    """Going back never extends an end that an earlier rotation had set."""
    created = await operator.create()
    first = await operator.rotate(created.key.id, overlap={"seconds": 3600})
    await operator.revoke(created.key.id, secret_id=first.key.secrets[1].id)
    end = first.key.secrets[0].retire_time
    again = await operator.rotate(created.key.id, overlap={"seconds": 60})
    assert again.key.secrets[0].retire_time.ToDatetime() < end.ToDatetime()
    request = key_service_pb2.CancelRotationRequest(key_id=created.key.id)
    cancelled = (await operator.call(operator.keys.CancelRotation, request)).key
    assert cancelled.secrets[0].retire_time == end
    assert await operator.verdict(created.key_string) == "VALID"
    assert await operator.verdict(again.key_string) == "REVOKED"
