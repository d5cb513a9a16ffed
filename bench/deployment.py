"""A deployment of its own for one run: a durable PostgreSQL in a temporary folder, and a `keysvc serve` process."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_bytes
from typing import Final

import psutil

from keysvc.core.keystring import KeyString
from keysvc.core.pepper import Peppers
from keysvc.store.embedded import EmbeddedPostgres, Record

STOP_SECONDS: Final = 15.0

_KEYSVC: Final = (sys.executable, "-m", "keysvc")
_READY = re.compile(r"keysvc is ready on (\S+)")


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers.

    Parameters:
        address: where.
        pids: of the server, and of its PostgreSQL.
    """

    address: str
    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        """How long processors have worked for the server and for PostgreSQL, so far."""
        total = 0.0
        for pid in self.pids:
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                # A backend may end while it is looked at.
                with suppress(psutil.NoSuchProcess):
                    times = each.cpu_times()
                    total += times.user + times.system
        return total


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is needed to load keys and to serve them.

    Parameters:
        folder: of everything that the run leaves, until it ends.
        environment: of keysvc processes.
    """

    folder: Path
    url: str
    peppers: Peppers
    environment: dict[str, str] = field(repr=False)

    def bootstrap(self) -> KeyString:
        """Migrate the database and create an operator key."""
        done = subprocess.run(  # noqa: S603 (the program of this environment)
            [*_KEYSVC, "bootstrap"], env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return KeyString(done.stdout.strip())

    @contextmanager
    def serve(self) -> Iterator["Served"]:
        """A server, that answers."""
        log = self.folder / "keysvc.log"
        with (
            log.open("wb") as errors,
            subprocess.Popen(  # noqa: S603 (the program of this environment)
                [*_KEYSVC, "serve", "--listen", "127.0.0.1:0"],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            ) as process,
        ):
            try:
                ready = next(filter(None, map(_READY.search, process.stdout or ())), None)
                if ready is None:
                    raise RuntimeError(f"keysvc did not start: {log.read_text()}")
                postgres = Record.read(self.folder / "data" / "cluster")
                yield Served(ready[1], (process.pid, postgres.pid if postgres else process.pid))
            finally:
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
            environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYSVC_")}
            environment |= {"KEYSVC_DATABASE_URL": embedded.url, "KEYSVC_PEPPERS": pepper.hex()}
            yield Deployment(folder, embedded.url, Peppers([pepper]), environment)
        finally:
            embedded.stop()
