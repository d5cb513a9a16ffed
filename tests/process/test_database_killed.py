"""The embedded database is killed under a server."""

import time
from pathlib import Path

import psutil

from tests.process.running import Serving, run

SECONDS_MAX = 15


def test_a_killed_database_is_started_again(data_dir: Path) -> None:
    """Callers hear UNAVAILABLE for a moment, then everything is as before; the log tells of it."""
    with Serving("--data-dir", data_dir) as server:
        address = server.ready()
        key = run("bootstrap", "--data-dir", data_dir).stdout.strip()
        variables = {"KEYSVC_ADDRESS": address, "KEYSVC_API_KEY": key}
        assert run("workspaces", "create", "acme-corp/sales", **variables).returncode == 0
        psutil.Process(int((data_dir / "cluster" / "postmaster.pid").read_text().split("\n")[0])).kill()
        deadline = time.monotonic() + SECONDS_MAX
        while (listed := run("workspaces", "list", "-q", **variables)).returncode:
            assert "UNAVAILABLE" in listed.stderr
            assert time.monotonic() < deadline
        assert "acme-corp/sales" in listed.stdout
    assert "the embedded database died" in server.err
