"""HTTP/2 as no gRPC client speaks it: single frames, whether they make sense or not."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Final, TypeVar

from hpack import Decoder, Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, PingFrame, SettingsFrame

F = TypeVar("F", bound=Frame)

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES_MAX: Final = 16_000
SECONDS_MAX: Final = 20
"""For what a server does at once, on a machine that is busy with others."""


@dataclass
class Connection:
    """One connection, and all that has come on it.

    Parameters:
        came: what has come and was not waited for yet.
        settings: that the server sent, by their number.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    came: list[Frame] = field(default_factory=list)
    settings: dict[int, int] = field(default_factory=dict)
    _streams: Iterator[int] = field(default_factory=lambda: count(1, 2))
    _encoder: Encoder = field(default_factory=Encoder)
    _decoder: Decoder = field(default_factory=Decoder)
    _headers: dict[int, dict[str, str]] = field(default_factory=dict)

    async def send(self, *frames: Frame) -> None:
        """Send frames together."""
        self.writer.write(b"".join(frame.serialize() for frame in frames))
        await self.writer.drain()

    def call(self, path: str, *headers: tuple[str, str], finished: bool = True) -> tuple[int, list[Frame]]:
        """The number of a new stream, and the frames of the headers of a call.

        Parameters:
            finished: with the end of the headers.
        """
        stream = next(self._streams)
        sent = (
            *((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")),
            *(("content-type", "application/grpc"), ("te", "trailers"), *headers),
        )
        block = self._encoder.encode(sent, huffman=False)  # which is slow
        parts = [block[at : at + FRAME_BYTES_MAX] for at in range(0, len(block), FRAME_BYTES_MAX)]
        frames: list[Frame] = [HeadersFrame(stream, parts[0])]
        frames += [ContinuationFrame(stream, part) for part in parts[1:]]
        if finished:
            frames[-1].flags.add("END_HEADERS")
        return stream, frames

    async def begin(self, path: str, *headers: tuple[str, str]) -> int:
        """Begin a call that has no message yet; the number of its stream."""
        stream, frames = self.call(path, *headers)
        await self.send(*frames)
        return stream

    async def wait(self, kind: type[F], matches: Callable[[F], object] = bool, seconds: float = SECONDS_MAX) -> F:
        """The next frame of this kind; ``ConnectionError`` if the connection ends before."""
        async with asyncio.timeout(seconds):
            while True:
                for frame in self.came:
                    if isinstance(frame, kind) and matches(frame):
                        self.came.remove(frame)
                        return frame
                await self._receive()

    async def status(self, stream: int) -> tuple[int, str]:
        """The ``grpc-status`` and ``grpc-message`` of a call."""
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                frame = await self.wait(HeadersFrame, lambda frame: frame.stream_id == stream)
                headers = self._headers.pop(id(frame))
                if "grpc-status" in headers:
                    return int(headers["grpc-status"]), headers.get("grpc-message", "")

    async def closed(self, seconds: float = SECONDS_MAX) -> None:
        """Read until the connection has ended; ``TimeoutError`` if it does not."""
        async with asyncio.timeout(seconds):
            try:
                while True:
                    await self._receive()
            except ConnectionError:
                return

    async def hung_up(self, seconds: float) -> None:
        """The same, and answer nothing."""
        async with asyncio.timeout(seconds):
            with suppress(ConnectionError):
                while await self.reader.read(1000):
                    pass

    async def _receive(self) -> None:
        """Take in one frame; what must be answered is."""
        try:
            head = await self.reader.readexactly(9)
            frame, length = Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(await self.reader.readexactly(length)))
        except (asyncio.IncompleteReadError, OSError) as error:
            raise ConnectionError("the server has closed the connection") from error
        if isinstance(frame, HeadersFrame):
            self._headers[id(frame)] = {str(name): str(value) for name, value in self._decoder.decode(frame.data)}
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.settings |= frame.settings
            await self.send(SettingsFrame(flags=["ACK"]))
        if isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            await self.send(PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]))
        self.came.append(frame)


@asynccontextmanager
async def connected(
    address: str, *, sends: bytes | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Connection]:
    """A connection that has sent the preface and settings, or these bytes instead."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    connection = Connection(reader, writer)
    try:
        writer.write(PREFACE + SettingsFrame().serialize() if sends is None else sends)
        await writer.drain()
        if sends is None:
            await connection.wait(SettingsFrame, lambda frame: "ACK" not in frame.flags)
        yield connection
    finally:
        writer.transport.abort()


def message(stream: int, body: bytes, *, length: int | None = None, packed: bool = False) -> DataFrame:
    """A message of a call, which ends with it if it has all the bytes that it says.

    Parameters:
        length: how many bytes it says that it has.
        packed: it says that it is compressed.
    """
    said = len(body) if length is None else length
    frame = DataFrame(stream, bytes([packed]) + said.to_bytes(4, "big") + body)
    if said == len(body):
        frame.flags.add("END_STREAM")
    return frame
