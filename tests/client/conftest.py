"""Both clients of the library, against a real server."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, TypeAlias

import grpc
import pytest

from keysvc_client import AsyncKeysvcClient, KeysvcClient
from keysvc_client.connection import VARIABLES
from tests.cli.peer import Peer, add_services
from tests.deployment import Client, Deployment

AnyClient: TypeAlias = KeysvcClient | AsyncKeysvcClient
Connect: TypeAlias = Callable[..., AnyClient]

KINDS = {"sync": KeysvcClient, "async": AsyncKeysvcClient}


async def call(method: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
    """Call a method of either client; a list comes whole. The server is in this thread, so what blocks is not."""
    if inspect.iscoroutinefunction(method):
        return await method(*arguments, **named)
    answer = await asyncio.to_thread(method, *arguments, **named)
    if hasattr(answer, "__aiter__"):
        return [each async for each in answer]
    return await asyncio.to_thread(list, answer) if hasattr(answer, "__next__") else answer


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes from the environment of whoever runs the tests."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert not [name for name in os.environ if name in VARIABLES]


OF_ONE_KIND = pytest.mark.parametrize("kind", [KINDS["sync"]], ids=["sync"])
"""What takes its time, and is behind both kinds of client, in threads of its own."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[AnyClient]:
    """Each kind of client."""
    return KINDS[request.param]


@pytest.fixture
async def connect(kind: type[AnyClient]) -> AsyncIterator[Connect]:
    """Makes clients of a kind, and closes them in the end."""
    async with AsyncExitStack() as stack:

        def connect(target: str, **arguments: Any) -> AnyClient:
            client = kind(target, **arguments)
            stack.push_async_callback(call, client.close)
            return client

        yield connect


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A peer that answers what a test has prepared."""
    peer = Peer()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    add_services(peer, server)
    peer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield peer
    server.stop(0).wait()


@pytest.fixture
def client(connect: Connect, deployment: Deployment) -> AnyClient:
    """An operator's client of a server."""
    return connect(deployment.address, api_key=deployment.operator_key)


@pytest.fixture
async def operator(deployment: Deployment) -> Client:
    """An operator with one workspace, by the stubs."""
    operator = await deployment.client()
    await operator.create_workspace()
    return operator
