"""Keys, workspaces, usage and the audit log through the library: every method, by both clients."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from keysvc.rpc.server import CONTRACT
from keysvc.v1 import key_pb2, receipt_pb2, verify_pb2, workspace_service_pb2
from keysvc_client import (
    Aborted,
    AlreadyExists,
    Environment,
    FailedPrecondition,
    InvalidArgument,
    KeyState,
    NotFound,
    Outcome,
    ResourceExhausted,
    Unimplemented,
    UsageGroup,
    UsageRecord,
    Verdict,
)
from keysvc_client.methods import METHODS
from keysvc_client.values import to_datetime
from tests.client.conftest import AnyClient, call
from tests.deployment import WORKSPACE, Client, eventually, request_id

NOT_BUILT = {
    "KeyService/RenewLease",
    "KeyService/WatchWakeUps",
    "UsageService/ListAnomalies",
    "UsageService/ListUnusedScopes",
    "AuditService/VerifyAuditChain",
    "AuditService/ExportAuditEvents",
}
"""RPCs that the server does not have yet; two of them are for leases."""


def test_every_rpc_has_its_method() -> None:
    """With the messages of the contract; nothing is called that is not in it."""
    known = {
        f"/{method.containing_service.full_name}/{method.name}": method
        for service in CONTRACT
        for method in service.methods
    }
    assert {each.path for each in METHODS} == {
        path for path in known if path.removeprefix("/keysvc.v1.") not in NOT_BUILT
    }
    for each in METHODS:
        assert each.request.DESCRIPTOR is known[each.path].input_type
        assert each.response.DESCRIPTOR is known[each.path].output_type


async def create(client: AnyClient, **fields: Any) -> Any:
    """Create a key, with what must be given."""
    return await call(
        client.keys.create, **({"workspace": WORKSPACE, "display_name": "a key", "environment": "live"} | fields)
    )


async def test_a_key_from_its_creation_to_its_end(client: AnyClient, operator: Client) -> None:
    """Created with everything that a key has, read, updated, rotated and back, suspended, resumed, revoked."""
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    created = await create(
        client,
        environment=Environment.TEST,
        owner="team-a",
        scopes=["pdf.read"],
        role="viewer",
        ip_allowlist=("203.0.113.0/24",),
        expire_time=expires,
        metadata={"plan": "gold"},
        tags={"blue"},
        reason="a test",
    )
    key = created.key
    assert created.key_string.startswith("sk_test_")
    assert (key.workspace, key.display_name, key.environment) == (WORKSPACE, "a key", key_pb2.ENVIRONMENT_TEST)
    assert (key.owner, list(key.scopes), key.role, list(key.tags)) == ("team-a", ["pdf.read"], "viewer", ["blue"])
    assert (list(key.ip_allowlist), dict(key.metadata)) == (["203.0.113.0/24"], {"plan": "gold"})
    assert to_datetime(key.expire_time) == expires
    got = await call(client.keys.get, key.id)
    assert (got.id, got.etag, got.secrets) == (key.id, key.etag, key.secrets)

    updated = await call(client.keys.update, key.id, etag=key.etag, display_name="another", scopes=[], expire_time=None)
    assert (updated.key.display_name, list(updated.key.scopes), updated.key.owner) == ("another", [], "team-a")
    assert not updated.key.HasField("expire_time")
    assert updated.receipt.state == receipt_pb2.Receipt.STATE_COMPLETE
    with pytest.raises(Aborted) as aborted:
        await call(client.keys.update, key.id, etag=key.etag, owner="team-b")
    assert aborted.value.reason == "ETAG_MISMATCH"

    rotated = await call(client.keys.rotate, key.id, overlap=timedelta(minutes=5))
    assert rotated.key_string != created.key_string
    old, new = rotated.key.secrets
    assert abs(to_datetime(old.retire_time) - to_datetime(new.create_time) - timedelta(minutes=5)) < timedelta(
        seconds=1
    )
    cancelled = await call(client.keys.cancel_rotation, key.id, wait="commit")
    assert [each.state for each in cancelled.key.secrets][1] in {key_pb2.Key.STATE_REVOKING, key_pb2.Key.STATE_REVOKED}

    suspended = await call(client.keys.suspend, key.id, reason="a test")
    assert suspended.key.state == key_pb2.Key.STATE_SUSPENDED
    assert (await call(client.verify, created.key_string)).verdict is Verdict.SUSPENDED
    resumed = await call(client.keys.resume, key.id)
    assert resumed.key.state == key_pb2.Key.STATE_ACTIVE

    by_secret = await call(client.keys.revoke, key.id, secret_id=old.id)
    assert by_secret.key.state == key_pb2.Key.STATE_ACTIVE
    revoked = await call(client.keys.revoke, key.id, reason="leaked")
    assert (revoked.key.state, revoked.key.revocation.reason) == (key_pb2.Key.STATE_REVOKED, "leaked")
    assert (await call(client.verify, created.key_string)).verdict is Verdict.REVOKED
    with pytest.raises(FailedPrecondition):
        await call(client.keys.resume, key.id)


async def test_a_lifetime_is_an_end_or_a_duration(client: AnyClient, operator: Client) -> None:
    """One of them, or neither."""
    key = (await create(client, ttl=timedelta(hours=2))).key
    assert to_datetime(key.expire_time) - to_datetime(key.create_time) == timedelta(hours=2)
    assert not (await create(client)).key.HasField("expire_time")
    with pytest.raises(ValueError, match="expire_time and ttl are both given"):
        await create(client, ttl=timedelta(hours=2), expire_time=datetime.now(UTC))


async def test_keys_are_listed_to_the_end(client: AnyClient, operator: Client) -> None:
    """Over all pages, newest first; each condition holds."""
    first, second, third = [
        (await create(client, display_name=f"key {number}", environment=environment, tags=[f"tag-{number}"])).key
        for number, environment in enumerate(["live", "test", "live"])
    ]
    await call(client.keys.suspend, first.id)
    for page_size in (None, 1, 2):
        listed = await call(client.keys.list, workspace=WORKSPACE, page_size=page_size)
        assert [each.id for each in listed] == [third.id, second.id, first.id]
    conditions: list[tuple[dict[str, Any], list[Any]]] = [
        ({"state": "suspended"}, [first]),
        ({"state": KeyState.ACTIVE, "environment": Environment.LIVE}, [third]),
        ({"environment": "test"}, [second]),
        ({"tag": "tag-2"}, [third]),
        ({"display_name_prefix": "key 1"}, [second]),
        ({"hint_prefix": first.secrets[0].hint}, [first]),
        ({"expire_before": datetime.now(UTC)}, []),
        ({"owner": "nobody"}, []),
    ]
    for condition, found in conditions:
        listed = await call(client.keys.list, workspace=WORKSPACE, **condition)
        assert [each.id for each in listed] == [each.id for each in found], condition
    with pytest.raises(NotFound):
        await call(client.keys.list, workspace="no/such")
    with pytest.raises(Unimplemented) as refused:
        await call(client.keys.list, rotation_overdue=True)
    assert refused.value.reason == "NOT_BUILT"


async def test_a_repeat_with_a_request_id_of_ones_own_mints_nothing(client: AnyClient, operator: Client) -> None:
    """Create and Rotate answer the same again; without one, each call is another."""
    wanted, another = request_id(), request_id()
    created = await create(client, request_id=wanted)
    repeated = await create(client, request_id=wanted)
    assert (repeated.key.id, repeated.key_string) == (created.key.id, created.key_string)
    rotated = await call(client.keys.rotate, created.key.id, request_id=another)
    again = await call(client.keys.rotate, created.key.id, request_id=another)
    assert again.key_string == rotated.key_string != created.key_string
    assert (await create(client)).key.id != (await create(client)).key.id


async def test_a_workspace_from_its_creation(client: AnyClient, operator: Client) -> None:
    """Created with everything that it has, read, listed, updated, suspended and resumed."""
    workspace = await call(
        client.workspaces.create,
        "acme-corp/research",
        display_name="Research",
        allowed_scopes=["pdf.*"],
        roles={"reader": ["pdf.read"]},
        default_ttl=timedelta(days=1),
        max_ttl=timedelta(days=2),
        key_limit=1,
        reason="a test",
    )
    assert workspace.roles == [workspace_service_pb2.Role(name="reader", scopes=["pdf.read"])]
    assert (list(workspace.allowed_scopes), workspace.key_limit) == (["pdf.*"], 1)
    assert workspace.max_ttl.ToTimedelta() == 2 * workspace.default_ttl.ToTimedelta() == timedelta(days=2)
    assert await call(client.workspaces.get, workspace.name) == workspace
    with pytest.raises(AlreadyExists):
        await call(client.workspaces.create, workspace.name)

    created = await create(client, workspace=workspace.name, role="reader")
    with pytest.raises(ResourceExhausted) as full:
        await create(client, workspace=workspace.name)
    assert full.value.reason == "LIMIT_REACHED"
    updated = await call(
        client.workspaces.update, workspace.name, etag=workspace.etag, key_limit=None, max_ttl=None, roles={}
    )
    assert not updated.workspace.HasField("key_limit")
    assert not updated.workspace.HasField("max_ttl")
    assert (list(updated.workspace.roles), updated.workspace.display_name) == ([], "Research")

    names = [each.name for each in await call(client.workspaces.list, organization="acme-corp", page_size=1)]
    assert names == ["acme-corp/research", WORKSPACE]
    suspended = await call(client.workspaces.suspend, workspace.name)
    assert suspended.workspace.state == workspace_service_pb2.Workspace.STATE_SUSPENDED
    assert (await call(client.verify, created.key_string)).verdict is Verdict.WORKSPACE_SUSPENDED
    resumed = await call(client.workspaces.resume, workspace.name)
    assert resumed.workspace.state == workspace_service_pb2.Workspace.STATE_ACTIVE


async def test_usage_is_recorded_once_and_told(client: AnyClient, operator: Client) -> None:
    """A batch that is sent again counts nothing; a gap is told with the number that is expected."""
    key = (await create(client)).key
    source = str(uuid4())
    secret = key.secrets[0].id
    records = [
        UsageRecord(key_id=key.id, secret_id=secret, outcome="success", units=3, count=2, occur_time=datetime.now(UTC)),
        UsageRecord(key_id=key.id, secret_id=secret, outcome=Outcome.FAILURE, status_code=500, resource="GET /pdf"),
        UsageRecord(key_id=str(uuid4()), secret_id=secret, outcome="success"),
    ]
    answer = await call(client.usage.record, source, 1, records)
    assert (answer.accepted, answer.duplicate, [each.index for each in answer.failures]) == (2, False, [2])
    assert (await call(client.usage.record, source, 1, iter(records))).duplicate
    with pytest.raises(FailedPrecondition) as gap:
        await call(client.usage.record, source, 3, records)
    assert gap.value.metadata["expected_batch_seq"] == "2"

    (bucket,) = await call(client.usage.query, workspace=WORKSPACE, key_id=key.id)
    assert (bucket.success_count, bucket.failure_count, bucket.units) == (2, 1, 3)
    with pytest.raises(Unimplemented):
        await call(client.usage.query, start_time=datetime.now(UTC), bucket=timedelta(hours=1))


async def test_verifications_are_told_by_group(client: AnyClient, operator: Client) -> None:
    """Over all pages."""
    created = await create(client, scopes=["pdf.read"])
    await call(client.verify, created.key_string)
    await call(client.verify, created.key_string, required_scopes=["csv.read"])

    async def told() -> list[Any]:
        groups = [UsageGroup.KEY, "verdict"]
        buckets = await call(client.usage.query, workspace=WORKSPACE, groups=groups, page_size=1)
        return buckets if len(buckets) == 2 else []

    buckets = {each.verdict: each for each in await eventually(told)}
    assert buckets.keys() == {verify_pb2.VERDICT_VALID, verify_pb2.VERDICT_INSUFFICIENT_SCOPE}
    assert {(each.key_id, each.verify_count) for each in buckets.values()} == {(created.key.id, 1)}


async def test_the_audit_log_is_read_to_the_end(client: AnyClient, operator: Client) -> None:
    """Over all pages, newest first; each condition holds."""
    key = (await create(client)).key
    await call(client.keys.suspend, key.id, reason="a test")
    for page_size in (None, 1):
        events = await call(client.audit.list, workspace=WORKSPACE, page_size=page_size)
        methods = [event.method.rpartition("/")[2] for event in events]
        assert methods == ["Suspend", "Create", "CreateWorkspace"]
    assert events[0].reason == "a test"
    suspended = events[0]
    of_key = await call(client.audit.list, key_id=key.id, method="keysvc.v1.KeyService/Suspend", actor=suspended.actor)
    assert list(of_key) == [suspended]
    before = to_datetime(suspended.time)
    assert suspended not in await call(client.audit.list, workspace=WORKSPACE, end_time=before)
    assert suspended in await call(client.audit.list, workspace=WORKSPACE, start_time=before)


async def test_an_update_says_what_it_changes(client: AnyClient, operator: Client) -> None:
    """Something, and only what can be changed."""
    with pytest.raises(ValueError, match="must change something"):
        await call(client.keys.update, str(uuid4()))
    with pytest.raises(TypeError, match="cannot change state, but display_name, "):
        await call(client.keys.update, str(uuid4()), state="revoked")
    with pytest.raises(TypeError, match="cannot change state, but display_name, "):
        await call(client.workspaces.update, WORKSPACE, state="suspended")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"environment": "prod"}, ValueError, "environment must be one of: live, test"),
        ({"scopes": "pdf.read"}, TypeError, "scopes must be several texts"),
        ({"expire_time": datetime(2030, 1, 1)}, ValueError, "expire_time must have a time zone"),  # noqa: DTZ001
        ({"timeout": 0}, ValueError, "timeout must be more than 0"),
        ({"timeout": float("inf")}, ValueError, "timeout must be more than 0, and finite"),
        ({"workspace": "Acme"}, InvalidArgument, "workspace"),
    ],
)
async def test_a_bad_argument_is_named(
    client: AnyClient, operator: Client, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Before anything is sent, where the library can know; else by the service."""
    with pytest.raises(error, match=words):
        await create(client, **arguments)
