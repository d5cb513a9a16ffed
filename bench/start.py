"""Start-up: from the start of the process to the first Verify that is answered, the embedded database included."""

import asyncio
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import grpc

from bench.deployment import KEYSVC, READY, STOP_SECONDS, own_environment
from bench.generator import WrongAnswersError
from bench.result import Column, Row, Topic
from bench.session import CALL_SECONDS_MAX, ONE_WORKER, Session, metadata_of
from keysvc.core.keystring import PATTERN, KeyString
from keysvc.v1 import verify_pb2
from keysvc.v1.key_service_pb2_grpc import KeyServiceStub

FIRST_SECONDS_MAX: Final = 6.0
LATER_SECONDS_MAX: Final = 3.0

_KEY_STRING: Final = re.compile(PATTERN)

COLUMNS: Final = (
    Column("starts", "starts", "d"),
    Column("middle", "median s", ".2f"),
    Column("longest", "longest s", ".2f"),
)


async def measure(session: Session) -> Topic:
    """First starts, each in a folder of its own, and later ones."""
    first: list[float] = []
    later: list[float] = []
    for _ in range(session.effort.starts):
        with tempfile.TemporaryDirectory(prefix="keysvc-bench-start-") as folder:
            seconds, operator = await asyncio.to_thread(_start, Path(folder), None)
            first.append(seconds)
            later.append((await asyncio.to_thread(_start, Path(folder), operator))[0])
    return Topic(
        "start",
        "From the start of the process to the first Verify",
        "`keysvc serve` with its embedded PostgreSQL and one worker. A first start has a new folder: it makes the "
        "database and an operator key, which is then verified.",
        COLUMNS,
        [_row("first start", first, FIRST_SECONDS_MAX), _row("later start", later, LATER_SECONDS_MAX)],
        ["each of these Verifies was VALID"],
        [{"first": first, "later": later}],
    )


def _row(name: str, seconds: list[float], limit: float) -> Row:
    return Row(
        name,
        {"starts": len(seconds), "middle": median(seconds), "longest": max(seconds)},
        target=f"under {limit:g} s",
        holds=median(seconds) < limit,
    )


def _start(folder: Path, operator: KeyString | None) -> tuple[float, KeyString]:
    """How many seconds a start took, and the operator key.

    Parameters:
        operator: None: this is the first start, which shows the key.
    """
    began = time.monotonic()
    # Only to a terminal the first start shows a key.
    with _serving(folder) as terminal:
        shown = ""
        while not (ready := READY.search(shown)) or (operator is None and not _KEY_STRING.search(shown)):
            if not (more := _read(terminal)):
                raise RuntimeError(f"keysvc did not start: {(folder / 'log').read_text(errors='replace')}")
            shown += more
        if operator is None:
            found = _KEY_STRING.search(shown)
            operator = KeyString(found[0] if found else "")
        with grpc.insecure_channel(ready[1]) as channel:
            answer = KeyServiceStub(channel).Verify(
                verify_pb2.VerifyRequest(key_string=operator.reveal()),
                metadata=metadata_of(operator),
                timeout=CALL_SECONDS_MAX,
                wait_for_ready=True,
            )
        seconds = time.monotonic() - began
        if answer.verdict != verify_pb2.VERDICT_VALID:
            raise WrongAnswersError(f"the operator key is {verify_pb2.Verdict.Name(answer.verdict)}")
    return seconds, operator


@contextmanager
def _serving(folder: Path) -> Iterator[int]:
    """A server whose output is a terminal, of which this is our end."""
    ours, theirs = os.openpty()
    command = [*KEYSVC, "serve", "--listen", "127.0.0.1:0", "--data-dir", str(folder / "data"), *ONE_WORKER]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 (the program of this environment)
            command, env=own_environment() | {"NO_COLOR": "1"}, stdout=theirs, stderr=log, start_new_session=True
        )
    os.close(theirs)
    try:
        yield ours
    finally:
        process.terminate()
        try:
            # What it says when it stops is read by nobody else, and a terminal holds only so much.
            while _read(ours):
                pass
            process.wait(STOP_SECONDS)
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def _read(terminal: int) -> str:
    """What is shown next; empty: nothing more."""
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:
        return ""
