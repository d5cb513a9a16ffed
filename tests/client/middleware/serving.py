"""Applications on real sockets, and what is asked of them."""

import asyncio
import http.client
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from threading import Thread
from typing import Any

import uvicorn
from werkzeug.serving import make_server


@dataclass
class Answer:
    """Of an application."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Server(uvicorn.Server):
    """uvicorn beside a server of keysvc in the same event loop, which has signals of its own."""

    def capture_signals(self) -> Any:
        return nullcontext()


@asynccontextmanager
async def asgi_server(app: Any) -> AsyncIterator[str]:
    """An ASGI application on a socket; in the end it is told that its life is over."""
    server = _Server(uvicorn.Config(app, port=0, log_config=None, proxy_headers=False))
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():  # noqa: ASYNC110 (uvicorn sets no event)
        await asyncio.sleep(0.01)
    if serving.done():
        await serving
    yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


@contextmanager
def wsgi_server(app: Any) -> Iterator[str]:
    """A WSGI application on a socket, with one thread for all requests, which must not mix them up."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, app)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def ask(
    address: str,
    path: str = "/",
    *,
    key: str | None = None,
    method: str = "GET",
    headers: Iterable[tuple[str, str | bytes]] = (),
) -> Answer:
    """Send a request, whatever its headers, and wait for the answer."""
    sent = [*headers, ("Authorization", f"Bearer {key}")] if key is not None else list(headers)
    return await asyncio.to_thread(_ask, address, method, path, sent)


def _ask(address: str, method: str, path: str, headers: list[tuple[str, str | bytes]]) -> Answer:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()
