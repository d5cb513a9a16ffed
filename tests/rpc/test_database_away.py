"""The database is away, slow to answer, or takes a commit without saying so."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from io import StringIO
from math import inf
from typing import Any

import grpc
import psycopg
import pytest

from keysvc.core.pepper import Peppers
from keysvc.lease.terms import Terms
from keysvc.storage import Limits
from keysvc.store.migrate import migrate
from keysvc.v1 import audit_service_pb2, key_service_pb2, usage_pb2, usage_service_pb2, workspace_service_pb2
from tests.deployment import WORKSPACE, Client, Deployment, Refused, eventually
from tests.proxy import Proxy

PROMISE_SECONDS = 2.0

STRONG: dict[str, Any] = {"strong": {}}
SHORT = Terms(lease_seconds=0.5, renew_seconds=0.05)


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    """A proxy in front of the database."""
    proxy = Proxy(database_url)
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
async def operator(proxy: Proxy, peppers: Peppers) -> AsyncIterator[Client]:
    """An operator with a workspace, on a server behind the proxy."""
    async with AsyncExitStack() as stack:
        server = await Deployment.open(stack, proxy.url, peppers, limits=Limits(), terms=SHORT)
        operator = await server.client()
        await operator.create_workspace()
        yield operator


async def unavailable(attempt: Awaitable[Any]) -> None:
    """The attempt is UNAVAILABLE with a time to retry, within three times the promise."""
    started = time.monotonic()
    with pytest.raises(Refused) as refused:
        await attempt
    assert time.monotonic() - started < 3 * PROMISE_SECONDS
    assert refused.value.code is grpc.StatusCode.UNAVAILABLE
    assert refused.value.retry_after_seconds == 1.0
    assert refused.value.reason == "UNAVAILABLE"


async def recovered(operator: Client, key_string: str) -> None:
    """Soon everything works again."""
    for _ in range(100):
        try:
            verdict = await operator.verdict(key_string)
            await operator.create()
        except Refused as refused:
            assert refused.code is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 (the loop is the point)
            await asyncio.sleep(0.05)
        else:
            assert verdict == "VALID"
            return
    pytest.fail("it does not recover")


async def lease_ended(operator: Client) -> None:
    """Wait until the server cannot judge callers any more, from memory either."""

    async def is_over() -> bool:
        try:
            await operator.verify("nonsense")
        except Refused as refused:
            return refused.code is grpc.StatusCode.UNAVAILABLE
        return False

    await eventually(is_over)


async def test_without_a_database_nothing_is_judged(operator: Client, proxy: Proxy) -> None:
    """Refused connections: UNAVAILABLE at once, for Verify, reads and changes; recovery by itself."""
    created = await operator.create()
    await proxy.stop()
    await unavailable(operator.verify(created.key_string))
    await unavailable(operator.list())
    await unavailable(operator.create())
    await unavailable(operator.revoke(created.key.id))
    await lease_ended(operator)
    # What needs no database is still answered, but its caller cannot be judged.
    await unavailable(operator.verify("nonsense"))
    await proxy.start()
    await recovered(operator, created.key_string)


async def test_a_frozen_database_is_given_up(operator: Client, proxy: Proxy) -> None:
    """Connections that are open and silent: UNAVAILABLE in time, all at once too; recovery by itself."""
    created = await operator.create()
    proxy.freeze()
    await asyncio.gather(
        unavailable(operator.verify(created.key_string)),
        *(unavailable(operator.list()) for _ in range(10)),
        unavailable(operator.create()),
    )
    await unavailable(operator.revoke(created.key.id))
    proxy.thaw()
    await recovered(operator, created.key_string)


async def test_terminated_backends_are_not_noticed(operator: Client, database_url: str) -> None:
    """A connection that is lost while idle is replaced without an error."""
    created = await operator.create()
    for _ in range(5):
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
            )
        assert await operator.verdict(created.key_string) == "VALID"
        await operator.list()
        await operator.suspend(created.key.id)
        await operator.resume(created.key.id)


@pytest.mark.parametrize("late_seconds", [0.0, 0.3])
@pytest.mark.parametrize("change", ["create", "create_workspace", "suspend", "revoke", "update"])
async def test_a_commit_whose_answer_is_lost_is_settled(
    operator: Client, proxy: Proxy, change: str, late_seconds: float
) -> None:
    """The change is made once and its caller is told so, also when the lost commit arrives after the second try."""
    key_id = (await operator.create()).key.id
    etag = (await get_workspace(operator)).etag
    update = workspace_service_pb2.UpdateWorkspaceRequest(
        workspace={"name": WORKSPACE, "allowed_scopes": ["pdf.*"], "etag": etag},
        update_mask={"paths": ["allowed_scopes"]},
    )
    changes: dict[str, Callable[[], Awaitable[Any]]] = {
        "create": operator.create,
        "create_workspace": lambda: operator.create_workspace("acme-corp/new"),
        "suspend": lambda: operator.suspend(key_id),
        "revoke": lambda: operator.revoke(key_id, reason="leaked"),
        "update": lambda: operator.call(operator.workspaces.UpdateWorkspace, update),
    }
    before = await events(operator)
    proxy.lose_commits(1, late_seconds=late_seconds)
    response = await changes[change]()
    assert proxy.commits_lost == 1
    (event,) = (await events(operator))[: -len(before)]
    if change == "create":
        assert await operator.verdict(response.key_string) == "VALID"
        assert event.key_id == response.key.id
    elif change in {"suspend", "revoke", "update"}:
        assert event.revision == response.receipt.revision
        assert event.revision.endswith(".1")


@pytest.mark.parametrize("late_seconds", [0.0, 0.3, inf])
async def test_a_report_whose_answer_is_lost_is_counted_once(
    operator: Client, proxy: Proxy, late_seconds: float
) -> None:
    """Whether the lost commit arrived before the second try, after it or never."""
    key = (await operator.create()).key
    record = usage_pb2.UsageRecord(key_id=key.id, secret_id=key.secrets[0].id, outcome=usage_pb2.OUTCOME_SUCCESS)
    proxy.lose_commits(1, late_seconds=late_seconds)
    for seq in (1, 2):
        request = usage_pb2.RecordUsageRequest(source_id="reporter", batch_seq=seq, records=[record])
        answer = await operator.call(operator.keys.RecordUsage, request)
        assert (answer.accepted, answer.duplicate) == (1, False)
    assert proxy.commits_lost == 1
    query = usage_service_pb2.QueryUsageRequest(key_id=key.id)
    (bucket,) = (await operator.call(operator.usage.QueryUsage, query)).buckets
    assert bucket.success_count == 2


@pytest.mark.parametrize("late_seconds", [0.0, 0.3, inf])
async def test_what_a_server_counts_is_written_once(operator: Client, proxy: Proxy, late_seconds: float) -> None:
    """However its own commits are lost, each Verify is in the total, once."""
    created = await operator.create()
    proxy.lose_commits(3, late_seconds=late_seconds, application=b"keysvc background")
    for _ in range(50):
        await operator.verdict(created.key_string)

    async def is_written() -> bool:
        return proxy.commits_lost == 3 and (await operator.get(created.key.id)).usage_total == 50

    await eventually(is_written)
    for _ in range(50):
        await operator.verdict(created.key_string)

    async def grows() -> bool:
        total = (await operator.get(created.key.id)).usage_total
        assert total <= 100
        return total == 100

    await eventually(grows)


async def test_the_log_says_why_the_database_is_away(operator: Client, proxy: Proxy, log: StringIO) -> None:
    """Once, with what the driver said; and that it is back."""
    created = await operator.create()
    await operator.verify(created.key_string, consistency=STRONG)
    await proxy.stop()
    for _ in range(3):
        await unavailable(operator.verify(created.key_string, consistency=STRONG))
    await proxy.start()
    await recovered(operator, created.key_string)
    await operator.verify(created.key_string, consistency=STRONG)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    (away,) = [line for line in lines if line["event"] == "database away" and line["connections"] == "keysvc verify"]
    assert "refused" in away["cause"]
    assert [line["event"] for line in lines if line.get("connections") == "keysvc verify"] == [
        "database away",
        "database back",
    ]


async def test_a_call_that_its_caller_gives_up_is_in_the_log(operator: Client, proxy: Proxy, log: StringIO) -> None:
    """A deadline that passed at the caller is not a call that never was."""
    await operator.list()
    proxy.freeze()
    with pytest.raises(grpc.aio.AioRpcError):
        await operator.keys.List(
            key_service_pb2.ListRequest(), metadata=[("authorization", f"Bearer {operator.key_string}")], timeout=0.1
        )
    proxy.thaw()

    async def is_told() -> bool:
        return "call cancelled" in log.getvalue()

    await eventually(is_told)


async def test_a_change_is_settled_however_often_its_answer_is_lost(operator: Client, proxy: Proxy) -> None:
    """What was committed is told, even if no later commit would get an answer."""
    proxy.lose_commits(100)
    await operator.create_workspace("acme-corp/new")
    assert proxy.commits_lost == 1


async def test_commits_that_never_arrive_are_unavailable(operator: Client, proxy: Proxy) -> None:
    """When no try gets through, nothing is promised and nothing happened; a repeat succeeds."""
    before = await events(operator)
    proxy.lose_commits(100, late_seconds=inf)
    await unavailable(operator.create_workspace("acme-corp/new"))
    assert await events(operator) == before
    proxy.lose_commits(0)
    await operator.create_workspace("acme-corp/new")


async def test_a_lost_commit_that_keeps_its_locks_is_not_overload(proxy: Proxy, peppers: Peppers) -> None:
    """A second try that waits in vain for the first one's locks does not say that nothing was done: it tries again."""
    async with AsyncExitStack() as stack:
        operator = await (await Deployment.open(stack, proxy.url, peppers)).client()
        await operator.create_workspace()
        key_id = (await operator.create()).key.id
        proxy.lose_commits(1, late_seconds=1.5)
        await operator.suspend(key_id)
        assert proxy.commits_lost == 1
        assert [event.method for event in await events(operator)].count("keysvc.v1.KeyService/Suspend") == 1


async def test_load_is_not_taken_for_an_outage(operator: Client) -> None:
    """Two hundred creations at once wait for their turn, and all succeed."""
    await asyncio.gather(*(operator.create() for _ in range(200)))


async def test_a_lock_that_somebody_keeps_is_not_an_outage(operator: Client, database_url: str) -> None:
    """Only the change that needs it is refused, with a time to retry; everything else goes on."""
    created = await operator.create()
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT FROM key WHERE id = %s FOR UPDATE", (created.key.id,))
        suspension = asyncio.create_task(operator.suspend(created.key.id))
        await operator.create()
        with pytest.raises(Refused) as refused:
            await suspension
        assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.value.retry_after_seconds == 1.0
    await operator.suspend(created.key.id)


async def test_the_defaults_of_the_database_do_not_matter(
    empty_database_url: str, peppers: Peppers, server_url: str
) -> None:
    """Whatever an administrator sets for the database, times and spans are read as they were written."""
    name = empty_database_url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(server_url, autocommit=True) as connection:
        for setting in (
            "TimeZone = 'Asia/Tokyo'",
            "DateStyle = 'German'",
            "IntervalStyle = 'iso_8601'",
            "default_transaction_isolation = 'serializable'",
        ):
            connection.execute(f"ALTER DATABASE {name} SET {setting}".encode())
    await asyncio.to_thread(migrate, empty_database_url)
    async with AsyncExitStack() as stack:
        operator = await (await Deployment.open(stack, empty_database_url, peppers)).client()
        await operator.create_workspace(max_ttl={"seconds": 90_061})
        created = await operator.create()
        assert created.key.expire_time.seconds - created.key.create_time.seconds == 90_061
        assert (await get_workspace(operator)).max_ttl.seconds == 90_061
        assert await operator.verdict(created.key_string) == "VALID"


async def get_workspace(operator: Client) -> workspace_service_pb2.Workspace:
    """The workspace."""
    request = workspace_service_pb2.GetWorkspaceRequest(name=WORKSPACE)
    return (await operator.call(operator.workspaces.GetWorkspace, request)).workspace


async def events(operator: Client) -> list[audit_service_pb2.AuditEvent]:
    """All audit events, newest first."""
    request = audit_service_pb2.ListAuditEventsRequest(page_size=1000)
    return list((await operator.call(operator.audit.ListAuditEvents, request)).events)
