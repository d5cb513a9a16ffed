"""`keysvc status`, `pepper`, `bump` and `lease-limit`, beside servers that run."""

import asyncio
import json
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import grpc
import psycopg
import pytest

from keysvc.core.pepper import fingerprint
from keysvc.v1 import audit_service_pb2, verify_pb2
from tests.deployment import WORKSPACE, Client, eventually
from tests.process.running import Serving, copy_of, refusal, run

pytestmark = pytest.mark.timeout(180)  # on a busy machine each of many processes takes its time

OLD, NEW = secrets.token_bytes(32), secrets.token_bytes(32)
BOTH = f"{NEW.hex()},{OLD.hex()}"


class Running(NamedTuple):
    """A database with servers."""

    url: str
    operator_key: str
    addresses: tuple[str, ...]

    def keysvc(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command beside them."""
        command, *rest = arguments
        return run(command, *rest, KEYSVC_DATABASE_URL=self.url)

    def document(self, *arguments: str) -> dict[str, Any]:
        """What a command answers in JSON."""
        ended = self.keysvc(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        document: dict[str, Any] = json.loads(ended.stdout)
        return document

    async def client(self, stack: AsyncExitStack, number: int = 0) -> Client:
        """The operator, as a client of one server."""
        channel = grpc.aio.insecure_channel(self.addresses[number])
        stack.push_async_callback(channel.close)
        return Client(channel, self.operator_key)


@pytest.fixture
def empty(server_url: str, template_database: str) -> Iterator[str]:
    """A database with an operator, whose first pepper is the old one."""
    with copy_of(server_url, template_database) as url:
        yield url


@pytest.fixture
def running(empty: str) -> Iterator[Running]:
    """Two servers; the database was new when only the old pepper was there, and they have both."""
    bootstrap = run("bootstrap", KEYSVC_DATABASE_URL=empty, KEYSVC_PEPPERS=OLD.hex())
    variables = {"KEYSVC_DATABASE_URL": empty, "KEYSVC_PEPPERS": BOTH}
    with Serving(**variables) as one, Serving(**variables) as other:
        yield Running(empty, bootstrap.stdout.strip(), (one.ready(), other.ready()))


@pytest.fixture
async def operator(running: Running) -> AsyncIterator[Client]:
    """The operator, with a workspace."""
    async with AsyncExitStack() as stack:
        client = await running.client(stack)
        await client.create_workspace()
        yield client


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run a command while the test's own clients go on."""
    return await asyncio.to_thread(work, *arguments)


async def activate(running: Running, pepper: str) -> None:
    """Let another pepper sign, once the servers have told which ones they have."""

    async def is_activated() -> bool:
        ended = await in_thread(running.keysvc, "pepper", "activate", pepper)
        assert ended.returncode == 0 or "do not have" in ended.stderr, ended.stderr
        return bool(ended.returncode == 0)

    await eventually(is_activated)


async def test_status_tells_of_servers_and_barriers(running: Running, operator: Client) -> None:
    """Hosts, how far they are, their leases, hits and misses, and barriers by how they ended and how long they took."""
    created = await operator.create()
    for _ in range(5):
        await operator.verify(created.key_string)
    await operator.revoke(created.key.id)

    async def is_told() -> dict[str, Any] | None:
        status: dict[str, Any] = await in_thread(running.document, "status")
        told = any(holder.get("barriers", {}).get("ack", {}).get("count") for holder in status["holders"])
        return status if told and all("hits" in holder for holder in status["holders"]) else None

    status = await eventually(is_told)
    assert len(status["holders"]) == 2
    assert [holder["behind"] for holder in status["holders"]] == [0, 0]
    assert {holder["lease_ms"] for holder in status["holders"]} == {3000}
    assert sum(holder["hits"] for holder in status["holders"]) >= 4
    assert status["revision"].endswith(".1")
    assert status["open_barriers"] == []
    assert status["lease_ms_max"] == 3000
    text = (await in_thread(running.keysvc, "status")).stdout
    assert "SERVER" in text
    assert "acknowledged" in text
    assert all(holder["host"] in text for holder in status["holders"])


async def test_status_says_who_keeps_a_barrier_open(running: Running, operator: Client) -> None:
    """A server that is there and says nothing is named beside the change that waits for it."""
    created = await operator.create()
    with psycopg.connect(running.url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO lease_member (member_id, applied_seq, beat, lease_ms, host, started_at)"
            " VALUES (gen_random_uuid(), 0, 0, 3000, 'silent', now())"
        )
    revoking = asyncio.create_task(operator.revoke(created.key.id))

    async def is_open() -> list[Any] | None:
        status: dict[str, Any] = await in_thread(running.document, "status")
        return status["open_barriers"] or None

    (barrier,) = await eventually(is_open)
    assert barrier["kept_open_by"] == ["silent"]
    assert (barrier["kind"], barrier["subject_ids"]) == ("keys", [created.key.id])
    await revoking


async def test_bump_makes_servers_forget_what_was_changed_by_hand(running: Running, operator: Client) -> None:
    """Rows that somebody edited are seen by every server when the command has returned; the audit log knows it."""
    created = await operator.create()
    async with AsyncExitStack() as stack:
        clients = [await running.client(stack, number) for number in (0, 1)]
        for client in clients:
            await client.verify(created.key_string)
            assert (await client.verify(created.key_string)).basis == verify_pb2.BASIS_MEMORY
        with psycopg.connect(running.url) as connection:
            connection.execute("UPDATE key SET suspended = true WHERE id = %s", (created.key.id,))
        bumped = await in_thread(running.keysvc, "bump", "--reason", "by hand")
        assert bumped.returncode == 0, bumped.stderr
        assert "COMPLETE" in bumped.stdout
        assert [await client.verdict(created.key_string) for client in clients] == ["SUSPENDED", "SUSPENDED"]
    request = audit_service_pb2.ListAuditEventsRequest(filter={"method": "keysvc bump"})
    (event,) = (await operator.call(operator.audit.ListAuditEvents, request)).events
    assert (event.actor, event.reason) == ("command line", "by hand")


async def test_a_new_epoch_ends_all_revisions(running: Running, operator: Client) -> None:
    """After a restored backup: receipts from before mean nothing, and servers join the new log by themselves."""
    created = await operator.create()
    receipt = (await operator.suspend(created.key.id)).receipt
    bumped = await in_thread(running.keysvc, "bump", "--new-epoch")
    assert "COMPLETE" in bumped.stdout, bumped.stderr
    with pytest.raises(Exception, match="another database"):
        await operator.verify(created.key_string, consistency={"at_least": receipt.revision})
    await operator.resume(created.key.id)

    async def is_hot() -> bool:
        return (await operator.verify(created.key_string)).basis == verify_pb2.BASIS_MEMORY

    await eventually(is_hot)


async def test_a_pepper_comes_and_another_one_goes(running: Running, operator: Client) -> None:
    """The new one signs; secrets move to it when they are used; the old one can go, with what was not used."""
    used, unused = await operator.create(), await operator.create()
    await operator.verify(used.key_string)
    old, new = fingerprint(OLD).hex(), fingerprint(NEW).hex()
    await activate(running, new)

    async def has_moved() -> bool:
        await operator.verify(used.key_string)
        listed = (await in_thread(running.document, "pepper", "list"))["peppers"]
        secrets_of = {each["fingerprint"]: each["secrets"] for each in listed}
        signing = [each["fingerprint"] for each in listed if each["signing"]]
        return signing == [new] and secrets_of == {old: 1, new: 2}

    # The key that is used and the operator's own; what nobody uses stays.
    await eventually(has_moved, seconds=60)
    refused = await in_thread(running.keysvc, "pepper", "retire", old)
    assert refused.returncode == 1
    assert "1 secrets" in refused.stderr
    assert await operator.verdict(unused.key_string, consistency={"strong": {}}) == "VALID"


async def test_retiring_a_pepper_is_true_everywhere_when_it_returns(running: Running, operator: Client) -> None:
    """Forced: no server accepts a key under it any more, from memory either."""
    doomed = await operator.create()
    async with AsyncExitStack() as stack:
        clients = [await running.client(stack, number) for number in (0, 1)]
        for client in clients:
            await client.verify(doomed.key_string)
            await client.verify(doomed.key_string)
        await activate(running, fingerprint(NEW).hex())

        async def has_moved() -> bool:
            # The operator's key must move, or nobody could ask any more.
            await operator.list()
            with psycopg.connect(running.url) as connection:
                rows = connection.execute(
                    "SELECT count(*) FROM secret s JOIN key k ON k.id = s.key_id JOIN workspace w"
                    " ON w.id = k.workspace_id WHERE w.name = 'keysvc/system' AND s.pepper = %s",
                    (fingerprint(NEW),),
                )
                return rows.fetchone() == (1,)

        await eventually(has_moved, seconds=60)
        retired = await in_thread(running.keysvc, "pepper", "retire", fingerprint(OLD).hex(), "--force")
        assert retired.returncode == 0, retired.stderr
        assert "COMPLETE" in retired.stdout
        fresh = await operator.create(workspace=WORKSPACE)
        assert await operator.verdict(fresh.key_string) == "VALID"
        for client in clients:
            verdict = await client.verdict(doomed.key_string)
            # Whoever moved in time lives on; nobody is accepted under the old one.
            with psycopg.connect(running.url) as connection:
                row = connection.execute("SELECT pepper FROM secret WHERE id = %s", (doomed.key.secrets[0].id,))
                moved = row.fetchone() == (fingerprint(NEW),)
            assert verdict == ("VALID" if moved else "NOT_FOUND")


async def test_a_pepper_that_a_server_lacks_cannot_sign(running: Running) -> None:
    """The servers are named; a retired one, the one that signs and one that nobody knows cannot be retired."""
    refused = await in_thread(running.keysvc, "pepper", "activate", "00" * 8)
    assert refused.returncode == 1
    assert "do not have pepper" in refused.stderr
    signing = await in_thread(running.keysvc, "pepper", "retire", fingerprint(OLD).hex())
    assert "activate another one first" in signing.stderr
    unknown = await in_thread(running.keysvc, "pepper", "retire", "00" * 8)
    assert "there is no pepper" in unknown.stderr
    wrong = await in_thread(running.keysvc, "pepper", "retire", "zz")
    assert wrong.returncode == 2
    assert "16 hex digits" in wrong.stderr


async def test_leases_beyond_the_limit_are_refused(running: Running, empty: str) -> None:
    """A server with a longer lease does not start until the limit is raised, which cannot go below those that run."""
    variables = {"KEYSVC_DATABASE_URL": empty, "KEYSVC_PEPPERS": BOTH, "KEYSVC_LEASE_SECONDS": "5"}
    refused = await in_thread(lambda: run("serve", "--listen", "127.0.0.1:0", **variables))
    assert refused.returncode == 1
    assert "lease-limit" in refusal(refused.stderr)
    lowered = await in_thread(running.keysvc, "lease-limit", "1")
    assert lowered.returncode == 1
    assert "longer leases" in lowered.stderr
    raised = await in_thread(running.keysvc, "lease-limit", "6")
    assert raised.returncode == 0, raised.stderr
    with Serving(**variables) as long:
        long.ready()
