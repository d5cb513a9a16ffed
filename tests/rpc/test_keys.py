"""Keys: lists, states, repeats, limits."""

import asyncio
from collections import Counter

import pytest

from keysvc.v1 import key_pb2, usage_service_pb2, workspace_service_pb2
from tests.deployment import WORKSPACE, Client, Deployment, Refused, request_id, settled


@pytest.fixture
async def operator(deployment: Deployment) -> Client:
    """An operator with one workspace."""
    operator = await deployment.client()
    await operator.create_workspace()
    return operator


async def test_pages_are_stable(operator: Client) -> None:
    """Following pages shows each key once, newest first, also while others are created and revoked."""
    made = [(await operator.create(display_name=f"key {n}")).key.id for n in range(7)]
    seen: list[str] = []
    token = ""
    while True:
        page = await operator.list(workspace=WORKSPACE, page_size=3, page_token=token)
        assert len(page.keys) <= 3
        seen += [key.id for key in page.keys]
        if not (token := page.next_page_token):
            break
        await operator.create(display_name="a newer one")
        await operator.revoke(seen[0])
    assert seen == made[::-1]


async def test_a_page_token_is_good_for_its_list_alone(deployment: Deployment, operator: Client) -> None:
    """Another filter, workspace, method or caller, a changed or an invented token: INVALID_ARGUMENT."""
    for _ in range(3):
        await operator.create()
    token = (await operator.list(workspace=WORKSPACE, page_size=1)).next_page_token
    assert len((await operator.list(workspace=WORKSPACE, page_size=2, page_token=token)).keys) == 2
    other = await deployment.caller("keys.read")
    for client, fields in [
        (operator, {"workspace": WORKSPACE, "owner": "x", "page_token": token}),
        (operator, {"page_token": token}),
        (other, {"workspace": WORKSPACE, "page_token": token}),
        (operator, {"workspace": WORKSPACE, "page_token": token[:-2]}),
        (operator, {"workspace": WORKSPACE, "page_token": "AAAA"}),
        (operator, {"workspace": WORKSPACE, "page_token": "é"}),
    ]:
        with pytest.raises(Refused) as refused:
            await client.list(**fields)
        assert set(refused.value.violations) == {"page_token"}


async def test_filters_find_what_they_name(operator: Client) -> None:
    """Every filter that is built keeps exactly the keys that fit it, alone and together."""
    plain = (await operator.create(display_name="plain")).key
    test = (await operator.create(display_name="a_test", environment=key_pb2.ENVIRONMENT_TEST)).key
    owned = (await operator.create(display_name="owned", owner="team-a", tags=["x", "y"])).key
    viewer = (await operator.create(display_name="viewer", role="viewer", ttl={"seconds": 60})).key
    gone = (await operator.create(display_name="100%")).key
    await operator.revoke(gone.id)
    await operator.suspend(owned.id)

    async def found(**conditions: object) -> set[str]:
        keys = (await operator.list(workspace=WORKSPACE, **conditions)).keys
        return {key.display_name for key in keys}

    assert await found() == {"plain", "a_test", "owned", "viewer", "100%"}
    assert await found(state=key_pb2.Key.STATE_ACTIVE) == {"plain", "a_test", "viewer"}
    assert await found(state=key_pb2.Key.STATE_REVOKED) == {"100%"}
    assert await found(state=key_pb2.Key.STATE_SUSPENDED) == {"owned"}
    assert await found(state=key_pb2.Key.STATE_EXPIRED) == set()
    assert await found(state=key_pb2.Key.STATE_REVOKING) == set()
    assert await found(environment=key_pb2.ENVIRONMENT_TEST) == {"a_test"}
    assert await found(owner="team-a") == {"owned"}
    assert await found(tag="y") == {"owned"}
    assert await found(role="viewer") == {"viewer"}
    assert await found(hint_prefix=plain.secrets[0].hint) == {"plain"}
    assert await found(hint_prefix=test.secrets[0].hint[:11]) == {"a_test"}
    assert await found(display_name_prefix="a_") == {"a_test"}
    assert await found(display_name_prefix="100%") == {"100%"}
    assert await found(expire_before=viewer.expire_time) == set()
    assert await found(expire_before={"seconds": viewer.expire_time.seconds + 1}) == {"viewer"}
    assert await found(owner="team-a", state=key_pb2.Key.STATE_ACTIVE) == set()


async def test_revoke_is_safe_to_repeat(operator: Client) -> None:
    """A second Revoke changes nothing: same time, reason and revision."""
    created = await operator.create()
    first = await operator.revoke(created.key.id, reason="leaked")
    second = await operator.revoke(created.key.id, reason="again")
    assert second.key == first.key
    assert second.receipt.revision == first.receipt.revision
    assert second.key.revocation.reason == "leaked"


async def test_twenty_revokes_at_once_make_one_revocation(operator: Client) -> None:
    """Concurrent repeats all succeed with the same revision."""
    created = await operator.create()
    answers = await asyncio.gather(*(operator.revoke(created.key.id) for _ in range(20)))
    assert len({answer.receipt.revision for answer in answers}) == 1


async def test_suspend_and_resume_are_safe_to_repeat(operator: Client) -> None:
    """A repeat answers the same and changes nothing."""
    created = await operator.create()
    first, second = await operator.suspend(created.key.id), await operator.suspend(created.key.id)
    assert settled(first) == settled(second)
    assert (await operator.resume(created.key.id)).receipt.revision > first.receipt.revision
    third = await operator.resume(created.key.id)
    assert settled(third) == settled(await operator.resume(created.key.id))


async def test_revocation_is_for_ever(operator: Client) -> None:
    """Suspend and Resume of a revoked key are FAILED_PRECONDITION."""
    created = await operator.create()
    await operator.revoke(created.key.id)
    for change in (operator.suspend, operator.resume):
        with pytest.raises(Refused) as refused:
            await change(created.key.id)
        assert refused.value.code.name == "FAILED_PRECONDITION"
        assert refused.value.metadata == {"key_id": created.key.id}


async def test_a_suspended_key_can_be_revoked(operator: Client) -> None:
    """Revocation works in every state."""
    created = await operator.create()
    await operator.suspend(created.key.id)
    await operator.revoke(created.key.id)
    assert await operator.verdict(created.key_string) == "REVOKED"


async def test_what_does_not_exist_is_not_found(operator: Client) -> None:
    """Unknown keys, secrets of other keys and unknown workspaces are NOT_FOUND."""
    first, second = await operator.create(), await operator.create()
    nobody = request_id()
    for attempt in (
        operator.get(nobody),
        operator.suspend(nobody),
        operator.revoke(nobody),
        operator.revoke(first.key.id, secret_id=second.key.secrets[0].id),
        operator.list(workspace="no/such"),
        operator.create(workspace="no/such"),
    ):
        with pytest.raises(Refused) as refused:
            await attempt
        assert refused.value.code.name == "NOT_FOUND"


async def test_fifty_creates_at_once_do_not_exceed_the_limit(operator: Client) -> None:
    """A workspace with room for ten keys gets ten, however many ask at once; a revoked key makes room."""
    await operator.create_workspace("acme-corp/small", key_limit=10)
    outcomes = await asyncio.gather(
        *(operator.create(workspace="acme-corp/small") for _ in range(50)), return_exceptions=True
    )
    counts = Counter(each.code.name if isinstance(each, Refused) else type(each).__name__ for each in outcomes)
    assert counts == {"CreateResponse": 10, "RESOURCE_EXHAUSTED": 40}
    refusals = [each for each in outcomes if isinstance(each, Refused)]
    assert refusals[0].metadata == {"workspace": "acme-corp/small", "key_limit": "10"}
    keys = (await operator.list(workspace="acme-corp/small")).keys
    assert len(keys) == 10
    await operator.revoke(keys[0].id)
    await operator.create(workspace="acme-corp/small")
    with pytest.raises(Refused):
        await operator.create(workspace="acme-corp/small")


async def test_expiry_follows_the_workspace(operator: Client) -> None:
    """Without expiry the default applies; beyond the maximum is refused; the past is refused; both limits are exact."""
    await operator.create_workspace("acme-corp/short", default_ttl={"seconds": 60}, max_ttl={"seconds": 3600})
    await operator.create_workspace("acme-corp/longest", max_ttl={"seconds": 3600})

    async def lifetime(workspace: str, **fields: object) -> int:
        key = (await operator.create(workspace=workspace, **fields)).key
        return key.expire_time.seconds - key.create_time.seconds

    assert await lifetime("acme-corp/short") == 60
    assert await lifetime("acme-corp/longest") == 3600
    assert await lifetime("acme-corp/short", ttl={"seconds": 3600}) == 3600
    assert not (await operator.create()).key.HasField("expire_time")
    await operator.create_workspace("acme-corp/ever", max_ttl={"seconds": 36_500 * 86_400})
    assert await lifetime("acme-corp/ever") == 36_500 * 86_400
    for fields, field in [
        ({"workspace": "acme-corp/short", "ttl": {"seconds": 3600, "nanos": 1_000_000}}, "ttl"),
        ({"workspace": "acme-corp/short", "expire_time": {"seconds": 4_000_000_000}}, "expire_time"),
        ({"expire_time": {"seconds": 1_000_000_000}}, "expire_time"),
        ({"expire_time": {"seconds": -62_135_596_801}}, "expire_time"),
        ({"expire_time": {"seconds": 253_402_300_800}}, "expire_time"),
        ({"ttl": {"seconds": 0}}, "ttl"),
        ({"ttl": {"seconds": -1}}, "ttl"),
        ({"ttl": {"seconds": 315_576_000_000}}, "ttl"),
    ]:
        with pytest.raises(Refused) as refused:
            await operator.create(**fields)
        assert set(refused.value.violations) == {field}


async def test_what_is_not_built_says_so(operator: Client) -> None:
    """RPCs, filters and settings that come later are UNIMPLEMENTED, never silently ignored."""
    for attempt in (
        operator.call(operator.usage.ListAnomalies, usage_service_pb2.ListAnomaliesRequest()),
        operator.call(operator.usage.QueryUsage, usage_service_pb2.QueryUsageRequest(start_time={"seconds": 1})),
        operator.call(operator.usage.QueryUsage, usage_service_pb2.QueryUsageRequest(groups=[1, 5])),
        operator.list(rotation_overdue=True),
        operator.create_workspace("acme-corp/policy", rotation_policy={}),
        operator.call(
            operator.workspaces.UpdateWorkspace,
            workspace_service_pb2.UpdateWorkspaceRequest(
                workspace={"name": WORKSPACE}, update_mask={"paths": ["rotation_policy"]}
            ),
        ),
    ):
        with pytest.raises(Refused) as refused:
            await attempt
        assert refused.value.code.name == "UNIMPLEMENTED"
        assert "not built yet" in refused.value.message


async def test_a_page_of_large_keys_fits_into_an_answer(operator: Client) -> None:
    """Keys with 4 KiB of metadata come in shorter pages, that gRPC clients accept as they are, and all of them come."""
    await asyncio.gather(*(operator.create(metadata={"x": "y" * 4090}) for _ in range(300)))
    seen: list[str] = []
    page = await operator.list(workspace=WORKSPACE, page_size=1000)
    while page.next_page_token:
        seen += [key.id for key in page.keys]
        page = await operator.list(workspace=WORKSPACE, page_size=1000, page_token=page.next_page_token)
    assert len(seen) < 300
    seen += [key.id for key in page.keys]
    assert len(seen) == len(set(seen)) == 300
