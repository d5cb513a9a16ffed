"""Two server processes on one database: what one has done is true at the other from the next call on."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import grpc
import pytest

from keysvc.v1 import verify_pb2, workspace_service_pb2
from tests.deployment import Client, Refused, eventually
from tests.process.running import Serving, copy_of, run

pytestmark = pytest.mark.timeout(180)  # on a busy machine each of many processes takes its time

ROUNDS = 100


class Pair(NamedTuple):
    """Two servers on one database."""

    addresses: tuple[str, str]
    operator_key: str
    variables: dict[str, str]


@pytest.fixture(scope="module")
def pair(server_url: str, template_database: str) -> Iterator[Pair]:
    """Two servers that were started at the same time."""
    with copy_of(server_url, template_database) as url:
        variables = {"KEYSVC_DATABASE_URL": url, "KEYSVC_PEPPERS": secrets.token_hex(32)}
        with Serving(**variables) as first, Serving(**variables) as second:
            bootstrap = run("bootstrap", **variables)
            assert bootstrap.returncode == 0, bootstrap.stderr
            yield Pair((first.ready(), second.ready()), bootstrap.stdout.strip(), variables)


@pytest.fixture
async def clients(pair: Pair) -> AsyncIterator[tuple[Client, Client]]:
    """The operator, as a client of each."""
    async with AsyncExitStack() as stack:
        yield (await client_of(stack, pair, pair.addresses[0])), (await client_of(stack, pair, pair.addresses[1]))


async def client_of(stack: AsyncExitStack, pair: Pair, address: str) -> Client:
    """The operator, as a client of one server."""
    channel = grpc.aio.insecure_channel(address)
    stack.push_async_callback(channel.close)
    return Client(channel, pair.operator_key)


@pytest.fixture
async def workspace(clients: tuple[Client, Client]) -> str:
    """A workspace of its own for each test."""
    return (await clients[0].create_workspace(f"acme-corp/{secrets.token_hex(8)}")).name


async def test_a_key_revoked_through_one_is_refused_by_the_other(
    clients: tuple[Client, Client], workspace: str
) -> None:
    """VALID at both before, REVOKED at both in the first call that starts after the receipt, in every round.

    The servers take turns; other calls of the same key are under way at the other server all the time.
    """
    for each in range(ROUNDS):
        here, there = clients if each % 2 else clients[::-1]
        created = await here.create(workspace=workspace)
        assert await there.verdict(created.key_string) == "VALID"
        under_way = [asyncio.create_task(there.verdict(created.key_string)) for _ in range(3)]
        await here.revoke(created.key.id)
        assert await there.verdict(created.key_string) == "REVOKED"
        assert await here.verdict(created.key_string) == "REVOKED"
        assert set(await asyncio.gather(*under_way)) <= {"VALID", "REVOKING", "REVOKED"}


async def test_a_workspace_suspended_through_one_is_refused_by_the_other(
    clients: tuple[Client, Client], workspace: str
) -> None:
    """Suspended and resumed workspaces, and keys too, are so at the other server from the next call on."""
    one, other = clients
    created = await one.create(workspace=workspace)
    for each in range(ROUNDS // 2):
        here, there = (one, other) if each % 2 else (other, one)
        suspend = workspace_service_pb2.SuspendWorkspaceRequest(name=workspace)
        resume = workspace_service_pb2.ResumeWorkspaceRequest(name=workspace)
        await here.call(here.workspaces.SuspendWorkspace, suspend)
        assert await there.verdict(created.key_string) == "WORKSPACE_SUSPENDED"
        await there.call(there.workspaces.ResumeWorkspace, resume)
        assert await here.verdict(created.key_string) == "VALID"
        await here.suspend(created.key.id)
        assert await there.verdict(created.key_string) == "SUSPENDED"
        await there.resume(created.key.id)
        assert await here.verdict(created.key_string) == "VALID"


async def test_a_caller_revoked_through_one_is_unknown_to_the_other(
    clients: tuple[Client, Client], workspace: str
) -> None:
    """A caller's key is a key: the other server turns it away in the first call that starts afterwards."""
    here, there = clients
    for _ in range(ROUNDS // 4):
        created = await here.create(workspace="keysvc/system", scopes=["keys.read"])
        caller = Client(there.channel, created.key_string)
        await caller.list()
        await here.revoke(created.key.id)
        with pytest.raises(Refused) as refused:
            await caller.list()
        assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED


async def test_tokens_of_one_are_good_at_the_other(clients: tuple[Client, Client], workspace: str) -> None:
    """Page tokens, revisions and request ids belong to the deployment, not to a server."""
    here, there = clients
    created = [(await here.create(workspace=workspace, display_name=f"key {number}")).key.id for number in range(7)]
    listed, token = list[str](), ""
    for client in [here, there] * 4:
        page = await client.list(workspace=workspace, page_size=2, page_token=token)
        listed += [key.id for key in page.keys]
        token = page.next_page_token
        if not token:
            break
    assert listed == created[::-1]

    again = await here.create(workspace=workspace)
    revision = (await here.revoke(again.key.id)).receipt.revision
    answer = await there.verify(again.key_string, consistency=verify_pb2.Consistency(at_least=revision))
    assert answer.verdict == verify_pb2.VERDICT_REVOKED


async def test_limits_hold_across_servers(clients: tuple[Client, Client]) -> None:
    """Fifty creations at once, half of them through each server, cannot exceed the limit of a workspace."""
    here, there = clients
    name = (await here.create_workspace(f"acme-corp/{secrets.token_hex(8)}", key_limit=10)).name
    outcomes = await asyncio.gather(
        *(client.create(workspace=name) for client in (here, there) for _ in range(25)),
        return_exceptions=True,
    )
    refusals = [each for each in outcomes if isinstance(each, Refused)]
    assert len(refusals) == 40
    assert {each.code for each in refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len((await here.list(workspace=name)).keys) == 10


async def test_one_killed_server_does_not_hold_up_the_others(
    clients: tuple[Client, Client], pair: Pair, workspace: str
) -> None:
    """A server that is killed in the middle of its work leaves no lock behind, once PostgreSQL has noticed its end.

    On a busy machine that takes its time: until then a change that needs the lock is told to come again.
    """
    here, _ = clients
    created = await here.create(workspace=workspace)
    async with AsyncExitStack() as stack:
        victim = stack.enter_context(Serving(**pair.variables))
        there = await client_of(stack, pair, victim.ready())
        cut_off = [asyncio.create_task(there.create(workspace=workspace)) for _ in range(20)]
        await asyncio.wait(cut_off, return_when=asyncio.FIRST_COMPLETED)
        victim.process.send_signal(signal.SIGKILL)
        await here.revoke(created.key.id)
        assert await here.verdict(created.key_string) == "REVOKED"

        async def is_created() -> bool:
            try:
                await here.create(workspace=workspace)
            except Refused as refused:
                assert refused.retry_after_seconds is not None  # noqa: PT017 (the loop is the point)
                return False
            return True

        await eventually(is_created)
        await asyncio.gather(*cut_off, return_exceptions=True)
