"""Links between servers and PostgreSQL, or clients and servers, that can be frozen, slowed down, half closed and cut.

They live in a thread of their own, so that they go on whatever those who test are doing.
"""

import asyncio
import contextlib
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from math import inf
from pathlib import Path
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

CARRIED_SECONDS_MAX: Final = 10.0

RENEWALS: Final = "keysvc lease"
WAKE_UPS: Final = "keysvc listen"
LOOK_UPS: Final = "keysvc verify"
BARRIERS: Final = "keysvc barrier"
"""Applications: what servers say of their connections."""

_APPLICATION = b"application_name\0"
_KEEPALIVES = re.compile(rb"-c tcp_keepalives_(idle|interval|count)=(\d+)")
_KEEPALIVE_OPTIONS = {b"idle": socket.TCP_KEEPIDLE, b"interval": socket.TCP_KEEPINTVL, b"count": socket.TCP_KEEPCNT}
_CHUNK_BYTES = 65536


class Wiring:
    """Where links live: a thread with an event loop; the end of the `with` block ends them all."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._links = list[Link]()

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut all links."""
        for link in self._links:
            link.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def link(self, upstream: Path | str, host: str = "127.0.0.1") -> "Link":
        """A new link.

        Parameters:
            upstream: the Unix socket of PostgreSQL, or `address:port` of a server.
            host: where the link listens.
        """
        link = Link(str(upstream), self.run)
        self.run(link.listen(host))
        self._links.append(link)
        return link

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the thread, to its end."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(30)


class Link:
    """One listening port; each connection to it is one to whoever is behind it, as long as all is well.

    Parameters:
        upstream: who that is: the Unix socket of PostgreSQL, or `address:port` of a server.
        run: runs something where the link lives.

    Attributes:
        upstream: of new connections.
        connections: how many there have been.
        carried: how much was sent to PostgreSQL, in pieces, by application name.
    """

    def __init__(self, upstream: str, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self.upstream = upstream
        self._run = run
        self._wires = set[_Wire]()
        self._tasks = set[asyncio.Task[None]]()
        self._is_frozen = False
        self._delays = dict[tuple[str, str], float]()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.connections = 0
        self.carried = Counter[str]()
        self.address = ("", 0)

    async def listen(self, host: str) -> None:
        """Begin, on a free port."""
        self._server = await asyncio.start_server(self._accept, host, 0)
        self.address = self._server.sockets[0].getsockname()[:2]

    def url(self, user_and_database: str = "keysvc") -> str:
        """Where servers find the database; in clear, so that the link sees who they say they are."""
        host, port = self.address
        return f"postgresql://{user_and_database}@{host}:{port}/{user_and_database}?sslmode=disable&gssencmode=disable"

    def freeze(self) -> None:
        """Carry nothing any more, and close nothing; accept new connections in silence."""
        self._run(self._set(is_frozen=True))

    def thaw(self) -> None:
        """Go on with everything that was held back."""
        self._run(self._set(is_frozen=False))

    def delay(self, there: float = 0.0, back: float = 0.0, *, application: str = "") -> None:
        """Carry everything so many seconds later, in its order; infinite: when there is another delay.

        Parameters:
            there, back: towards PostgreSQL, and from it.
            application: only connections whose application name begins so. What was said before of others is over.
        """
        self._run(self._set(delays={(application, ">"): there, (application, "<"): back}))

    async def until_carried(self, application: str) -> None:
        """Wait until something more is sent to PostgreSQL on a connection of this application."""
        before = self.carried[application]
        async with asyncio.timeout(CARRIED_SECONDS_MAX):
            while self.carried[application] == before:  # noqa: ASYNC110 (the link is in another thread)
                await asyncio.sleep(0.001)

    def half_close(self) -> None:
        """End all connections towards PostgreSQL alone: it sees their end, and servers never hear of that."""
        self._run(self._half_close())

    def cut(self) -> None:
        """Reset all connections."""
        self._run(self._cut())

    def close(self) -> None:
        """Reset all connections, and accept no more."""
        self._run(self._close())

    async def _set(self, *, is_frozen: bool | None = None, delays: dict[tuple[str, str], float] | None = None) -> None:
        self._is_frozen = self._is_frozen if is_frozen is None else is_frozen
        self._delays = self._delays if delays is None else delays
        self._changed.set()
        self._changed = asyncio.Event()

    async def _half_close(self) -> None:
        for wire in self._wires:
            wire.is_half_closed = True
            with contextlib.suppress(OSError, RuntimeError):
                wire.upstream.write_eof()

    async def _cut(self) -> None:
        for wire in self._wires:
            wire.abort()

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            while self._is_frozen:
                await self._changed.wait()
            upstream_reader, upstream = await self._connect()
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        wire = _Wire(writer, upstream)
        self._wires.add(wire)
        directions = [
            asyncio.create_task(self._carry(wire, reader, upstream, ">")),
            asyncio.create_task(self._carry(wire, upstream_reader, writer, "<")),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            # A connection that is half closed stays open towards the server, in silence, until somebody cuts it.
            if wire.is_half_closed:
                await asyncio.wait(directions[:1])
        except asyncio.CancelledError:
            pass
        finally:
            for direction in directions:
                direction.cancel()
            self._wires.discard(wire)
            wire.abort()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.upstream.startswith("/"):
            return await asyncio.open_unix_connection(self.upstream)
        host, _, port = self.upstream.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _carry(
        self, wire: "_Wire", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str
    ) -> None:
        """One direction of a connection: what comes in goes out, after the delay of its arrival."""
        loop = asyncio.get_running_loop()
        waiting = asyncio.Queue[tuple[float, bytes]]()

        async def send() -> None:
            while True:
                due, data = await waiting.get()
                if (pause := due - loop.time()) > 0:
                    await asyncio.sleep(pause)
                while self._is_frozen or self._delay(wire, direction) == inf:
                    await self._changed.wait()
                if not data:
                    return
                if direction == "<" or not wire.is_half_closed:
                    writer.write(data)
                    await writer.drain()
                    self.carried[wire.application] += direction == ">"

        sending = asyncio.create_task(send())
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(_CHUNK_BYTES):
                    if direction == ">":
                        wire.learn(data)
                    delay = self._delay(wire, direction)
                    waiting.put_nowait((0.0 if delay == inf else loop.time() + delay, data))
            waiting.put_nowait((0.0, b""))
            with contextlib.suppress(OSError):
                await sending
        finally:
            sending.cancel()

    def _delay(self, wire: "_Wire", direction: str) -> float:
        """How long what travels on a connection takes now."""
        for (application, way), seconds in self._delays.items():
            if way == direction and wire.application.startswith(application):
                return seconds
        return 0.0


class _Wire:
    """The two ends of one connection."""

    def __init__(self, client: asyncio.StreamWriter, upstream: asyncio.StreamWriter) -> None:
        self.client = client
        self.upstream = upstream
        self.application = ""
        self.is_half_closed = False

    def learn(self, data: bytes) -> None:
        """Find out who connects, and when PostgreSQL shall look whether it is still there: it is told first.

        We are what PostgreSQL would be to the network, so that we must look.
        """
        if not self.application and _APPLICATION in data:
            self.application = data.partition(_APPLICATION)[2].partition(b"\0")[0].decode()
            connection = self.client.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVES.findall(data):
                connection.setsockopt(socket.IPPROTO_TCP, _KEEPALIVE_OPTIONS[name], int(value))

    def abort(self) -> None:
        """Reset both ends."""
        for writer in (self.client, self.upstream):
            writer.transport.abort()
