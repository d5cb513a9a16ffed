"""Real `keysvc` processes: started as people start them, listened to, and ended by their number."""

import contextlib
import json
import os
import pty
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
from psycopg import sql

from tests.databases import drop_database

KEYSVC = (sys.executable, "-m", "keysvc")
"""How the tests call the program."""

PATIENCE = 3
"""A promised time is asserted this many times over: the machine of a test is busy with others."""

STOP_SECONDS = 5.0
"""The promise: so long after a signal everything has stopped."""

START_SECONDS_MAX = 40.0

_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_READY = re.compile(r"^keysvc is ready on (\S+)", re.MULTILINE)


def environment(**variables: str) -> dict[str, str]:
    """The environment of a process: that of the test without any setting of keysvc, and these variables.

    A server is one process, unless they say something else: that is quicker to start.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYSVC_")}
    return {**kept, "KEYSVC_WORKERS": "1", **variables}


def until(condition: Callable[[], Any], seconds: float = START_SECONDS_MAX, *, pause: float = 0.01) -> Any:
    """The first true value of a condition; fails when it takes too long."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{seconds} s were not enough"
        time.sleep(pause)
    return value


def run(
    *arguments: str | Path,
    stdin: str = "",
    program: tuple[str, ...] = KEYSVC,
    cwd: Path | None = None,
    **variables: str,
) -> "subprocess.CompletedProcess[str]":
    """Run a command of keysvc to its end, without a terminal."""
    return subprocess.run(
        [*program, *arguments],
        check=False,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=START_SECONDS_MAX,
        env=environment(**variables),
        cwd=cwd,
        start_new_session=True,
    )


def bash(script: str, cwd: Path = Path("/")) -> "subprocess.CompletedProcess[str]":
    """Run lines in one bash, as somebody who has pasted them into a new terminal."""
    return subprocess.run(
        ["bash", "-c", script],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SECONDS_MAX,
        env=environment(),
        cwd=cwd,
        start_new_session=True,
    )


def refusal(stderr: str) -> str:
    """Why a start was refused: the reason in the one line of JSON that standard error has, and nothing beside it."""
    assert "Traceback" not in stderr
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    line = json.loads(lines[0])
    assert line["event"] == "start refused"
    assert line["level"] == "error"
    return str(line["reason"])


def processes_of(folder: Path) -> list[psutil.Process]:
    """All processes that were started for a data folder or work in it, the backends of its PostgreSQL among them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = [*process.cmdline(), process.cwd()]
            if process.pid != os.getpid() and any(str(folder) in word for word in words):
                found.append(process)
    return found


def postmaster_of(folder: Path) -> psutil.Process:
    """The PostgreSQL server of a data folder."""
    return psutil.Process(int((folder / "cluster" / "postmaster.pid").read_text().split("\n")[0]))


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder with a short path. What still runs in it afterwards is a failure, and is ended."""
    folder = Path(tempfile.mkdtemp(prefix="kp-"))
    try:
        yield folder
        until(lambda: not processes_of(folder), STOP_SECONDS)
    finally:
        for process in processes_of(folder):
            with contextlib.suppress(psutil.Error):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def copy_of(server_url: str, template: str) -> Iterator[str]:
    """A copy of a database, for a whole module of tests; its URL."""
    name = f"test_{secrets.token_hex(8)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        names = map(sql.Identifier, (name, template))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    drop_database(server_url, name)


class Serving:
    """A `keysvc serve` (or another command), in a process group of its own; the end of the `with` block ends it.

    Parameters:
        arguments: of `serve`, beside ``--listen``.
        command: another one instead of `serve`.
        listen: where.
        terminal: standard input, output and error are a terminal; else two pipes that are read.
        program: how keysvc is called.
        variables: of its environment.
    """

    def __init__(
        self,
        *arguments: str | Path,
        command: str = "serve",
        listen: str = "127.0.0.1:0",
        terminal: bool = False,
        program: tuple[str, ...] = KEYSVC,
        cwd: Path | None = None,
        **variables: str,
    ) -> None:
        words = [*program, command, *map(str, arguments)]
        if command == "serve":
            words += ["--listen", listen]
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        if terminal:
            ours, theirs = pty.openpty()
            streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        # Under nohup the run ignores SIGHUP, and so would what it starts.
        handler = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.process = subprocess.Popen(
            words, env=environment(**variables), cwd=cwd, start_new_session=True, bufsize=0, **streams
        )
        signal.signal(signal.SIGHUP, handler)
        self._said: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
        if terminal:
            os.close(theirs)
            sources = {"out": ours}
        else:
            assert self.process.stdout is not None
            assert self.process.stderr is not None
            sources = {"out": os.dup(self.process.stdout.fileno()), "err": os.dup(self.process.stderr.fileno())}
            self.process.stdout.close()
            self.process.stderr.close()
        self._readers = [Thread(target=self._read, args=item, daemon=True) for item in sources.items()]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, descriptor: int) -> None:
        # The end of a terminal is an error, that of a pipe is nothing.
        with contextlib.suppress(OSError):
            while data := os.read(descriptor, 65536):
                self._said[name] += data
        os.close(descriptor)

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, if it still runs, gently first."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE * STOP_SECONDS)
            self.process.kill()
        self._collect()

    @property
    def pid(self) -> int:
        """The number of the process, and of its group."""
        return self.process.pid

    @property
    def out(self) -> str:
        """What it has written to standard output, without colours; on a terminal standard error too."""
        return _STEERING.sub("", self._said["out"].decode()).replace("\r\n", "\n")

    @property
    def err(self) -> str:
        """What it has written to standard error."""
        return self._said["err"].decode()

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.err.splitlines()]

    def ready(self, seconds: float = START_SECONDS_MAX) -> str:
        """Wait until it answers; its address."""
        until(lambda: "Ctrl-C stops it.\n" in self.out or self.process.poll() is not None, seconds)
        match = _READY.search(self.out)
        assert match, f"it ended:\n{self.out}\n{self.err}"
        return match[1]

    def ended(self, seconds: float = START_SECONDS_MAX) -> int:
        """Wait for its end; the exit code."""
        self.process.wait(seconds)
        self._collect()
        return self.process.returncode

    def _collect(self) -> None:
        """Wait for the process, and read what it said to the end: nobody else may hold its streams."""
        self.process.wait(START_SECONDS_MAX)
        for reader in self._readers:
            reader.join(STOP_SECONDS)
            assert not reader.is_alive(), "something that it started still holds its output"

    def signal_group(self, number: signal.Signals) -> None:
        """Signal all its processes, as a terminal does."""
        os.killpg(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, group: bool = False) -> float:
        """Signal it, or its whole group, and wait for a good end; how many seconds that took."""
        began = time.monotonic()
        if group:
            self.signal_group(number)
        else:
            self.process.send_signal(number)
        assert self.ended(PATIENCE * STOP_SECONDS) == 0, self.err
        return time.monotonic() - began

    def commands(self) -> str:
        """The lines of the start page that are there to be pasted, as they stand."""
        _, _, after = self.out.partition("Paste into another terminal")
        _, _, pasted = after.partition("\n")
        return pasted.partition("Ctrl-C stops it.")[0]
