"""Servers that keysvc is measured beside: an empty handler, and a naive service."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import grpc

from bench.deployment import Served, own_environment, running
from bench.empty import METHOD_COUNT, METHOD_VERIFY
from bench.generator import WrongAnswersError
from bench.processors import processor_seconds
from bench.session import CALL_SECONDS_MAX, Session, body, metadata_of
from keysvc.v1 import verify_pb2


@dataclass(frozen=True, slots=True)
class Beside:
    """One that answers.

    Parameters:
        name: what people call it.
    """

    name: str
    address: str
    pid: int

    def processor_seconds(self) -> float:
        """How long processors have worked for it so far."""
        return processor_seconds(self.pid)

    async def count(self) -> int:
        """How many calls of Verify it has answered."""
        return int(await _call(self.address, METHOD_COUNT, b""))


@asynccontextmanager
async def open_empty(session: Session, served: Served) -> AsyncIterator[Beside]:
    """An empty handler that gives the bytes which ``served`` answers for a key that it remembers."""
    request = body(session.hot[0].key_string)
    answer = await _call(served.address, METHOD_VERIFY, request, metadata_of(session.generator.caller))
    if verify_pb2.VerifyResponse.FromString(answer).basis != verify_pb2.BASIS_MEMORY:
        raise WrongAnswersError("the key whose answer the empty handler gives is not remembered")
    with _open("empty", [sys.executable, "-m", "bench.empty", answer.hex()], own_environment(), session) as beside:
        yield beside


@asynccontextmanager
async def open_naive(session: Session) -> AsyncIterator[Beside]:
    """A naive service on the same database."""
    deployment = session.deployment
    environment = own_environment() | {"DATABASE_URL": deployment.url, "PEPPER": deployment.pepper.hex()}
    with _open("naive", [sys.executable, "-m", "bench.naive"], environment, session) as beside:
        yield beside


@contextmanager
def _open(name: str, command: Sequence[str], environment: Mapping[str, str], session: Session) -> Iterator[Beside]:
    """A server that prints its port, and ends when its standard input does."""
    log = session.deployment.folder / f"{name}.log"
    with running(command, environment, log, stdin=subprocess.PIPE) as process:
        port = process.stdout.readline().strip() if process.stdout else ""
        if not port:
            raise RuntimeError(f"the {name} server did not start; its log was above")
        yield Beside(name, f"127.0.0.1:{port}", process.pid)


async def _call(address: str, method: str, request: bytes, metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
    """One call on raw bytes."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        return await call(request, metadata=metadata, timeout=CALL_SECONDS_MAX)
