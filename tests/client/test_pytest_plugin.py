"""The pytest plugin, in runs of pytest as its users have them. The guide's example is run by the tests of guides."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pytest_keysvc import server
from tests.process.running import PATIENCE, STOP_SECONDS, environment, until

REAL = """
import os
from pathlib import Path

from keysvc_client import KeysvcClient, PermissionDenied
import pytest


def test_it_serves(keysvc_server, keysvc_operator, keysvc_client):
    Path("pid").write_text(f"{keysvc_server.pid} {keysvc_server.folder}")
    assert keysvc_server.folder.is_dir()
    assert keysvc_server.operator_key not in repr(keysvc_server)
    with KeysvcClient(keysvc_server.address, api_key=keysvc_server.operator_key) as client:
        client.workspaces.create("acme-corp/sales")
    key = keysvc_operator.keys.create(workspace="acme-corp/sales", display_name="a key", environment="live")
    assert keysvc_client.verify(key.key_string).valid
    with pytest.raises(PermissionDenied):
        keysvc_client.keys.revoke(key.key.id)


def test_it_is_the_same_for_all_tests(keysvc_server, keysvc_operator):
    assert Path("pid").read_text().startswith(str(keysvc_server.pid))
    assert keysvc_operator.workspaces.get("acme-corp/sales")
"""

FAKE = """
def test_one(fake_keysvc):
    fake_keysvc.operator.workspaces.create("acme-corp/sales")


def test_two(fake_keysvc):
    fake_keysvc.operator.workspaces.create("acme-corp/sales")
"""


_WITHOUT = [word for name in ("asyncio", "randomly", "hypothesispytest") for word in ("-p", f"no:{name}")]
"""Plugins of the tests here, which have settings and warnings of their own."""


def run(folder: Path, tests: str) -> "subprocess.CompletedProcess[str]":
    """Run pytest in a folder, on one file."""
    (folder / "test_it.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *_WITHOUT, "test_it.py"]
    # What the reader's own shell says of keysvc is no concern of the server that is started.
    variables = environment(KEYSVC_ADDRESS="192.0.2.1:1", KEYSVC_LISTEN="nonsense")
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=50, check=False)


def test_a_real_server_for_all_tests(tmp_path: Path) -> None:
    """One for the session, with an operator and a verifier; afterwards neither processes nor files of it are left."""
    ran = run(tmp_path, REAL)
    assert "2 passed" in ran.stdout, ran.stdout
    pid, _, folder = (tmp_path / "pid").read_text().partition(" ")
    assert not psutil.pid_exists(int(pid))
    until(lambda: not Path(folder).parent.exists(), PATIENCE * STOP_SECONDS)


def test_a_fake_for_each_test(tmp_path: Path) -> None:
    """What one test has created the next one does not find."""
    ran = run(tmp_path, FAKE)
    assert "2 passed" in ran.stdout, ran.stdout


def test_a_server_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words are in the failure."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text("import sys\nif 'serve' in sys.argv: sys.exit('no luck today')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    ran = run(tmp_path, REAL)
    assert "keysvc has not started" in ran.stdout
    assert "no luck today" in ran.stdout


def test_without_a_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extras of keysvc that are missing, and what needs none."""
    monkeypatch.setattr(server, "NEEDED", {"typer": "server", "no_such_module": "embedded"})
    with pytest.raises(pytest.fail.Exception, match=r"Install keysvc\[embedded\], or use fake_keysvc"):
        server.check_installed()


def test_a_run_that_does_not_use_it_loads_nothing_of_keysvc(tmp_path: Path) -> None:
    """The plugin is in every run of pytest in the environment: neither gRPC nor the client comes with it."""
    unused = "import sys\n\ndef test_it():\n    assert 'pytest_keysvc' in sys.modules\n"
    unused += (
        "    assert not {'grpc', 'google.protobuf', 'keysvc', 'keysvc_client', 'structlog'} & sys.modules.keys()\n"
    )
    ran = run(tmp_path, unused)
    assert "1 passed" in ran.stdout, ran.stdout
