"""Update: what of a key can change."""

import asyncio

import pytest

from keysvc.v1 import key_pb2, receipt_pb2
from tests.deployment import WORKSPACE, Client, Deployment, Refused, settled


@pytest.fixture
async def operator(deployment: Deployment) -> Client:
    """An operator with one workspace."""
    operator = await deployment.client()
    await operator.create_workspace()
    return operator


async def test_every_field_changes_as_the_mask_names_it(operator: Client) -> None:
    """Named fields change, also to nothing; all others stay; Verify answers by the new ones at once."""
    created = await operator.create(
        display_name="old", owner="a", scopes=["pdf.read"], role="viewer", tags=["x"], metadata={"a": "1"}
    )
    changed = {
        "display_name": "new",
        "owner": "b",
        "scopes": ["csv.read"],
        "role": "",
        "tags": ["y"],
        "metadata": {"b": "2"},
        "ip_allowlist": ["203.0.113.0/24"],
        "expire_time": {"seconds": 4_000_000_000},
    }
    response = await operator.update(created.key.id, **changed)
    for field, value in key_pb2.Key(**changed).ListFields():
        assert getattr(response.key, field.name) == value
    assert response.key.role == ""
    assert response.receipt.state == receipt_pb2.Receipt.STATE_COMPLETE
    assert response.key.etag != created.key.etag
    answer = await operator.verify(created.key_string, source_ip="203.0.113.1", required_scopes=["csv.read"])
    assert (answer.owner, dict(answer.metadata), list(answer.scopes)) == ("b", {"b": "2"}, ["csv.read"])
    assert await operator.verdict(created.key_string) == "IP_NOT_ALLOWED"
    cleared = await operator.update(created.key.id, "ip_allowlist", "expire_time", display_name="ignored")
    assert cleared.key.display_name == "new"
    assert not cleared.key.HasField("expire_time")
    assert await operator.verdict(created.key_string) == "VALID"
    assert await operator.get(created.key.id) == cleared.key


async def test_only_what_verify_depends_on_moves_the_clock(operator: Client) -> None:
    """Display name and tags take no revision; an update that changes nothing changes nothing."""
    key_id = (await operator.create()).key.id
    named = await operator.update(key_id, display_name="x", tags=["y"])
    assert named.receipt.revision.endswith(".0")
    assert settled(await operator.update(key_id, display_name="x", tags=["y"])) == settled(named)
    assert (await operator.update(key_id, owner="z")).receipt.revision.endswith(".1")


async def test_an_old_etag_is_aborted(operator: Client) -> None:
    """Of twenty updates with one etag one succeeds."""
    key = (await operator.create()).key
    outcomes = await asyncio.gather(
        *(operator.update(key.id, owner=f"owner {n}", etag=key.etag) for n in range(20)), return_exceptions=True
    )
    refusals = [each for each in outcomes if isinstance(each, Refused)]
    assert len(refusals) == 19
    assert {each.code.name for each in refusals} == {"ABORTED"}


async def test_all_bad_fields_are_named_at_once(operator: Client) -> None:
    """Paths of the request, what depends on the workspace too; fields that cannot change are named."""
    await operator.create_workspace("acme-corp/capped", allowed_scopes=["pdf.*"], max_ttl={"seconds": 60})
    key_id = (await operator.create(workspace="acme-corp/capped")).key.id
    with pytest.raises(Refused) as refused:
        await operator.update(
            key_id,
            *("display_name", "scopes", "role", "expire_time", "ip_allowlist", "workspaces", "state"),
            scopes=["csv.read", "A"],
            role="unknown",
            ip_allowlist=["x"],
            workspaces=[WORKSPACE],
        )
    assert set(refused.value.violations) == {
        "key.display_name",
        "key.scopes[0]",
        "key.scopes[1]",
        "key.role",
        "key.expire_time",
        "key.ip_allowlist[0]",
        "key.workspaces",
        "update_mask.paths[6]",
    }
    for paths in ((), ("id",)):
        with pytest.raises(Refused) as refused:
            await operator.update("x", *paths)
        assert "key.id" in refused.value.violations
    with pytest.raises(Refused) as refused:
        await operator.update(key_id, expire_time={"seconds": 1})
    assert set(refused.value.violations) == {"key.expire_time"}


async def test_nobody_grants_by_update_what_they_do_not_hold(deployment: Deployment, operator: Client) -> None:
    """What is granted anew must be held; what was there may stay, and be taken away."""
    key_id = (await operator.create(scopes=["csv.read", "pdf.read"])).key.id
    caller = await deployment.caller("keys.write", "pdf.*")
    await caller.update(key_id, scopes=["csv.read", "pdf.*"])
    for change in ({"scopes": ["csv.*"]}, {"role": "admin"}):
        with pytest.raises(Refused) as refused:
            await caller.update(key_id, **change)
        assert refused.value.code.name == "PERMISSION_DENIED"
    await caller.update(key_id, "scopes")


async def test_a_revoked_key_stays_as_it_is(operator: Client) -> None:
    """REVOKED is terminal for Update, Rotate and CancelRotation too."""
    key_id = (await operator.create()).key.id
    await operator.revoke(key_id)
    for attempt in (operator.update(key_id, owner="x"), operator.rotate(key_id)):
        with pytest.raises(Refused) as refused:
            await attempt
        assert refused.value.code.name == "FAILED_PRECONDITION"


async def test_the_last_operator_cannot_be_made_less(deployment: Deployment, operator: Client) -> None:
    """Its scopes, workspaces and addresses... whatever would leave nobody who can administer keysvc is refused."""
    (own,) = (await operator.list(workspace="keysvc/system")).keys
    for change in ({"scopes": ["verify"]}, {"workspaces": [WORKSPACE]}):
        with pytest.raises(Refused) as refused:
            await operator.update(own.id, **change)
        assert refused.value.code.name == "FAILED_PRECONDITION"
    caller = await deployment.caller("keys.write")
    with pytest.raises(Refused) as refused:
        await caller.update(own.id, owner="me")
    assert refused.value.code.name == "PERMISSION_DENIED"
