"""A TCP proxy in front of a server, that can keep answers to itself."""

import asyncio
from typing import Self


class Wire:
    """Forwards connections to a port of this machine.

    Parameters:
        address: of the server.
    """

    def __init__(self, address: str) -> None:
        self._port = int(address.rpartition(":")[2])
        self._answers = asyncio.Event()
        self._answers.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""
        self.connections = 0

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut everything."""
        self._server.close()
        self._answers.set()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def hold_answers(self) -> None:
        """Let requests through, and nothing back."""
        self._answers.clear()

    def cut(self) -> None:
        """Reset all connections; what was held is lost, and new ones are whole."""
        for writer in self._writers:
            writer.transport.abort()
        self._answers.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        both = {writer, server_writer}
        self._writers |= both
        there = asyncio.create_task(self._forward(reader, server_writer, holds=False))
        back = asyncio.create_task(self._forward(server_reader, writer, holds=True))
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        there.cancel()
        back.cancel()
        await asyncio.gather(there, back, return_exceptions=True)
        self._writers -= both
        for each in both:
            each.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, holds: bool) -> None:
        """Copy one direction."""
        while data := await reader.read(65536):
            if holds:
                await self._answers.wait()
            writer.write(data)
            await writer.drain()
