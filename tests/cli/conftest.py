"""A peer on a port of its own, and a way to run the command against it."""

import io
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import grpc
import pytest

from keysvc.cli.connection import CLIENT_VARIABLES
from keysvc.cli.main import main
from tests.cli.peer import Peer, add_services

API_KEY = "the-key-of-the-caller"


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A peer on a port of its own."""
    peer = Peer()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    add_services(peer, server)
    peer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield peer
    server.stop(0).wait()


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str


class Run(Protocol):
    """Runs a command."""

    def __call__(self, *arguments: str, stdin: bytes = b"", columns: int = 0, encoding: str = "utf-8") -> Result:
        """Run it with these arguments."""


class _Stream(io.TextIOWrapper):
    """A standard stream that may be a terminal."""

    def __init__(self, content: bytes, *, terminal: bool, encoding: str) -> None:
        super().__init__(io.BytesIO(content), encoding=encoding)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def run(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process, as the caller with API_KEY; with ``columns``, on a terminal that wide."""
    for variable in (*CLIENT_VARIABLES, "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("KEYSVC_ADDRESS", peer.address)
    monkeypatch.setenv("KEYSVC_API_KEY", API_KEY)
    monkeypatch.setenv("TERM", "xterm-256color")

    def run(*arguments: str, stdin: bytes = b"", columns: int = 0, encoding: str = "utf-8") -> Result:
        out, err = (_Stream(b"", terminal=columns > 0, encoding=encoding) for _ in range(2))
        with monkeypatch.context() as context:
            if columns:
                context.setenv("COLUMNS", str(columns))
            context.setattr(sys, "stdin", _Stream(stdin, terminal=False, encoding="utf-8"))
            context.setattr(sys, "stdout", out)
            context.setattr(sys, "stderr", err)
            code = main(arguments)
        texts = []
        for stream in (out, err):
            stream.flush()
            stream.seek(0)
            texts.append(stream.read())
        return Result(code, *texts)

    return run
