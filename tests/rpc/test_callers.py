"""Callers: who may call what, and what they can see and grant."""

import asyncio

import grpc
import psycopg
import pytest
from google.protobuf.message_factory import GetMessageClass

from keysvc.app import bootstrap
from keysvc.core.page import PageTokens
from keysvc.rpc.permissions import PERMISSIONS
from keysvc.rpc.server import CONTRACT
from keysvc.service.reading import Reading
from keysvc.store.database import Database
from keysvc.store.listings import Listings
from keysvc.store.usage_totals import UsageTotals
from keysvc.v1 import audit_service_pb2, key_pb2, key_service_pb2, workspace_service_pb2
from tests.deployment import WORKSPACE, Client, Deployment, Refused

METHODS = [(service, method) for service in CONTRACT for method in service.methods]
UNARY = [(service, method) for service, method in METHODS if not method.server_streaming]


def stub_method(client: Client, service: str, method: str) -> object:
    """A method of one of a client's stubs."""
    stub = {
        "KeyService": client.keys,
        "WorkspaceService": client.workspaces,
        "UsageService": client.usage,
        "AuditService": client.audit,
    }[service]
    return getattr(stub, method)


async def attempt(client: Client, service: str, method: object) -> str:
    """Call a method with an empty request; the status."""
    try:
        await client.call(stub_method(client, service, method.name), GetMessageClass(method.input_type)())
    except Refused as refused:
        return refused.code.name
    return "OK"


async def test_every_method_needs_a_caller(deployment: Deployment) -> None:
    """Without a valid caller's key every method is UNAUTHENTICATED, always in the same words."""
    operator = await deployment.client()
    await operator.create_workspace()
    foreign = (await operator.create(scopes=["*"])).key_string
    revoked = await operator.create(workspace="keysvc/system", scopes=["operator"])
    await operator.revoke(revoked.key.id)
    texts = set()
    for key_string in (None, "nonsense", "sk_live_1" + "a" * 64, foreign, revoked.key_string):
        client = await deployment.client(key_string, anonymous=key_string is None)
        for service, method in UNARY:
            with pytest.raises(Refused) as refused:
                await client.call(stub_method(client, service.name, method.name), GetMessageClass(method.input_type)())
            assert refused.value.code.name == "UNAUTHENTICATED"
            texts.add(refused.value.message)
    assert len(texts) == 1


async def test_every_method_needs_its_permission(deployment: Deployment) -> None:
    """A caller with all permissions but the one that a method names gets PERMISSION_DENIED; with it alone it passes."""
    others = {
        permission: await deployment.caller(*(set(PERMISSIONS.values()) - {permission}))
        for permission in set(PERMISSIONS.values())
    }
    only = {permission: await deployment.caller(permission) for permission in set(PERMISSIONS.values())}
    for service, method in UNARY:
        permission = PERMISSIONS[f"{service.full_name}/{method.name}"]
        assert await attempt(others[permission], service.name, method) == "PERMISSION_DENIED"
        assert await attempt(only[permission], service.name, method) not in {"PERMISSION_DENIED", "UNAUTHENTICATED"}


async def test_streams_are_guarded_too(deployment: Deployment) -> None:
    """The streaming methods ask for a caller and a permission before they say what else is wrong."""
    operator, nobody = await deployment.client(), await deployment.client(anonymous=True)
    headers = [("authorization", f"Bearer {operator.key_string}")]
    request = audit_service_pb2.ExportAuditEventsRequest()
    assert (await operator.audit.ExportAuditEvents(request, metadata=headers).code()).name == "UNIMPLEMENTED"
    for stream in (
        nobody.keys.WatchWakeUps(key_service_pb2.WatchWakeUpsRequest()),
        nobody.audit.ExportAuditEvents(request),
    ):
        assert (await stream.code()).name == "UNAUTHENTICATED"


async def test_a_limited_caller_sees_its_workspaces_alone(deployment: Deployment) -> None:
    """Everything of another workspace is NOT_FOUND, existing or not, in the same words; lists leave it out."""
    operator = await deployment.client()
    for name in (WORKSPACE, "acme-corp/support"):
        await operator.create_workspace(name)
    mine, foreign = await operator.create(), await operator.create(workspace="acme-corp/support")
    limited = await deployment.caller(
        "keys.read", "keys.write", "keys.revoke", "verify", "workspaces.write", "audit.read", workspaces=[WORKSPACE]
    )
    assert await limited.verdict(mine.key_string) == "VALID"
    assert await limited.verdict(foreign.key_string) == "NOT_FOUND"
    assert (await limited.verify(foreign.key_string)).key_id == ""
    assert [key.id for key in (await limited.list()).keys] == [mine.key.id]
    listed = await limited.call(limited.workspaces.ListWorkspaces, workspace_service_pb2.ListWorkspacesRequest())
    assert [workspace.name for workspace in listed.workspaces] == [WORKSPACE]
    events = await limited.call(limited.audit.ListAuditEvents, audit_service_pb2.ListAuditEventsRequest())
    assert {event.workspace for event in events.events} == {WORKSPACE}

    async def message(attempt: object, name: str) -> str:
        with pytest.raises(Refused) as refused:
            await attempt
        assert refused.value.code.name == "NOT_FOUND"
        return refused.value.message.replace(name, "…")

    nobody = "01234567-89ab-4cde-8f01-23456789abcd"
    for change in (limited.get, limited.suspend, limited.resume, limited.revoke):
        assert await message(change(foreign.key.id), foreign.key.id) == await message(change(nobody), nobody)
    for name in ("acme-corp/support", "no/such", "keysvc/system"):
        get = workspace_service_pb2.GetWorkspaceRequest(name=name)
        suspend = workspace_service_pb2.SuspendWorkspaceRequest(name=name)
        update = workspace_service_pb2.UpdateWorkspaceRequest(
            workspace={"name": name}, update_mask={"paths": ["display_name"]}
        )
        events = audit_service_pb2.ListAuditEventsRequest(workspace=name)
        texts = {
            await message(limited.call(limited.workspaces.GetWorkspace, get), name),
            await message(limited.call(limited.workspaces.SuspendWorkspace, suspend), name),
            await message(limited.call(limited.workspaces.UpdateWorkspace, update), name),
            await message(limited.call(limited.audit.ListAuditEvents, events), name),
            await message(limited.create(workspace=name), name),
            await message(limited.list(workspace=name), name),
        }
        assert texts == {"workspace … not found"}
    await message(limited.create_workspace("acme-corp/new"), "acme-corp/new")


async def test_nobody_grants_what_they_do_not_hold(deployment: Deployment) -> None:
    """A caller passes on only grants it holds, by scopes and by role; an operator holds all."""
    operator = await deployment.client()
    await operator.create_workspace(roles=[{"name": "exporter", "scopes": ["pdf.export", "csv.*"]}])
    caller = await deployment.caller("keys.write", "pdf.*")
    await caller.create(scopes=["pdf.read", "pdf.*"])
    for fields in ({"scopes": ["csv.read"]}, {"scopes": ["*"]}, {"role": "viewer"}, {"role": "exporter"}):
        with pytest.raises(Refused) as refused:
            await caller.create(**fields)
        assert refused.value.code.name == "PERMISSION_DENIED"
        await operator.create(**fields)


async def test_nobody_gives_a_role_what_they_do_not_hold(deployment: Deployment) -> None:
    """A role is granted to every key that has it: widening it grants."""
    operator = await deployment.client()
    await operator.create_workspace(roles=[{"name": "clerk", "scopes": ["pdf.read"]}])
    caller = await deployment.caller("workspaces.write", "pdf.*")
    for scopes, is_held in ((["pdf.*"], True), (["*"], False), (["pdf.read", "csv.read"], False)):
        request = workspace_service_pb2.UpdateWorkspaceRequest(
            workspace={"name": WORKSPACE, "roles": [{"name": "clerk", "scopes": scopes}]},
            update_mask={"paths": ["roles"]},
        )
        if is_held:
            await caller.call(caller.workspaces.UpdateWorkspace, request)
            continue
        with pytest.raises(Refused) as refused:
            await caller.call(caller.workspaces.UpdateWorkspace, request)
        assert refused.value.code.name == "PERMISSION_DENIED"
    with pytest.raises(Refused) as refused:
        await caller.create_workspace("acme-corp/own", roles=[{"name": "clerk", "scopes": ["csv.read"]}])
    assert refused.value.code.name == "PERMISSION_DENIED"


async def test_only_an_operator_changes_callers(deployment: Deployment) -> None:
    """Without `operator`, keys of keysvc/system cannot be created, changed or revoked, nor the workspace changed."""
    operator = await deployment.client()
    victim = (await operator.create(workspace="keysvc/system", scopes=["verify"])).key
    caller = await deployment.caller("keys.read", "keys.write", "keys.revoke", "workspaces.write", "verify")
    update = workspace_service_pb2.UpdateWorkspaceRequest(
        workspace={"name": "keysvc/system", "display_name": "mine"}, update_mask={"paths": ["display_name"]}
    )
    for attempt in (
        caller.create(workspace="keysvc/system", scopes=["verify"]),
        caller.suspend(victim.id),
        caller.resume(victim.id),
        caller.revoke(victim.id),
        caller.call(caller.workspaces.UpdateWorkspace, update),
    ):
        with pytest.raises(Refused) as refused:
            await attempt
        assert refused.value.code.name == "PERMISSION_DENIED"
    assert (await caller.get(victim.id)).state == key_pb2.Key.STATE_ACTIVE


async def test_a_limited_operator_makes_no_unlimited_one(deployment: Deployment) -> None:
    """Limits hold for operators too: with keysvc/system among its workspaces it still changes no caller key."""
    limited = await deployment.caller("operator", workspaces=["keysvc/system", WORKSPACE])
    with pytest.raises(Refused) as refused:
        await limited.create(workspace="keysvc/system", scopes=["operator"])
    assert refused.value.code.name == "PERMISSION_DENIED"


async def test_the_last_operator_key_stays(deployment: Deployment) -> None:
    """It cannot be revoked or suspended, whole or by its secret; ten operators that revoke each other leave one."""
    operator = await deployment.client()
    (own,) = (await operator.list(workspace="keysvc/system")).keys
    for attempt in (
        operator.revoke(own.id),
        operator.revoke(own.id, secret_id=own.secrets[0].id),
        operator.suspend(own.id),
    ):
        with pytest.raises(Refused) as refused:
            await attempt
        assert refused.value.code.name == "FAILED_PRECONDITION"
        assert "bootstrap --another" in refused.value.message
    for _ in range(9):
        await operator.create(workspace="keysvc/system", scopes=["operator"])
    # Limited, expiring at once or with less than all: none of these counts as an operator.
    await operator.create(workspace="keysvc/system", scopes=["operator"], workspaces=["keysvc/system"])
    await operator.create(workspace="keysvc/system", scopes=["operator"], ttl={"nanos": 1_000_000})
    await operator.create(workspace="keysvc/system", role="viewer")
    keys = (await operator.list(workspace="keysvc/system")).keys
    outcomes = await asyncio.gather(*(operator.revoke(key.id) for key in keys), return_exceptions=True)
    refusals = [each for each in outcomes if isinstance(each, Refused)]
    assert len([each for each in refusals if each.code.name == "FAILED_PRECONDITION"]) <= 1
    # The way back when the survivor's key string is lost.
    another = await bootstrap(deployment.settings, another=True)
    assert another is not None
    reader = await deployment.client(another.reveal())
    states = {key.id: (await reader.get(key.id)).state for key in keys}
    usable = [
        key
        for key in keys
        if list(key.scopes) == ["operator"] and not key.workspaces and not key.HasField("expire_time")
    ]
    assert len(usable) == 10
    assert [states[key.id] for key in usable].count(key_pb2.Key.STATE_ACTIVE) == 1


async def test_the_system_workspace_stays_usable(deployment: Deployment) -> None:
    """keysvc/system cannot be suspended, capped or given roles; other names of its organization cannot be made."""
    operator = await deployment.client()
    suspend = workspace_service_pb2.SuspendWorkspaceRequest(name="keysvc/system")
    with pytest.raises(Refused) as refused:
        await operator.call(operator.workspaces.SuspendWorkspace, suspend)
    assert refused.value.code.name == "FAILED_PRECONDITION"
    for field, value in (("allowed_scopes", ["pdf.*"]), ("roles", [{"name": "x", "scopes": ["*"]}])):
        update = workspace_service_pb2.UpdateWorkspaceRequest(
            workspace={"name": "keysvc/system", field: value}, update_mask={"paths": [field]}
        )
        with pytest.raises(Refused) as refused:
            await operator.call(operator.workspaces.UpdateWorkspace, update)
        assert refused.value.code.name == "FAILED_PRECONDITION"
    with pytest.raises(Refused) as refused:
        await operator.create_workspace("keysvc/other")
    assert set(refused.value.violations) == {"workspace.name"}


async def test_a_caller_key_obeys_its_own_rules(deployment: Deployment) -> None:
    """A caller's key may be bound to addresses, suspended and expire like any other."""
    operator = await deployment.client()
    here = await deployment.caller("keys.read", ip_allowlist=["127.0.0.0/8"])
    elsewhere = await deployment.caller("keys.read", ip_allowlist=["203.0.113.0/24"])
    await here.list()
    with pytest.raises(Refused) as refused:
        await elsewhere.list()
    assert refused.value.code.name == "UNAUTHENTICATED"
    (key,) = [key for key in (await operator.list()).keys if list(key.ip_allowlist) == ["127.0.0.0/8"]]
    await operator.suspend(key.id)
    with pytest.raises(Refused) as refused:
        await here.list()
    assert refused.value.code.name == "UNAUTHENTICATED"


async def test_workspaces_of_a_key_are_for_callers_only(deployment: Deployment) -> None:
    """Key.workspaces is refused outside keysvc/system, and shown where it is set."""
    operator = await deployment.client()
    await operator.create_workspace()
    with pytest.raises(Refused) as refused:
        await operator.create(workspaces=[WORKSPACE])
    assert set(refused.value.violations) == {"workspaces"}
    created = await operator.create(workspace="keysvc/system", workspaces=[WORKSPACE], scopes=["verify"])
    assert list(created.key.workspaces) == [WORKSPACE]


async def test_an_operator_is_found_behind_many_other_callers(deployment: Deployment) -> None:
    """Whether there is an operator is looked for to the end of the list, however short its pages are."""
    for _ in range(3):
        await deployment.caller("verify")
    database = Database(deployment.database_url, limit_seconds=20)
    listings = Listings(database, few=0, examined_max=1)
    reading = Reading(listings, UsageTotals(database), PageTokens(b""))
    assert await reading.has_operator()
    operator = await deployment.client()
    (own,) = [key.id for key in (await operator.list(workspace="keysvc/system")).keys if "operator" in key.scopes]
    with psycopg.connect(deployment.database_url) as connection:
        connection.execute("UPDATE key SET suspended = true WHERE id = %s", [own])
    assert not await reading.has_operator()
    await database.close()


async def test_two_authorizations_are_none(deployment: Deployment) -> None:
    """Whichever comes last: a call has one caller."""
    operator = await deployment.client()
    for keys in ((deployment.operator_key, "no key"), ("no key", deployment.operator_key)):
        metadata = [("authorization", f"Bearer {key}") for key in keys]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await operator.keys.List(key_service_pb2.ListRequest(), metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
