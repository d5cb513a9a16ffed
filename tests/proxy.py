"""A TCP proxy in front of PostgreSQL that can misbehave like a network."""

import asyncio
from collections.abc import Callable
from math import inf
from urllib.parse import parse_qs, urlsplit, urlunsplit

_COMMITS = (b"COMMIT\0", b"WITH taken AS")
"""The end of a transaction; or a statement that is one by itself, while its text is still sent with it."""

_APPLICATION = b"application_name\0"


class Proxy:
    """Forwards connections to a database server until told otherwise.

    Parameters:
        upstream_url: of a database; by Unix socket or TCP.
    """

    def __init__(self, upstream_url: str) -> None:
        self._parts = urlsplit(upstream_url)
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._on_commit: Callable[[bytes], float | None] | None = None
        self.commits_lost = 0

    @property
    def url(self) -> str:
        """The same database, through the proxy; in clear, so that it sees the commits."""
        user, _, _ = self._parts.netloc.rpartition("@")
        netloc = f"{user}@127.0.0.1:{self._port}" if user else f"127.0.0.1:{self._port}"
        return urlunsplit(("postgresql", netloc, self._parts.path, "sslmode=disable", ""))

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and cut those that are open."""
        if self._server is not None:
            self._server.close()
        self._flows.set()
        while self._tasks:
            self.cut()
            await asyncio.wait(self._tasks, timeout=0.05)

    def cut(self) -> None:
        """Reset all open connections."""
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Forward nothing any more, close nothing, accept new connections in silence."""
        self._flows.clear()

    def thaw(self) -> None:
        """Go on with everything that was held back."""
        self._flows.set()

    def lose_commits(self, count: int, *, late_seconds: float = 0.0, application: bytes = b"keysvc") -> None:
        """Cut the next connections that commit, before the answer comes.

        Parameters:
            count: so many of them.
            late_seconds: the commit itself reaches the server so much later; infinite: never.
            application: only connections that say so of themselves.
        """
        left = iter(range(count))

        def on_commit(committing: bytes) -> float | None:
            if committing != application or next(left, None) is None:
                return None
            self.commits_lost += 1
            return late_seconds

        self._on_commit = on_commit

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = (parse_qs(self._parts.query).get("host") or [self._parts.hostname or "127.0.0.1"])[0]
        port = int((parse_qs(self._parts.query).get("port") or [self._parts.port or 5432])[0])
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self._flows.wait()
        upstream_reader, upstream_writer = await self._connect()
        self._writers |= {writer, upstream_writer}
        try:
            there = asyncio.create_task(self._forward(reader, upstream_writer, writer))
            back = asyncio.create_task(self._forward(upstream_reader, writer, None))
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            back.cancel()
            writer.transport.abort()  # ends the other direction, unless it holds back a commit
            await asyncio.gather(there, back, return_exceptions=True)
        finally:
            for each in (writer, upstream_writer):
                self._writers.discard(each)
                each.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: asyncio.StreamWriter | None
    ) -> None:
        """Copy one direction; ``client`` is given in the direction that commits travel."""
        application = b""
        while data := await reader.read(65536):
            if _APPLICATION in data:
                application = data.partition(_APPLICATION)[2].partition(b"\0")[0]
            await self._flows.wait()
            commits = client is not None and any(each in data for each in _COMMITS)
            late = self._on_commit(application) if commits and self._on_commit else None
            if late is not None and client is not None:
                client.transport.abort()
                if late == inf:
                    return
                await asyncio.sleep(late)
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(0.05)  # let the server commit before its client is gone
                return
            writer.write(data)
            await writer.drain()
