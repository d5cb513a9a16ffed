"""Verification in process: what is answered from memory, and that nothing is that a change has ended."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from keysvc.core.pepper import Peppers
from keysvc.lease.terms import Terms
from keysvc.service import granting
from keysvc.v1 import receipt_pb2, workspace_service_pb2
from keysvc_client import (
    Basis,
    ConfigurationError,
    InvalidArgument,
    Presentation,
    Unauthenticated,
    Unavailable,
    Verdict,
)
from tests.client.conftest import OF_ONE_KIND, AnyClient, Connect, call
from tests.deployment import WORKSPACE, Client, Deployment, eventually


@pytest.fixture
def leased(connect: Connect, deployment: Deployment) -> AnyClient:
    """An operator's client that verifies in process."""
    return connect(deployment.address, api_key=deployment.operator_key, lease=True)


async def remembered(client: AnyClient, key_string: str, **asked: Any) -> Any:
    """The answer from the client's own memory, once there is one."""

    async def is_own() -> bool:
        return _is_own(await call(client.verify, key_string, **asked))

    await eventually(is_own)
    return await call(client.verify, key_string, **asked)


def _is_own(verification: Any) -> bool:
    """The client's own process has answered, and not the server, which is in this process too."""
    return verification.holder.endswith("(client)")


async def test_an_answer_is_given_again_from_memory(leased: AnyClient, operator: Client) -> None:
    """The same one, but for where it came from."""
    created = await operator.create(scopes=["pdf.read"], metadata={"plan": "gold"})
    first = await call(leased.verify, created.key_string, required_scopes=["pdf.read"])
    again = await remembered(leased, created.key_string, required_scopes=["pdf.read"])
    assert (again.verdict, again.basis) == (Verdict.VALID, Basis.MEMORY)
    assert (again.key_id, again.scopes, again.metadata) == (first.key_id, first.scopes, first.metadata)


async def test_what_is_revoked_is_refused_at_once(leased: AnyClient, operator: Client) -> None:
    """When Revoke has returned, nothing is answered from memory that it has ended; and it did not wait for a timer."""
    for _ in range(5):
        created = await operator.create()
        assert (await remembered(leased, created.key_string)).valid
        receipt = (await operator.revoke(created.key.id)).receipt
        after = await call(leased.verify, created.key_string)
        assert after.verdict is Verdict.REVOKED
        assert (receipt.state, receipt.path) == (receipt_pb2.Receipt.STATE_COMPLETE, receipt_pb2.Receipt.PATH_ACK)


async def test_each_question_has_its_own_answer(leased: AnyClient, operator: Client) -> None:
    """Refusals too, and they are as good as the service's own."""
    key_string = (await operator.create(scopes=["pdf.read"])).key_string
    for asked, verdict in (
        ({}, Verdict.VALID),
        ({"workspace": "acme-corp/other"}, Verdict.WORKSPACE_MISMATCH),
        ({"environment": "test"}, Verdict.ENVIRONMENT_MISMATCH),
        ({"required_scopes": ("pdf.read",)}, Verdict.VALID),
        ({"required_scopes": ("pdf.read", "pdf.write")}, Verdict.INSUFFICIENT_SCOPE),
    ):
        answer = await remembered(leased, key_string, **asked)
        assert answer.verdict is verdict
        assert answer.missing_scopes == (("pdf.write",) if verdict is Verdict.INSUFFICIENT_SCOPE else ())


async def test_what_proves_no_secret_is_asked_each_time(leased: AnyClient, operator: Client) -> None:
    """A flood of such texts takes no memory."""
    known = (await operator.create()).key_string
    await remembered(leased, known)
    for text in ("nonsense", "", known[:-1] + ("a" if known[-1] != "a" else "b"), "\udcff"):
        for _ in range(3):
            answer = await call(leased.verify, text)
            assert answer.verdict is Verdict.MALFORMED
            assert not _is_own(answer)


async def test_answers_that_depend_on_the_address_are_of_that_address(leased: AnyClient, operator: Client) -> None:
    """Others are the same for all addresses."""
    anywhere = (await operator.create()).key_string
    await remembered(leased, anywhere, source_ip="192.0.2.1")
    assert _is_own(await call(leased.verify, anywhere, source_ip="192.0.2.2"))
    bound = (await operator.create(ip_allowlist=["192.0.2.1"])).key_string
    for source_ip, verdict in (
        ("192.0.2.1", Verdict.VALID),
        ("192.0.2.2", Verdict.IP_NOT_ALLOWED),
        (None, Verdict.IP_NOT_ALLOWED),
        ("192.0.2.1", Verdict.VALID),
    ):
        assert (await remembered(leased, bound, source_ip=source_ip)).verdict is verdict


@OF_ONE_KIND
@pytest.mark.parametrize("change", ["suspend", "update", "suspend_workspace", "rotate"])
async def test_whatever_changes_is_asked_for_again(leased: AnyClient, operator: Client, change: str) -> None:
    """Of the key or of its workspace; and nobody else's answer goes with it."""
    created = await operator.create(scopes=["pdf.read"])
    await operator.create_workspace("acme-corp/other")
    other = (await operator.create(workspace="acme-corp/other")).key_string
    await remembered(leased, other)
    await remembered(leased, created.key_string, required_scopes=("pdf.read",))
    suspension = workspace_service_pb2.SuspendWorkspaceRequest(name=WORKSPACE)
    changes: dict[str, Callable[[], Awaitable[Any]]] = {
        "suspend": lambda: operator.suspend(created.key.id),
        "update": lambda: operator.update(created.key.id, scopes=["pdf.write"]),
        "suspend_workspace": lambda: operator.call(operator.workspaces.SuspendWorkspace, suspension),
        "rotate": lambda: operator.rotate(created.key.id, overlap={}),
    }
    receipt = (await changes[change]()).receipt
    after = await call(leased.verify, created.key_string, required_scopes=("pdf.read",))
    assert (
        after.verdict
        is {
            "suspend": Verdict.SUSPENDED,
            "update": Verdict.INSUFFICIENT_SCOPE,
            "suspend_workspace": Verdict.WORKSPACE_SUSPENDED,
            "rotate": Verdict.EXPIRED,
        }[change]
    )
    assert not _is_own(after)
    kept = await call(leased.verify, other)
    assert _is_own(kept)
    assert kept.revision == receipt.revision


@OF_ONE_KIND
async def test_a_callers_own_key_is_part_of_what_it_is_told(
    connect: Connect, deployment: Deployment, operator: Client
) -> None:
    """A caller that may see less from now on is told less at once; one that is revoked is told nothing."""
    caller = await operator.create(workspace="keysvc/system", scopes=["verify", "usage.write"], display_name="service")
    client = connect(deployment.address, api_key=caller.key_string, lease=True)
    key_string = (await operator.create()).key_string
    assert (await remembered(client, key_string)).valid
    await operator.create_workspace("acme-corp/other")
    await operator.update(caller.key.id, workspaces=["acme-corp/other"])
    assert (await call(client.verify, key_string)).verdict is Verdict.NOT_FOUND
    await operator.update(caller.key.id, workspaces=[])
    assert (await remembered(client, key_string)).valid
    await operator.revoke(caller.key.id)
    with pytest.raises(Unauthenticated):
        await call(client.verify, key_string)


@OF_ONE_KIND
async def test_an_end_by_time_is_kept(leased: AnyClient, operator: Client) -> None:
    """By the database's clock, to which the client keeps its own."""
    key_string = (await operator.create(ttl={"seconds": 2})).key_string
    assert (await remembered(leased, key_string)).valid

    async def has_expired() -> bool:
        return (await call(leased.verify, key_string)).verdict is Verdict.EXPIRED

    await eventually(has_expired)


async def test_other_freshness_is_asked_of_the_service(leased: AnyClient, operator: Client) -> None:
    """And so is what is presented in a batch."""
    key_string = (await operator.create()).key_string
    await remembered(leased, key_string)
    assert (await call(leased.verify, key_string, consistency="strong")).basis is Basis.DATABASE
    (answer,) = await call(leased.verify_batch, [Presentation(key_string)])
    assert not _is_own(answer)


async def test_bad_arguments_are_told_all_the_same(leased: AnyClient, operator: Client) -> None:
    """As without a lease."""
    key_string = (await operator.create()).key_string
    await remembered(leased, key_string)
    for bad in ({"required_scopes": "pdf.read"}, {"environment": "prod"}):
        with pytest.raises((TypeError, ValueError)):
            await call(leased.verify, key_string, **bad)
    with pytest.raises(TypeError):
        await call(leased.verify, None)
    with pytest.raises(InvalidArgument):
        await call(leased.verify, key_string, required_scopes=("*",))


async def test_a_change_waits_for_no_client_that_has_closed(
    connect: Connect, deployment: Deployment, operator: Client
) -> None:
    """It has told the server."""
    created = await operator.create()
    client = connect(deployment.address, api_key=deployment.operator_key, lease=True)
    await remembered(client, created.key_string)
    await call(client.close)
    receipt = (await operator.revoke(created.key.id)).receipt
    assert receipt.path == receipt_pb2.Receipt.PATH_ACK


async def test_answers_given_in_process_are_counted_once(
    connect: Connect, deployment: Deployment, operator: Client
) -> None:
    """Each Verify is in the totals by the time its client has been closed, whoever has answered it."""
    created = await operator.create()
    client = connect(deployment.address, api_key=deployment.operator_key, lease=True)
    asked = 0
    for scopes, verdict in (((), Verdict.VALID), (("pdf.write",), Verdict.INSUFFICIENT_SCOPE)):
        own = 0
        while own < 50:
            answer = await call(client.verify, created.key_string, required_scopes=scopes)
            assert answer.verdict is verdict
            asked, own = asked + 1, own + _is_own(answer)
    await call(client.close)

    async def is_counted() -> bool:
        key = await operator.get(created.key.id)
        assert key.usage_total <= asked
        return key.usage_total == asked

    await eventually(is_counted)
    key = await operator.get(created.key.id)
    assert key.create_time.ToDatetime() < key.last_used_time.ToDatetime() <= key.usage_time.ToDatetime()


async def test_work_in_flight_is_told_when_its_key_is_revoked(leased: AnyClient, operator: Client) -> None:
    """And not when something else of it has changed; looking is no use of the key."""
    created = await operator.create()
    await remembered(leased, created.key_string)
    watch = leased.watch(created.key_string)
    assert await call(watch.refusal) is None
    waiting = asyncio.create_task(call(watch.wait))
    await operator.update(created.key.id, display_name="another name")
    assert await call(watch.wait, 0.5) is None
    assert not waiting.done()
    await operator.revoke(created.key.id)
    assert (await waiting).verdict is Verdict.REVOKED
    assert (await call(watch.refusal)).verdict is Verdict.REVOKED
    key = await operator.get(created.key.id)
    assert key.usage_total <= 10, "one for each change, and not one for each look"


async def test_without_a_lease_nothing_can_be_watched(connect: Connect, deployment: Deployment) -> None:
    """It would be a Verify each time."""
    client = connect(deployment.address, api_key=deployment.operator_key)
    with pytest.raises(ConfigurationError, match="lease=True"):
        client.watch("key")


@OF_ONE_KIND
async def test_a_server_that_stops_hands_its_clients_over(
    connect: Connect, database_url: str, peppers: Peppers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order: its sessions are closed, changes wait for nobody, and the clients go on with another server."""
    monkeypatch.setattr(granting, "CLOSE_SECONDS", 60.0)  # however busy the machine is
    async with AsyncExitStack() as first_stack, AsyncExitStack() as stack:
        first = await Deployment.open(first_stack, database_url, peppers)
        second = await Deployment.open(stack, database_url, peppers, first.operator_key)
        addresses = f"{first.address},{second.address}"
        clients = [connect(f"ipv4:{addresses}", api_key=first.operator_key, lease=True) for _ in range(6)]
        operator = await second.client()
        await operator.create_workspace()
        created = await operator.create()
        for client in clients:
            await remembered(client, created.key_string)
        await first_stack.aclose()
        receipt = (await operator.suspend(created.key.id)).receipt
        assert receipt.path == receipt_pb2.Receipt.PATH_ACK
        for client in clients:
            assert (await call(client.verify, created.key_string)).verdict is Verdict.SUSPENDED
            assert (await remembered(client, created.key_string)).verdict is Verdict.SUSPENDED


@OF_ONE_KIND
@pytest.mark.parametrize("stale", [False, True])
async def test_without_a_server_answers_end_with_the_lease(
    connect: Connect, database_url: str, peppers: Peppers, stale: bool
) -> None:
    """Then nothing can be judged; or it goes on for as long as the operators and the service itself chose."""
    async with AsyncExitStack() as stack:
        terms = Terms(lease_seconds=1.5, renew_seconds=0.25, stale_seconds=1.5)
        server = await Deployment.open(stack, database_url, peppers, terms=terms)
        operator = await server.client()
        await operator.create_workspace()
        created = await operator.create()
        client = connect(server.address, api_key=server.operator_key, lease=True, stale=stale, verify_timeout=0.2)
        await remembered(client, created.key_string)
    seen: list[Basis | None] = []

    async def ask_on() -> None:
        while (answer := await call(client.verify, created.key_string)).valid:
            seen.append(answer.basis)
            await asyncio.sleep(0.02)

    with pytest.raises(Unavailable):
        await ask_on()
    assert (Basis.STALE in seen) is stale
    assert seen == sorted(seen, key=[Basis.MEMORY, Basis.STALE].index)


@OF_ONE_KIND
async def test_another_caller_is_told_anew(
    connect: Connect, operator: Client, deployment: Deployment, tmp_path: Path
) -> None:
    """What the caller before was told is forgotten with its key: the new one may see less."""
    created = await operator.create()
    limited = await deployment.caller("verify", "usage.write", workspaces=["acme-corp/other"])
    file = tmp_path / "caller.key"
    file.write_text(deployment.operator_key)
    client = connect(deployment.address, api_key_file=file, lease=True)
    assert (await remembered(client, created.key_string)).valid
    file.write_text(limited.key_string or "")

    async def is_unknown() -> bool:
        return (await call(client.verify, created.key_string)).verdict is Verdict.NOT_FOUND

    await eventually(is_unknown)
