"""Audit: who changed what."""

import pytest
from google.protobuf.json_format import MessageToDict

from keysvc.v1 import audit_service_pb2, key_service_pb2, workspace_service_pb2
from tests.deployment import WORKSPACE, Client, Deployment, Refused


async def events(client: Client, **fields: object) -> list[audit_service_pb2.AuditEvent]:
    """Events, newest first."""
    request = audit_service_pb2.ListAuditEventsRequest(**fields)
    return list((await client.call(client.audit.ListAuditEvents, request)).events)


async def test_every_change_is_told(deployment: Deployment) -> None:
    """Actor, method, target, what was before and after, reason, request id and revision of each change."""
    operator = await deployment.client()
    (own,) = (await operator.list(workspace="keysvc/system")).keys
    await operator.create_workspace(display_name="Sales")
    created = await operator.create(display_name="a key", scopes=["pdf.read"], reason="first integration")
    await operator.suspend(created.key.id, reason="strange traffic")
    await operator.resume(created.key.id)
    request = {"key_id": created.key.id, "secret_id": created.key.secrets[0].id, "reason": "lost"}
    await operator.call(operator.keys.Revoke, key_service_pb2.RevokeRequest(**request), x_request_id="trace-42")
    revoked = await operator.revoke(created.key.id, reason="leaked")
    await operator.revoke(created.key.id, reason="a repeat is no change")

    told = await events(operator, filter={"key_id": created.key.id})
    assert [event.method.removeprefix("keysvc.v1.KeyService/") for event in told] == [
        "Revoke",
        "Revoke",
        "Resume",
        "Suspend",
        "Create",
    ]
    by_key, by_secret, resumed, suspended, creation = told
    assert {event.actor for event in told} == {own.id}
    assert {event.workspace for event in told} == {WORKSPACE}
    assert {event.source_ip for event in told} == {"127.0.0.1"}
    assert by_key.reason == "leaked"
    assert by_key.revision == revoked.receipt.revision
    assert MessageToDict(by_key.before) == {"revocation": None}
    assert MessageToDict(by_key.after)["revocation"]["reason"] == "leaked"
    assert (by_secret.secret_id, by_secret.request_id, by_secret.reason) == (request["secret_id"], "trace-42", "lost")
    assert (MessageToDict(suspended.before), MessageToDict(suspended.after)) == (
        {"suspended": False},
        {"suspended": True},
    )
    assert (MessageToDict(resumed.before), MessageToDict(resumed.after)) == ({"suspended": True}, {"suspended": False})
    assert suspended.request_id
    assert not creation.HasField("before")
    assert creation.revision == ""
    assert MessageToDict(creation.after)["scopes"] == ["pdf.read"]
    assert creation.reason == "first integration"

    (workspace,) = await events(operator, filter={"method": "keysvc.v1.WorkspaceService/CreateWorkspace"})
    assert (workspace.key_id, workspace.workspace) == ("", WORKSPACE)
    assert MessageToDict(workspace.after)["display_name"] == "Sales"
    (bootstrap,) = await events(operator, filter={"actor": "bootstrap"})
    assert bootstrap.key_id == own.id


async def test_events_are_filtered_and_paged(deployment: Deployment) -> None:
    """Workspace and time range keep what fits; pages follow each other, newest first."""
    operator = await deployment.client()
    for name in ("a/1", "a/2", "a/3"):
        await operator.create_workspace(name)
    everything = await events(operator)
    assert [event.workspace for event in everything] == ["a/3", "a/2", "a/1", "keysvc/system"]
    assert await events(operator, workspace="a/2") == [everything[1]]
    assert await events(operator, filter={"start_time": everything[1].time}) == everything[:2]
    assert await events(operator, filter={"end_time": everything[1].time}) == everything[2:]
    request = audit_service_pb2.ListAuditEventsRequest(page_size=3)
    first = await operator.call(operator.audit.ListAuditEvents, request)
    request.page_token = first.next_page_token
    second = await operator.call(operator.audit.ListAuditEvents, request)
    assert [*first.events, *second.events] == everything
    with pytest.raises(Refused) as refused:
        await events(operator, workspace="a/2", page_token=first.next_page_token)
    assert set(refused.value.violations) == {"page_token"}


async def test_a_refused_change_leaves_no_event(deployment: Deployment) -> None:
    """There is no event without its change."""
    operator = await deployment.client()
    await operator.create_workspace()
    before = await events(operator)
    with pytest.raises(Refused):
        await operator.create_workspace()
    with pytest.raises(Refused):
        await operator.create(ttl={"seconds": -1})
    resume = workspace_service_pb2.ResumeWorkspaceRequest(name=WORKSPACE)
    await operator.call(operator.workspaces.ResumeWorkspace, resume)
    assert await events(operator) == before
