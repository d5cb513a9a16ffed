"""The load generator, a Go program beside this: it calls Verify and looks at every answer."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor

from keysvc.core.keystring import KeyString
from keysvc.v1 import verify_pb2

SOURCE: Final = Path(__file__).parent / "load"
GRPC_OK: Final = 0
CANCELLED: Final = 1
"""Of gRPC itself, at random, where more than a thousand calls wait for a server."""

UNAVAILABLE: Final = 14
RESOURCE_EXHAUSTED: Final = 8

_VERDICT: Final = verify_pb2.DESCRIPTOR.enum_types_by_name["Verdict"]
_BASIS: Final = verify_pb2.DESCRIPTOR.enum_types_by_name["Basis"]


class WrongAnswersError(RuntimeError):
    """Answers were not what was to be measured, so that the figures would mean something else."""


class GoMissingError(RuntimeError):
    """The generator cannot be built."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of answer, and how many there were.

    Parameters:
        status: of gRPC; below 0: no answer came.
        verdict, basis: names without their prefixes; empty: none.
        message: of the first such status.
    """

    status: int
    verdict: str
    basis: str
    count: int = field(compare=False)
    message: str = field(default="", compare=False)

    def __str__(self) -> str:
        """For messages."""
        return f"{self.count} x grpc-status {self.status} {self.verdict} {self.basis} {self.message}".rstrip()


@dataclass(frozen=True, slots=True)
class Answers:
    """What a run of the generator found. Latencies are those of the calls that are counted: not of the warm-up.

    Parameters:
        answered: all calls, the warm-up included.
        seconds: how long calls were counted.
        per_second: how many of those were answered.
        latency_ms: of closed loops from sending, of open loops from when a call was due; by name of the quantile.
        late_ms: how long after they were due calls were sent, which is part of their latency.
        shed: how many were due, but not made, since too many were under way.
        processor_seconds: of the generator itself.
    """

    answered: int
    counted: int
    seconds: float
    per_second: float
    kinds: tuple[Kind, ...]
    latency_ms: dict[str, float]
    late_ms: dict[str, float]
    shed: int
    processor_seconds: float

    def count(self, verdict: str, *bases: str) -> int:
        """How many answers were OK, with a verdict and one of the bases."""
        return sum(
            kind.count
            for kind in self.kinds
            if kind.status == GRPC_OK and kind.verdict == verdict and kind.basis in bases
        )

    def check_all(self, verdict: str, *bases: str) -> None:
        """Raise ``WrongAnswersError`` unless each call was answered with this verdict, on one of these bases."""
        if self.answered == 0 or self.count(verdict, *bases) != self.answered:
            found = ", ".join(map(str, self.kinds)) or "no answers"
            raise WrongAnswersError(f"all answers should be {verdict} {' or '.join(bases)}, but there were {found}")


@dataclass(frozen=True, slots=True)
class Loop:
    """How calls are made.

    Parameters:
        seconds: for how long.
        requests: closed loop: how many, instead.
        warm: seconds before that, which are not counted.
        rate: open loop: how many are due per second, at random times; 0: as many as are answered.
        connections: over which they are spread.
        streams: closed loop: how many calls are under way on each.
        shed_above: open loop: while so many are under way further ones are not made; 0: all are.
        seed: of chance.
    """

    seconds: float = 0.0
    requests: int = 0
    warm: float = 0.0
    rate: float = 0.0
    connections: int = 8
    streams: int = 8
    shed_above: int = 0
    seed: int = 1

    def arguments(self) -> list[str]:
        """For the command line."""
        given = {
            "seconds": self.seconds,
            "requests": self.requests,
            "warm": self.warm,
            "rate": self.rate,
            "connections": self.connections,
            "streams": self.streams,
            "shed-above": self.shed_above,
            "seed": self.seed,
        }
        return [f"-{name}={value}" for name, value in given.items()]


class Generator:
    """Makes calls.

    Parameters:
        program: that was built.
        caller: whose calls they are.
    """

    def __init__(self, program: Path, caller: KeyString) -> None:
        self.program = program
        self.caller = caller

    async def run(
        self, addresses: Sequence[str], bodies: Iterable[bytes], loop: Loop, enough: asyncio.Event | None = None
    ) -> Answers:
        """Call Verify.

        Parameters:
            enough: ends it early.
            addresses: of one or several servers.
            bodies: serialized requests, sent in turn, from the first again after the last.

        Raises:
            WrongAnswersError: what the generator says of the answers is not what our own stubs say.
        """
        with tempfile.NamedTemporaryFile(prefix="bodies-", dir=self.program.parent) as file:
            for body in bodies:
                file.write(b"\0" + len(body).to_bytes(4) + body)
            file.flush()
            process = await asyncio.create_subprocess_exec(
                self.program,
                f"-addresses={','.join(addresses)}",
                f"-bodies={file.name}",
                *loop.arguments(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "LOAD_AUTHORIZATION": f"Bearer {self.caller.reveal()}"},
            )
            ending = None if enough is None else asyncio.create_task(_terminate(process, enough))
            try:
                out, errors = await process.communicate()
            finally:
                if ending is not None:
                    ending.cancel()
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode != 0:
            raise RuntimeError(f"the load generator failed: {errors.decode().strip()}")
        return _read(json.loads(out))


async def _terminate(process: asyncio.subprocess.Process, enough: asyncio.Event) -> None:
    """End a process when it is time."""
    await enough.wait()
    if process.returncode is None:
        process.terminate()


def build(folder: Path) -> Path:
    """The generator, built into a folder.

    Raises:
        GoMissingError: there is no Go, or no way to the modules that it needs.
    """
    go = shutil.which("go")
    if go is None:
        raise GoMissingError(
            "the load generator (bench/load) is a Go program, and there is no Go: "
            "install 1.24 or newer (Debian: golang)"
        )
    program = folder.resolve() / "load"  # it is built elsewhere
    done = subprocess.run(  # noqa: S603 (a fixed command)
        [go, "build", "-trimpath", "-o", str(program), "."], check=False, capture_output=True, text=True, cwd=SOURCE
    )
    if done.returncode != 0:
        raise GoMissingError(f"the load generator (bench/load) cannot be built: {done.stderr.strip()}")
    return program


def _read(found: dict[str, Any]) -> Answers:
    """What the generator wrote."""
    kinds = []
    for each in found["outcomes"]:
        kind = Kind(
            each["status"],
            _name(_VERDICT, each["verdict"]),
            _name(_BASIS, each["basis"]),
            each["count"],
            each["message"],
        )
        _check_sample(kind, bytes.fromhex(each["sample"]))
        kinds.append(kind)
    if found["unanswered"]:
        raise WrongAnswersError(f"{found['unanswered']} calls were never answered")
    return Answers(
        answered=found["answered"],
        counted=found["counted"],
        seconds=found["seconds"],
        per_second=found["per_second"],
        kinds=tuple(sorted(kinds, key=lambda kind: -kind.count)),
        latency_ms=found["latency_ms"] or {},
        late_ms=found["late_ms"] or {},
        shed=found["shed"],
        processor_seconds=found["processor_seconds"],
    )


def _name(enum: EnumDescriptor, number: int) -> str:
    """The name of a value without what all names of the enum begin with; empty: not set, or unknown."""
    value = enum.values_by_number.get(number)
    return value.name.partition("_")[2] if value and number else ""


def _check_sample(kind: Kind, sample: bytes) -> None:
    """Raise ``WrongAnswersError`` if the generator understands an answer in another way than our stubs."""
    if kind.status != GRPC_OK:
        return
    answer = verify_pb2.VerifyResponse.FromString(sample)
    read = (
        _name(_VERDICT, answer.verdict),
        _name(_BASIS, answer.basis),
    )
    if read != (kind.verdict, kind.basis):
        raise WrongAnswersError(f"the generator reads {kind} where the stubs read {read}")
