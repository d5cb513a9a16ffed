"""Answers from memory, and receipts: two servers on one database, as their callers see them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple
from uuid import uuid4

import grpc
import psycopg
import pytest

from keysvc.core.pepper import Peppers
from keysvc.lease.terms import Terms
from keysvc.v1 import key_pb2, key_service_pb2, receipt_pb2, verify_pb2, workspace_service_pb2
from tests.deployment import TERMS, WORKSPACE, Client, Deployment, Refused, eventually
from tests.proxy import Proxy

SHORT = Terms(lease_seconds=1.0, renew_seconds=0.1)
TIMER_SECONDS = SHORT.wait_seconds(SHORT.lease_ms)

COMMIT = receipt_pb2.WAIT_COMMIT
COMPLETE, PENDING = receipt_pb2.Receipt.STATE_COMPLETE, receipt_pb2.Receipt.STATE_PENDING
ACK, TIMER = receipt_pb2.Receipt.PATH_ACK, receipt_pb2.Receipt.PATH_TIMER
MEMORY, DATABASE, STALE = verify_pb2.BASIS_MEMORY, verify_pb2.BASIS_DATABASE, verify_pb2.BASIS_STALE


class Pair(NamedTuple):
    """The operator, as a client of each of two servers, and their database."""

    first: Client
    second: Client
    database_url: str

    async def hot(self, **fields: Any) -> key_service_pb2.CreateResponse:
        """A key that both servers remember."""
        created = await self.first.create(**fields)
        for client in self:
            if isinstance(client, Client):
                await client.verify(created.key_string)
                answer = await client.verify(created.key_string)
                assert (answer.basis, answer.verdict) == (MEMORY, verify_pb2.VERDICT_VALID)
        return created

    def silent_member(self, lease_ms: int = SHORT.lease_ms) -> None:
        """Somebody who may answer from memory, and never says anything."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO lease_member (member_id, applied_seq, beat, lease_ms, host, started_at)"
                " VALUES (%s, 0, 0, %s, 'silent', now())",
                (uuid4(), lease_ms),
            )


async def open_pair(stack: AsyncExitStack, database_url: str, peppers: Peppers, terms: Terms) -> Pair:
    """Two servers."""
    one = await Deployment.open(stack, database_url, peppers, terms=terms)
    other = await Deployment.open(stack, database_url, peppers, one.operator_key, terms=terms)
    first = await one.client()
    await first.create_workspace()
    return Pair(first, await other.client(), database_url)


@pytest.fixture
async def pair(database_url: str, peppers: Peppers) -> AsyncIterator[Pair]:
    """Two servers with the usual leases."""
    async with AsyncExitStack() as stack:
        yield await open_pair(stack, database_url, peppers, TERMS)


@pytest.fixture
async def short(database_url: str, peppers: Peppers) -> AsyncIterator[Pair]:
    """Two servers with short leases, for tests that wait for their end."""
    async with AsyncExitStack() as stack:
        yield await open_pair(stack, database_url, peppers, SHORT)


async def suspend_workspace(client: Client) -> receipt_pb2.Receipt:
    """Suspend the workspace."""
    request = workspace_service_pb2.SuspendWorkspaceRequest(name=WORKSPACE)
    return (await client.call(client.workspaces.SuspendWorkspace, request)).receipt


async def test_a_key_is_looked_up_once(pair: Pair) -> None:
    """The first answer comes from the database, the next ones from memory, with the same content."""
    created = await pair.first.create(scopes=["pdf.read"], owner="team-a", metadata={"a": "b"})
    answers = [await pair.first.verify(created.key_string) for _ in range(3)]
    assert [answer.basis for answer in answers] == [DATABASE, MEMORY, MEMORY]
    for answer in answers:
        answer.ClearField("basis")
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ("revoke", "REVOKED"),
        ("revoke secret", "REVOKED"),
        ("suspend", "SUSPENDED"),
        ("suspend workspace", "WORKSPACE_SUSPENDED"),
        ("narrow scopes", "INSUFFICIENT_SCOPE"),
        ("narrow addresses", "IP_NOT_ALLOWED"),
        ("narrow workspace", "INSUFFICIENT_SCOPE"),
        ("rotate", "EXPIRED"),
    ],
)
async def test_when_a_change_has_returned_it_is_true_at_every_server(pair: Pair, change: str, verdict: str) -> None:
    """Both servers remember the key; the change is made at one, and the other one knows of it from then on."""
    created = await pair.hot(scopes=["pdf.read"])
    key_id, first = created.key.id, pair.first
    narrowed = workspace_service_pb2.UpdateWorkspaceRequest(
        workspace={"name": WORKSPACE, "allowed_scopes": ["csv.*"]}, update_mask={"paths": ["allowed_scopes"]}
    )
    receipt = {
        "revoke": lambda: first.revoke(key_id),
        "revoke secret": lambda: first.revoke(key_id, secret_id=created.key.secrets[0].id),
        "suspend": lambda: first.suspend(key_id),
        "suspend workspace": lambda: suspend_workspace(first),
        "narrow scopes": lambda: first.update(key_id, "scopes", scopes=["csv.read"]),
        "narrow addresses": lambda: first.update(key_id, "ip_allowlist", ip_allowlist=["192.0.2.1"]),
        "narrow workspace": lambda: first.call(first.workspaces.UpdateWorkspace, narrowed),
        "rotate": lambda: first.rotate(key_id, overlap={}),
    }[change]()
    answered = await receipt
    receipt = answered if change == "suspend workspace" else answered.receipt
    assert (receipt.state, receipt.path) == (COMPLETE, ACK)
    for client in (pair.second, pair.first):
        assert await client.verdict(created.key_string, required_scopes=["pdf.read"]) == verdict


async def test_a_workspace_that_changes_costs_one_look_up(pair: Pair) -> None:
    """Keys share what is remembered of their workspace: one look-up makes all of them hot again."""
    keys = [await pair.hot() for _ in range(3)]
    await suspend_workspace(pair.first)
    answers = [await pair.second.verify(created.key_string) for created in keys]
    assert {answer.verdict for answer in answers} == {verify_pb2.VERDICT_WORKSPACE_SUSPENDED}
    assert [answer.basis for answer in answers] == [DATABASE, MEMORY, MEMORY]


async def test_strong_reads_the_database(pair: Pair) -> None:
    """Also what is remembered."""
    created = await pair.hot()
    answer = await pair.first.verify(created.key_string, consistency={"strong": {}})
    assert (answer.basis, answer.verdict) == (DATABASE, verify_pb2.VERDICT_VALID)


async def test_at_least_answers_from_memory_when_that_is_new_enough(pair: Pair) -> None:
    """A revision that the server has applied is answered from memory; one that does not exist is refused."""
    created = await pair.hot()
    receipt = (await pair.first.suspend((await pair.first.create()).key.id)).receipt
    answer = await pair.second.verify(created.key_string, consistency={"at_least": receipt.revision})
    assert answer.basis == MEMORY
    epoch, _, seq = receipt.revision.partition(".")
    for foreign in (f"{epoch}.{int(seq) + 1}", f"{uuid4().hex}.0"):
        with pytest.raises(Refused) as refused:
            await pair.second.verify(created.key_string, consistency={"at_least": foreign})
        assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_silent_server_is_waited_for_until_its_lease_has_ended(short: Pair) -> None:
    """TIMER, not before the bound, and the receipt names the host; REVOKING until then, everywhere, then REVOKED."""
    created = await short.hot()
    lease_ms = 3_000  # long enough for a busy machine to look at what is true until then
    short.silent_member(lease_ms)
    seconds = SHORT.wait_seconds(lease_ms)
    began = time.monotonic()
    revoking = asyncio.create_task(short.first.revoke(created.key.id))

    async def is_revoking() -> bool:
        return (await short.second.verdict(created.key_string)) == "REVOKING"

    await eventually(is_revoking)
    assert (await short.second.get(created.key.id)).state == key_pb2.Key.STATE_REVOKING
    listed = await short.second.list(state=key_pb2.Key.STATE_REVOKING)
    assert [key.id for key in listed.keys] == [created.key.id]
    assert not (await short.second.list(state=key_pb2.Key.STATE_REVOKED)).keys
    with pytest.raises(Refused) as refused:
        await short.second.resume(created.key.id)
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION
    answered = await revoking
    assert time.monotonic() - began >= seconds
    assert answered.receipt.path == TIMER
    assert list(answered.receipt.unacknowledged) == ["silent"]
    assert answered.receipt.waited.ToTimedelta().total_seconds() >= seconds
    assert answered.key.state == key_pb2.Key.STATE_REVOKED
    for client in (short.first, short.second):
        assert await client.verdict(created.key_string) == "REVOKED"
        assert (await client.get(created.key.id)).state == key_pb2.Key.STATE_REVOKED


async def test_who_does_not_want_to_wait_is_told_by_when(short: Pair) -> None:
    """WAIT_COMMIT is PENDING with a time; by then it is true, and a repeat gets the receipt of the same revocation."""
    created = await short.hot()
    short.silent_member()
    request = key_service_pb2.RevokeRequest(key_id=created.key.id, wait=COMMIT)
    pending = await short.first.call(short.first.keys.Revoke, request)
    assert pending.receipt.state == PENDING
    assert pending.key.state == key_pb2.Key.STATE_REVOKING
    assert pending.receipt.effective_by.ToNanoseconds() > time.time_ns()
    again = await short.second.revoke(created.key.id)
    assert again.receipt.revision == pending.receipt.revision
    assert (again.receipt.path, again.key.state) == (TIMER, key_pb2.Key.STATE_REVOKED)


async def test_a_deadline_that_comes_first_gets_a_receipt_all_the_same(short: Pair) -> None:
    """PENDING just before the caller's deadline, and the barrier goes on without it."""
    created = await short.hot()
    short.silent_member()
    headers = [("authorization", f"Bearer {short.first.key_string}")]
    request = key_service_pb2.RevokeRequest(key_id=created.key.id)
    answered = await short.first.keys.Revoke(request, metadata=headers, timeout=0.5)
    assert answered.receipt.state == PENDING
    assert list(answered.receipt.unacknowledged) == ["silent"]

    async def is_revoked() -> bool:
        return (await short.second.verdict(created.key_string)) == "REVOKED"

    await eventually(is_revoked)


async def test_a_change_that_only_adds_does_not_wait_for_long(short: Pair) -> None:
    """PENDING after a quarter of a second, since nobody is harmed by not knowing of it yet."""
    created = await short.hot()
    await short.first.suspend(created.key.id)
    short.silent_member(lease_ms=3000)
    answered = await short.first.resume(created.key.id)
    assert answered.receipt.state == PENDING
    assert 0.2 < answered.receipt.waited.ToTimedelta().total_seconds() < 3


async def test_members_that_died_are_forgotten(short: Pair) -> None:
    """A row whose beat stands still for three times the bound is removed, and waited for no more."""
    short.silent_member(lease_ms=200)

    async def is_gone() -> bool:
        with psycopg.connect(short.database_url, autocommit=True) as connection:
            return connection.execute("SELECT count(*) FROM lease_member WHERE host = 'silent'").fetchone() == (0,)

    await eventually(is_gone)


async def test_a_barrier_whose_server_died_is_finished_by_another_one(short: Pair) -> None:
    """A revocation that nobody waits for becomes final."""
    created = await short.hot()
    with psycopg.connect(short.database_url, autocommit=True) as connection:
        connection.execute("UPDATE key_change SET final = false, at = now() - interval '1 minute'")
        await short.first.revoke(created.key.id)
        connection.execute("UPDATE key_change SET final = false, at = now() - interval '1 minute'")

    async def is_final() -> bool:
        return (await short.second.get(created.key.id)).state == key_pb2.Key.STATE_REVOKED

    await eventually(is_final)


async def test_a_server_whose_row_is_gone_joins_again(short: Pair) -> None:
    """It gives up what it remembers, and remembers again under a new row."""
    created = await short.hot()
    with psycopg.connect(short.database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM lease_member")

        async def is_back() -> bool:
            return connection.execute("SELECT count(*) FROM lease_member").fetchone() == (2,)

        await eventually(is_back)
    await short.first.revoke(created.key.id)
    assert await short.second.verdict(created.key_string) == "REVOKED"


async def test_servers_leave_when_they_stop(database_url: str, peppers: Peppers) -> None:
    """Nobody waits for a server that was stopped in order."""
    async with AsyncExitStack() as stack:
        await open_pair(stack, database_url, peppers, TERMS)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM lease_member").fetchone() == (0,)


async def test_an_outage_is_bridged_for_as_long_as_the_operator_allows(database_url: str, peppers: Peppers) -> None:
    """After the lease answers are STALE, callers included; a key that is not remembered and strong are UNAVAILABLE."""
    terms = Terms(lease_seconds=0.5, renew_seconds=0.05, stale_seconds=2.0)
    proxy = Proxy(database_url)
    await proxy.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(proxy.stop)
        client = await (await Deployment.open(stack, proxy.url, peppers, terms=terms)).client()
        await client.create_workspace()
        created, unknown = await client.create(), await client.create()
        await client.verify(created.key_string)
        await proxy.stop()

        async def is_stale() -> bool:
            answer = await client.verify(created.key_string)
            assert answer.verdict == verify_pb2.VERDICT_VALID
            return answer.basis == STALE

        await eventually(is_stale)
        for fields in ({"key_string": unknown.key_string}, {"key_string": created.key_string, "consistency": STRONG}):
            with pytest.raises(Refused) as refused:
                await client.verify(**fields)
            assert refused.value.code is grpc.StatusCode.UNAVAILABLE

        async def is_over() -> bool:
            try:
                await client.verify(created.key_string)
            except Refused as refused:
                return refused.code is grpc.StatusCode.UNAVAILABLE
            return False

        await eventually(is_over)
        await proxy.start()
        await eventually(lambda: _answers(client, created.key_string))


STRONG: dict[str, Any] = {"strong": {}}


async def _answers(client: Client, key_string: str) -> bool:
    try:
        return (await client.verify(key_string)).verdict == verify_pb2.VERDICT_VALID
    except Refused:
        return False


async def test_a_wake_up_that_lies_keeps_nobody_busy(pair: Pair) -> None:
    """Whoever may NOTIFY can tell of a change that there is not: each server looks once, and goes on as before."""

    def beats(connection: "psycopg.Connection[Any]") -> int:
        row = connection.execute("SELECT sum(beat)::int FROM lease_member").fetchone()
        assert row is not None
        return int(row[0])

    with psycopg.connect(pair.database_url, autocommit=True) as connection:
        before = beats(connection)
        connection.execute("SELECT pg_notify('keysvc_wake', '999999999'), pg_notify('keysvc_wake', 'nonsense')")
        await asyncio.sleep(1)
        # Two renewals a second for each of two servers, and one more for the wake-up.
        assert beats(connection) - before < 20
    created = await pair.hot()
    assert (await pair.first.revoke(created.key.id)).receipt.path == ACK
