"""Workspaces: created, listed, changed, suspended."""

import asyncio

import pytest

from keysvc.v1 import audit_service_pb2, receipt_pb2, workspace_service_pb2
from tests.deployment import WORKSPACE, Client, Deployment, Refused, settled

Workspace = workspace_service_pb2.Workspace


@pytest.fixture
async def operator(deployment: Deployment) -> Client:
    """An operator."""
    return await deployment.client()


async def get(client: Client, name: str = WORKSPACE) -> Workspace:
    """Get a workspace."""
    return (
        await client.call(client.workspaces.GetWorkspace, workspace_service_pb2.GetWorkspaceRequest(name=name))
    ).workspace


async def update(client: Client, *paths: str, **fields: object) -> workspace_service_pb2.UpdateWorkspaceResponse:
    """Update a workspace."""
    request = workspace_service_pb2.UpdateWorkspaceRequest(
        workspace=Workspace(name=WORKSPACE, **fields), update_mask={"paths": paths or list(fields)}
    )
    return await client.call(client.workspaces.UpdateWorkspace, request)


async def test_a_workspace_is_what_was_asked_for(operator: Client) -> None:
    """All settable fields come back, from Create, Get and List."""
    asked = {
        "display_name": "Sales",
        "allowed_scopes": ["pdf.*", "*.read"],
        "roles": [{"name": "clerk", "scopes": ["pdf.read"]}],
        "default_ttl": {"seconds": 60},
        "max_ttl": {"seconds": 3600},
        "key_limit": 0,
    }
    created = await operator.create_workspace(**asked)
    for field, value in Workspace(**asked).ListFields():
        assert getattr(created, field.name) == value
    assert created.HasField("key_limit")
    assert created.state == Workspace.STATE_ACTIVE
    assert created == await get(operator)
    listed = await operator.call(
        operator.workspaces.ListWorkspaces, workspace_service_pb2.ListWorkspacesRequest(organization="acme-corp")
    )
    assert list(listed.workspaces) == [created]


async def test_a_name_is_taken_once(operator: Client) -> None:
    """Of twenty concurrent creations of one name one succeeds, the others are ALREADY_EXISTS."""
    outcomes = await asyncio.gather(*(operator.create_workspace() for _ in range(20)), return_exceptions=True)
    refusals = [each for each in outcomes if isinstance(each, Refused)]
    assert len(refusals) == 19
    assert {each.code.name for each in refusals} == {"ALREADY_EXISTS"}


async def test_workspaces_are_listed_by_name_in_stable_pages(operator: Client) -> None:
    """Pages follow each other by name; a workspace made behind the page's end turns up, one before it does not."""
    for name in ("b/1", "b/2", "b/3", "b-c/1"):
        await operator.create_workspace(name)
    request = workspace_service_pb2.ListWorkspacesRequest(page_size=2, organization="b")
    first = await operator.call(operator.workspaces.ListWorkspaces, request)
    await operator.create_workspace("b/0")
    await operator.create_workspace("b/4")
    request.page_token = first.next_page_token
    second = await operator.call(operator.workspaces.ListWorkspaces, request)
    names = [workspace.name for page in (first, second) for workspace in page.workspaces]
    assert names == ["b/1", "b/2", "b/3", "b/4"]
    assert not second.next_page_token


async def test_update_changes_what_the_mask_names(operator: Client) -> None:
    """Named fields change, also to nothing; all others stay; the etag changes; the receipt is complete."""
    before = await operator.create_workspace(display_name="Sales", allowed_scopes=["pdf.*"], key_limit=3)
    response = await update(operator, "allowed_scopes", display_name="ignored", allowed_scopes=["csv.*"])
    after = response.workspace
    assert (after.display_name, list(after.allowed_scopes), after.key_limit) == ("Sales", ["csv.*"], 3)
    assert after.etag != before.etag
    assert response.receipt.state == receipt_pb2.Receipt.STATE_COMPLETE
    assert response.receipt.path == receipt_pb2.Receipt.PATH_ACK
    cleared = (await update(operator, "allowed_scopes", "key_limit", "display_name")).workspace
    assert (cleared.display_name, list(cleared.allowed_scopes), cleared.HasField("key_limit")) == ("", [], False)
    assert await get(operator) == cleared


async def test_an_old_etag_is_aborted(operator: Client) -> None:
    """Of twenty updates with one etag one succeeds; a repeat of it is ABORTED."""
    etag = (await operator.create_workspace()).etag
    outcomes = await asyncio.gather(
        *(update(operator, "display_name", display_name=f"name {n}", etag=etag) for n in range(20)),
        return_exceptions=True,
    )
    refusals = [each for each in outcomes if isinstance(each, Refused)]
    assert len(refusals) == 19
    assert {each.code.name for each in refusals} == {"ABORTED"}


async def test_only_what_verify_depends_on_moves_the_clock(operator: Client) -> None:
    """A display name or limit takes no revision; allowed scopes, roles and suspension do."""
    await operator.create_workspace()
    first = await update(operator, display_name="x", key_limit=5)
    assert first.receipt.revision.endswith(".0")
    second = await update(operator, allowed_scopes=["pdf.*"])
    assert second.receipt.revision.endswith(".1")
    suspend = workspace_service_pb2.SuspendWorkspaceRequest(name=WORKSPACE)
    third = await operator.call(operator.workspaces.SuspendWorkspace, suspend)
    assert third.receipt.revision.endswith(".2")
    assert settled(third) == settled(await operator.call(operator.workspaces.SuspendWorkspace, suspend))
    assert third.workspace.state == Workspace.STATE_SUSPENDED


async def test_lifetimes_must_fit_each_other(operator: Client) -> None:
    """A default beyond the maximum is refused, in Create and in Update of either."""
    with pytest.raises(Refused) as refused:
        await operator.create_workspace(default_ttl={"seconds": 61}, max_ttl={"seconds": 60})
    assert set(refused.value.violations) == {"workspace.default_ttl"}
    await operator.create_workspace(default_ttl={"seconds": 60}, max_ttl={"seconds": 60})
    with pytest.raises(Refused) as refused:
        await update(operator, max_ttl={"seconds": 59})
    assert set(refused.value.violations) == {"workspace.default_ttl"}


async def test_lifetimes_that_do_not_fit_are_named_with_the_rest(operator: Client) -> None:
    """What depends on several fields, given now or before, is told together with what is bad by itself."""
    with pytest.raises(Refused) as refused:
        await operator.create_workspace(default_ttl={"seconds": 61}, max_ttl={"seconds": 60}, key_limit=-1)
    assert set(refused.value.violations) == {"workspace.default_ttl", "workspace.key_limit"}
    await operator.create_workspace(default_ttl={"seconds": 60})
    with pytest.raises(Refused) as refused:
        await update(operator, max_ttl={"seconds": 59}, key_limit=-1)
    assert set(refused.value.violations) == {"workspace.default_ttl", "workspace.key_limit"}


async def test_a_role_of_the_workspace_is_used(operator: Client) -> None:
    """Keys may have roles of their workspace; a role that is gone grants nothing; an unknown one is refused."""
    await operator.create_workspace(roles=[{"name": "clerk", "scopes": ["pdf.read"]}])
    created = await operator.create(role="clerk")
    assert await operator.verdict(created.key_string, required_scopes=["pdf.read"]) == "VALID"
    await update(operator, "roles")
    assert await operator.verdict(created.key_string, required_scopes=["pdf.read"]) == "INSUFFICIENT_SCOPE"
    with pytest.raises(Refused) as refused:
        await operator.create(role="clerk")
    assert set(refused.value.violations) == {"role"}


async def test_pages_of_large_workspaces_fit_into_an_answer(operator: Client) -> None:
    """Workspaces with 10 000 long scopes, and the audit events of their creation, come in pages that clients accept."""
    roles = [{"name": f"r{n}", "scopes": [f"{m}.{'x' * 60}" for m in range(100)]} for n in range(100)]
    names = [f"acme-corp/w{n}" for n in range(8)]
    for name in names:
        await operator.create_workspace(name, roles=roles)

    listed: list[str] = []
    request = workspace_service_pb2.ListWorkspacesRequest(page_size=1000, organization="acme-corp")
    while True:
        page = await operator.call(operator.workspaces.ListWorkspaces, request)
        listed += [workspace.name for workspace in page.workspaces]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert listed == names

    told: list[str] = []
    events = audit_service_pb2.ListAuditEventsRequest(page_size=1000)
    events.filter.method = "keysvc.v1.WorkspaceService/CreateWorkspace"
    while True:
        answer = await operator.call(operator.audit.ListAuditEvents, events)
        told += [event.workspace for event in answer.events]
        if not answer.next_page_token:
            break
        events.page_token = answer.next_page_token
    assert told == names[::-1]
