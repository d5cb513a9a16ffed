"""Bad input: INVALID_ARGUMENT names every bad field at once and says what is allowed; nothing else goes wrong."""

from typing import Any

import grpc
import pytest

from keysvc.rpc.limits import MESSAGE_BYTES_MAX
from keysvc.rpc.server import CONTRACT
from keysvc.v1 import audit_service_pb2, key_pb2, key_service_pb2, verify_pb2, workspace_service_pb2
from tests.deployment import WORKSPACE, Client, Deployment, Refused, request_id


@pytest.fixture
async def operator(deployment: Deployment) -> Client:
    """An operator with one workspace."""
    operator = await deployment.client()
    await operator.create_workspace()
    return operator


async def test_all_bad_fields_are_named_at_once(operator: Client) -> None:
    """One answer names everything, what depends on the workspace too."""
    await operator.create_workspace("acme-corp/capped", allowed_scopes=["pdf.*"], max_ttl={"seconds": 60})
    with pytest.raises(Refused) as refused:
        await operator.create(
            workspace="acme-corp/capped",
            display_name="",
            environment=0,
            scopes=["pdf.read", "csv.read", "PDF"],
            role="unknown",
            ip_allowlist=["10.0.0.0/8", "10.0.0.1/8", "nonsense"],
            ttl={"seconds": 61},
            metadata={"": "x"},
            tags=["ok", ""],
            owner="a\nb",
            request_id="1",
            workspaces=[WORKSPACE, "Nope"],
            reason="x" * 513,
        )
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refused.value.violations) == {
        "display_name",
        "environment",
        "scopes[1]",
        "scopes[2]",
        "role",
        "ip_allowlist[1]",
        "ip_allowlist[2]",
        "ttl",
        "metadata",
        "tags[1]",
        "owner",
        "request_id",
        "workspaces",
        "workspaces[1]",
        "reason",
    }
    assert "10.0.0.0/8" in refused.value.violations["ip_allowlist[1]"]


async def test_a_bad_scope_is_named_by_its_place(operator: Client) -> None:
    """Its place in the request, whatever is repeated or bad in front of it; if there are several, each of them."""
    await operator.create_workspace("acme-corp/capped", allowed_scopes=["pdf.*"])
    scopes = ["pdf.read", "PDF", "pdf.read", "csv.read", "csv.read"]
    with pytest.raises(Refused) as refused:
        await operator.create(workspace="acme-corp/capped", scopes=scopes)
    assert set(refused.value.violations) == {"scopes[1]", "scopes[3]", "scopes[4]"}
    key_id = (await operator.create(workspace="acme-corp/capped")).key.id
    with pytest.raises(Refused) as refused:
        await operator.update(key_id, scopes=scopes)
    assert set(refused.value.violations) == {"key.scopes[1]", "key.scopes[3]", "key.scopes[4]"}


async def test_a_bad_workspace_name_is_told_with_the_rest(operator: Client) -> None:
    """A malformed name is a bad field; a well-formed unknown one comes after the bad fields."""
    with pytest.raises(Refused) as refused:
        await operator.create(workspace="nope", display_name="")
    assert set(refused.value.violations) == {"workspace", "display_name"}
    with pytest.raises(Refused) as refused:
        await operator.create(workspace="no/such", display_name="")
    assert set(refused.value.violations) == {"display_name"}


SIDES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"display_name": "x"}, {"display_name": ""}, "display_name"),
    ({"display_name": "ä" * 128}, {"display_name": "ä" * 129}, "display_name"),
    ({"display_name": "a b"}, {"display_name": " "}, "display_name"),
    ({"owner": "x" * 128}, {"owner": "x" * 129}, "owner"),
    ({"owner": "ok"}, {"owner": "a\0b"}, "owner"),
    ({"reason": "x" * 512}, {"reason": "x" * 513}, "reason"),
    ({"scopes": [f"s{n}" for n in range(100)]}, {"scopes": [f"s{n}" for n in range(101)]}, "scopes"),
    ({"scopes": ["a" * 64]}, {"scopes": ["a" * 65]}, "scopes[0]"),
    ({"scopes": ["pdf.*"]}, {"scopes": ["p*f"]}, "scopes[0]"),
    ({"scopes": ["*.read"]}, {"scopes": ["*.*"]}, "scopes[0]"),
    ({"scopes": ["a.b"]}, {"scopes": ["a..b"]}, "scopes[0]"),
    ({"scopes": ["a"]}, {"scopes": [""]}, "scopes[0]"),
    (
        {"ip_allowlist": [f"10.0.0.{n}" for n in range(64)]},
        {"ip_allowlist": [f"10.0.0.{n}" for n in range(65)]},
        "ip_allowlist",
    ),
    ({"ip_allowlist": ["::/0"]}, {"ip_allowlist": ["::/129"]}, "ip_allowlist[0]"),
    ({"ip_allowlist": ["fe80::1"]}, {"ip_allowlist": ["fe80::1%eth0"]}, "ip_allowlist[0]"),
    ({"ip_allowlist": ["10.1.2.3"]}, {"ip_allowlist": ["010.1.2.3"]}, "ip_allowlist[0]"),
    ({"tags": [str(n) for n in range(32)]}, {"tags": [str(n) for n in range(33)]}, "tags"),
    ({"tags": ["x" * 64]}, {"tags": ["x" * 65]}, "tags[0]"),
    ({"metadata": {"a": "x" * 4095}}, {"metadata": {"a": "x" * 4096}}, "metadata"),
    ({"metadata": {"a": "\n"}}, {"metadata": {"a": "\0"}}, "metadata"),
    ({"environment": key_pb2.ENVIRONMENT_TEST}, {"environment": 3}, "environment"),
    ({"request_id": request_id()}, {"request_id": "123"}, "request_id"),
    ({"request_id": request_id()}, {"request_id": request_id().replace("-", "")}, "request_id"),
]


@pytest.mark.parametrize(("good", "bad", "field"), SIDES)
async def test_both_sides_of_every_limit(
    operator: Client, good: dict[str, Any], bad: dict[str, Any], field: str
) -> None:
    """What is just allowed works; one more is refused, by name."""
    await operator.create(**good)
    with pytest.raises(Refused) as refused:
        await operator.create(**bad)
    assert set(refused.value.violations) == {field}
    assert refused.value.violations[field]


async def test_what_is_kept_holds_no_key_string(operator: Client) -> None:
    """A key string pasted into a field that is stored is refused; as a request id it is replaced."""
    pasted = f"see {(await operator.create()).key_string}!"
    for field, value in [
        ("display_name", pasted),
        ("owner", pasted),
        ("reason", pasted),
        ("metadata", {"key": pasted}),
        ("metadata", {pasted: "key"}),
    ]:
        with pytest.raises(Refused) as refused:
            await operator.create(**{field: value})
        assert refused.value.violations == {field: "must not contain a key string"}
        assert pasted not in refused.value.message
    request = workspace_service_pb2.CreateWorkspaceRequest(workspace={"name": "acme-corp/other"})
    await operator.call(operator.workspaces.CreateWorkspace, request, x_request_id=pasted.split()[1])
    (event,) = (
        await operator.call(
            operator.audit.ListAuditEvents, audit_service_pb2.ListAuditEventsRequest(workspace="acme-corp/other")
        )
    ).events
    assert len(event.request_id) == 36


async def test_workspaces_of_a_caller_have_a_limit(operator: Client) -> None:
    """A caller key may be limited to 100 workspaces."""
    names = [f"a/{n}" for n in range(101)]
    await operator.create(workspace="keysvc/system", workspaces=names[:100])
    with pytest.raises(Refused) as refused:
        await operator.create(workspace="keysvc/system", workspaces=names)
    assert set(refused.value.violations) == {"workspaces"}


async def test_the_scopes_that_a_batch_requires_are_bounded_together(operator: Client) -> None:
    """A batch that would take seconds to judge is refused; 10000 required scopes are judged."""
    each = verify_pb2.VerifyRequest(key_string="x", required_scopes=[f"a{n}" for n in range(100)])
    await operator.call(operator.keys.VerifyBatch, verify_pb2.VerifyBatchRequest(requests=[each] * 100))
    with pytest.raises(Refused) as refused:
        await operator.call(operator.keys.VerifyBatch, verify_pb2.VerifyBatchRequest(requests=[each] * 101))
    assert set(refused.value.violations) == {"requests"}


@pytest.mark.parametrize("turned", ["a\u202eb", "\u2066a", "a\u200f"])
async def test_text_that_looks_like_another_is_refused(operator: Client, turned: str) -> None:
    """Characters that turn the direction of text would let an owner look like somebody else."""
    with pytest.raises(Refused) as refused:
        await operator.create(display_name=turned, owner=turned)
    assert set(refused.value.violations) == {"display_name", "owner"}


async def test_a_hint_prefix_of_nothing_is_no_filter_that_lists_all(operator: Client) -> None:
    """What people copy ends with …; without anything before it it was meant otherwise."""
    with pytest.raises(Refused) as refused:
        await operator.list(hint_prefix="…")
    assert set(refused.value.violations) == {"filter.hint_prefix"}


async def test_pages_and_batches_have_limits(operator: Client) -> None:
    """page_size 0 to 1000; a batch of 1 to 1000."""
    await operator.list(page_size=1000)
    for size in (-1, 1001, 2**31 - 1, -(2**31)):
        for attempt in (
            operator.list(page_size=size),
            operator.call(
                operator.workspaces.ListWorkspaces, workspace_service_pb2.ListWorkspacesRequest(page_size=size)
            ),
            operator.call(operator.audit.ListAuditEvents, audit_service_pb2.ListAuditEventsRequest(page_size=size)),
        ):
            with pytest.raises(Refused) as refused:
                await attempt
            assert set(refused.value.violations) == {"page_size"}
    for size in (0, 1001):
        batch = verify_pb2.VerifyBatchRequest(requests=[verify_pb2.VerifyRequest()] * size)
        with pytest.raises(Refused) as refused:
            await operator.call(operator.keys.VerifyBatch, batch)
        assert set(refused.value.violations) == {"requests"}


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"workspace": "nope"}, "workspace"),
        ({"workspace": "a/b/c"}, "workspace"),
        ({"environment": 9}, "environment"),
        ({"required_scopes": ["pdf.*"]}, "required_scopes[0]"),
        ({"required_scopes": [f"s{n}" for n in range(101)]}, "required_scopes"),
        ({"source_ip": "10.0.0.1:80"}, "source_ip"),
        ({"source_ip": "10.0.0.0/8"}, "source_ip"),
        ({"source_ip": "fe80::1%eth0"}, "source_ip"),
        ({"resource": "x" * 129}, "resource"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"consistency": {"at_least": "now"}}, "consistency.at_least"),
        ({"consistency": {"at_least": ""}}, "consistency.at_least"),
    ],
)
async def test_verify_checks_what_its_caller_asks(operator: Client, fields: dict[str, Any], bad: str) -> None:
    """A bad field of the caller is an error; what the end user presented never is."""
    with pytest.raises(Refused) as refused:
        await operator.verify("whatever", **fields)
    assert set(refused.value.violations) == {bad}


async def test_ids_must_be_ids(operator: Client) -> None:
    """Wrong UUIDs, secret ids and waits are named."""
    nobody = "01234567-89ab-4cde-8f01-23456789abcd"
    for attempt, field in [
        (operator.get("1"), "key_id"),
        (operator.get(""), "key_id"),
        (operator.get("{01234567-89ab-4cde-8f01-23456789abcd}"), "key_id"),
        (operator.suspend("x"), "key_id"),
        (operator.suspend(nobody, wait=9), "wait"),
        (operator.revoke(nobody, wait=9), "wait"),
        (operator.revoke(nobody, secret_id="no"), "secret_id"),
        (operator.revoke(nobody, reason="x" * 513), "reason"),
        (operator.list(state=9), "filter.state"),
        (operator.list(environment=9), "filter.environment"),
        (operator.list(tag="\0"), "filter.tag"),
        (operator.list(role="\0"), "filter.role"),
        (operator.list(hint_prefix="x" * 33), "filter.hint_prefix"),
        (operator.list(expire_before={"seconds": 10**15}), "filter.expire_before"),
        (
            operator.call(
                operator.audit.ListAuditEvents, audit_service_pb2.ListAuditEventsRequest(filter={"key_id": "1"})
            ),
            "filter.key_id",
        ),
    ]:
        with pytest.raises(Refused) as refused:
            await attempt
        assert set(refused.value.violations) == {field}


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"name": ""}, "workspace.name"),
        ({"name": "Acme/sales"}, "workspace.name"),
        ({"name": f"{'a' * 64}/b"}, "workspace.name"),
        ({"name": "a-/b"}, "workspace.name"),
        ({"display_name": "x" * 129}, "workspace.display_name"),
        ({"allowed_scopes": ["A"]}, "workspace.allowed_scopes[0]"),
        ({"roles": [{"name": "admin", "scopes": ["a"]}]}, "workspace.roles[0].name"),
        ({"roles": [{"name": "a", "scopes": []}]}, "workspace.roles[0].scopes"),
        ({"roles": [{"name": "a", "scopes": ["a"]}] * 2}, "workspace.roles[1].name"),
        ({"roles": [{"name": f"r{n}", "scopes": ["a"]} for n in range(101)]}, "workspace.roles"),
        ({"max_ttl": {"seconds": 0}}, "workspace.max_ttl"),
        ({"max_ttl": {"seconds": 36_500 * 86_400 + 1}}, "workspace.max_ttl"),
        ({"default_ttl": {"seconds": -5}}, "workspace.default_ttl"),
        ({"key_limit": -1}, "workspace.key_limit"),
        ({"key_limit": 1_000_001}, "workspace.key_limit"),
    ],
)
async def test_workspaces_are_checked(deployment: Deployment, fields: dict[str, Any], bad: str) -> None:
    """Every bad field of a workspace is named with its path."""
    operator = await deployment.client()
    with pytest.raises(Refused) as refused:
        await operator.create_workspace(**{"name": "a/b"} | fields)
    assert set(refused.value.violations) == {bad}


async def test_an_update_mask_names_what_can_be_changed(operator: Client) -> None:
    """An empty mask and a field that cannot be changed are refused."""
    for paths, field in (
        ([], "update_mask"),
        (["name"], "update_mask.paths[0]"),
        (["display_name", "x"], "update_mask.paths[1]"),
    ):
        request = workspace_service_pb2.UpdateWorkspaceRequest(
            workspace={"name": WORKSPACE}, update_mask={"paths": paths}
        )
        with pytest.raises(Refused) as refused:
            await operator.call(operator.workspaces.UpdateWorkspace, request)
        assert set(refused.value.violations) == {field}


async def raw(client: Client, service: str, method: str, body: bytes) -> Refused:
    """Send bytes; the refusal."""
    send = client.channel.unary_unary(f"/{service}/{method}")
    with pytest.raises(Refused) as refused:
        await client.call(send, body)
    return refused.value


async def test_bytes_that_are_no_message_are_refused(operator: Client) -> None:
    """Each method answers INVALID_ARGUMENT, without a word about Python or protobuf's insides."""
    for service in CONTRACT:
        for method in service.methods:
            if method.server_streaming:
                continue
            for body in (b"\xff\xff\xff", b"\x0a\x05abc"):
                refused = await raw(operator, service.full_name, method.name, body)
                assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
                assert "Error" not in refused.message
                assert "Traceback" not in refused.message
    for body in (b"\xff\xff", b"\x0a\x02\xff\xfe"):  # the second: text that is not UTF-8
        refused = await raw(operator, "keysvc.v1.KeyService", "Get", body)
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.message == "the bytes are no keysvc.v1.GetRequest"


async def test_health_and_reflection_refuse_bytes_that_are_no_message(
    operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody may call them: no name of a Python class is told, and no traceback is logged."""
    channel = operator.channel
    for call, request in (
        (channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff"), "health.v1.HealthCheckRequest"),
        (channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\xff"), "health.v1.HealthCheckRequest"),
        *(
            (
                channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")([b"\xff"]),
                "reflection.v1alpha.ServerReflectionRequest",
            )
            for version in ("v1", "v1alpha")
        ),
    ):
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await call.details() == f"the bytes are no grpc.{request}"
    assert caplog.records == []


async def test_a_message_above_the_limit_is_refused(operator: Client) -> None:
    """More than 1 MiB is RESOURCE_EXHAUSTED; what just fits is read."""
    refused = await raw(operator, "keysvc.v1.KeyService", "Verify", b"\0" * (MESSAGE_BYTES_MAX + 1))
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    key_string = "x" * (MESSAGE_BYTES_MAX - 16)
    assert await operator.verdict(key_string) == "MALFORMED"


async def test_a_thousand_bad_fields_still_give_an_answer(operator: Client) -> None:
    """The details of an error fit into what every client accepts, however much is wrong."""
    batch = verify_pb2.VerifyBatchRequest(requests=[verify_pb2.VerifyRequest(source_ip="x")] * 1000)
    with pytest.raises(Refused) as refused:
        await operator.call(operator.keys.VerifyBatch, batch)
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "requests[0].source_ip" in refused.value.violations
    assert "and 9" in refused.value.message


async def test_an_unknown_method_is_unimplemented(operator: Client) -> None:
    """It gets gRPC's own answer, and nothing crashes."""
    refused = await raw(operator, "keysvc.v1.KeyService", "Nothing", b"")
    assert refused.code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_page_token_may_be_any_text(operator: Client) -> None:
    """Whatever is sent as a page token is refused by name."""
    for token in ("x", "=", "A" * 100_000, "\0", "\N{SNOWMAN}", "AAAAAAAAAAAAAAAAAAAAAAAA"):
        with pytest.raises(Refused) as refused:
            await operator.list(page_token=token)
        assert set(refused.value.violations) == {"page_token"}
    get = key_service_pb2.GetRequest(key_id="\0")
    with pytest.raises(Refused):
        await operator.call(operator.keys.Get, get)
