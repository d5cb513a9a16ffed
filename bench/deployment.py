"""A deployment of its own for one run: a durable PostgreSQL in a temporary folder, and `keysvc serve` processes."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from secrets import token_bytes
from typing import Final

import psutil
import psycopg

from bench.processors import processor_seconds
from keysvc.core.keystring import KeyString
from keysvc.core.pepper import Peppers
from keysvc.store.embedded import EmbeddedPostgres, Record

STOP_SECONDS: Final = 15.0
KEYSVC: Final = (sys.executable, "-m", "keysvc")

READY: Final = re.compile(r"keysvc is ready on ([\w.:\[\]-]+)(?=[^\w.:\]-])")


@dataclass(frozen=True, slots=True)
class Counters:
    """What a server says about itself in its row of the members, as `keysvc status` shows it.

    Parameters:
        hits: Verifies answered from memory, those of callers' own keys included.
        misses: look-ups of the database.
        remembered: keys in memory.
        time: since when it has not said anything new.
    """

    hits: int
    misses: int
    remembered: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers.

    Parameters:
        address: where.
        pid: of its process, which may have further ones.
        postgres_pid: of its PostgreSQL.
        url: of its database.
    """

    address: str
    pid: int
    postgres_pid: int
    url: str = field(repr=False)

    def server_seconds(self) -> float:
        """How long processors have worked for the server so far."""
        return processor_seconds(self.pid)

    def database_seconds(self) -> float:
        """How long processors have worked for PostgreSQL so far."""
        return processor_seconds(self.postgres_pid)

    def processor_seconds(self) -> float:
        """Both."""
        return self.server_seconds() + self.database_seconds()

    def resident_bytes(self) -> int:
        """How much memory the server has."""
        processes = (psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True))
        return sum(process.memory_info().rss for process in processes)

    def counters(self) -> Counters:
        """What it has said last: written at most once a second, with a renewal of its lease."""
        pids = {self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))}
        with psycopg.connect(self.url) as connection:
            rows = connection.execute("SELECT host, report FROM lease_member").fetchall()
        reports = [report for host, report in rows if int(host.rpartition("/")[2]) in pids]
        hits, misses, remembered = (
            sum(report.get(name, 0) for report in reports) for name in ("hits", "misses", "remembered")
        )
        return Counters(hits, misses, remembered, min(datetime.fromisoformat(report["time"]) for report in reports))


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is needed to load keys and to serve them.

    Parameters:
        folder: of everything that the run leaves, until it ends.
        admin_url: of the database's superuser.
        environment: of keysvc processes.
    """

    folder: Path
    url: str
    admin_url: str
    pepper: bytes = field(repr=False)
    environment: dict[str, str] = field(repr=False)

    @property
    def peppers(self) -> Peppers:
        """As the servers use it."""
        return Peppers([self.pepper])

    def bootstrap(self) -> KeyString:
        """Migrate the database and create an operator key."""
        done = subprocess.run(  # noqa: S603 (the program of this environment)
            [*KEYSVC, "bootstrap"], env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return KeyString(done.stdout.strip())

    @contextmanager
    def serve(self, *options: str) -> Iterator[Served]:
        """A server, that answers.

        Parameters:
            options: more of `keysvc serve`.
        """
        with self.serve_several(1, *options) as (served,):
            yield served

    @contextmanager
    def serve_several(self, number: int, *options: str) -> Iterator[list[Served]]:
        """Several servers, which start at the same time."""
        postgres_pid = _record(self.folder).pid
        command = [*KEYSVC, "serve", "--listen", "127.0.0.1:0", *options]
        with ExitStack() as stack:
            processes = [
                stack.enter_context(
                    running(command, self.environment, self.folder / f"keysvc-{place}-of-{number}.log", stdin=None)
                )
                for place in range(number)
            ]
            yield [Served(ready_address(process), process.pid, postgres_pid, self.url) for process in processes]


def _record(folder: Path) -> Record:
    """What is known of a deployment's PostgreSQL, which runs."""
    record = Record.read(folder / "data" / "cluster")
    if record is None:
        raise RuntimeError("the embedded PostgreSQL is not there")
    return record


def ready_address(process: "subprocess.Popen[str]") -> str:
    """Where a `keysvc serve` answers, once it does.

    Raises:
        RuntimeError: it ended instead.
    """
    ready = next(filter(None, map(READY.search, process.stdout or ())), None)
    if ready is None:
        raise RuntimeError("keysvc did not start; its log was above")
    return ready[1]


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path, stdin: int | None
) -> "Iterator[subprocess.Popen[str]]":
    """A process, ended and waited for in any case; what it logged is shown if that was by itself."""
    with (
        log.open("wb") as errors,
        subprocess.Popen(  # noqa: S603 (the programs of this environment)
            command,
            env=environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is not None:
                sys.stderr.write(log.read_text(errors="replace"))
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            finally:
                process.kill()


@contextmanager
def open_deployment() -> Iterator[Deployment]:
    """A deployment without keys; all of it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="keysvc-bench-") as name:
        folder = Path(name)
        embedded = EmbeddedPostgres.start(folder / "data")
        try:
            pepper = token_bytes(32)
            yield Deployment(
                folder,
                embedded.url,
                _record(folder).admin_url,
                pepper,
                own_environment() | {"KEYSVC_DATABASE_URL": embedded.url, "KEYSVC_PEPPERS": pepper.hex()},
            )
        finally:
            embedded.stop()


def own_environment() -> dict[str, str]:
    """The environment without settings of keysvc."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KEYSVC_")}
