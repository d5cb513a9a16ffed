import os
import re
import signal
import subprocess
import sys
import threading

import grpc
import pytest
import typer

from keysvc.cli.main import app
from keysvc.v1.key_service_pb2 import GetResponse, ListResponse, RevokeResponse
from tests.cli.conftest import Run
from tests.cli.peer import Peer
from tests.cli.sample import KEY_ID, OTHER_KEY_ID, key, receipt

COMMAND = [sys.executable, "-m", "keysvc"]


def pages(command: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every command that has a help page."""
    found = [path]
    for name, child in getattr(command, "commands", {}).items():
        found += pages(child, (*path, name))
    return found


@pytest.mark.parametrize("path", pages(typer.main.get_command(app)), ids=" ".join)
def test_every_help_page_fits_80_columns(run: Run, path: tuple[str, ...]) -> None:
    """And ends well, without any server."""
    result = run(*path, "--help", columns=80)
    assert (result.code, result.err) == (0, "")
    assert all(len(line) <= 80 for line in result.out.splitlines())
    assert run(*path, "-h", columns=80).out == result.out


def test_help_says_what_exit_codes_mean_and_what_is_read(run: Run) -> None:
    """On the first page."""
    out = run("--help").out
    assert "4  the service is not available" in out
    assert "KEYSVC_API_KEY_FILE" in out


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    """As wrong usage, not on standard output."""
    for path in ((), ("keys",)):
        result = run(*path)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("Usage: keysvc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense",), "No such command 'nonsense'."),
        (("keys", "lst"), "No such command 'lst'. Did you mean 'list'?"),
        (("keys", "revoke"), "Missing argument 'KEY_ID'."),
        (("keys", "list", "--state", "x"), "Invalid value for '--state': 'x' is not one of"),
        (("keys", "list", "--expire-before", "90"), "Invalid value for '--expire-before': '90' is no time"),
        (("keys", "list", "--page-size", "x"), "'x' is no whole number"),
        (("keys", "create", "--ttl", "90"), "Invalid value for '--ttl': '90' is no duration: write 90d"),
        (("keys", "create", "--metadata", "x"), "'x' must look like NAME=VALUE"),
        (("keys", "list", "--owner", "\udcff"), "is not UTF-8"),
    ],
)
def test_wrong_usage_is_a_sentence(run: Run, arguments: tuple[str, ...], message: str) -> None:
    """Exit code 2, nothing on standard output."""
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert message in result.err


def test_the_version_is_told(run: Run) -> None:
    """Whether installed or not."""
    assert re.fullmatch(r"keysvc \S+( \S+)?\n", run("--version").out)


def test_help_does_not_load_grpc() -> None:
    """It is there at once."""
    code = "import sys; from keysvc.cli.main import main; main(['keys', '--help']); sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_ctrl_c_ends_a_call_quietly(peer: Peer, run: Run) -> None:
    """Exit code 130, as of a program that the signal ended."""
    called, released = threading.Event(), threading.Event()

    def never(_: object, context: grpc.ServicerContext) -> GetResponse:
        context.add_callback(released.set)
        called.set()
        released.wait()
        return GetResponse()

    peer.answers("Get", never)
    with subprocess.Popen([*COMMAND, "keys", "get", KEY_ID], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert called.wait(30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize("arguments", [("keys", "list"), ("keys", "list", "-q", "--all"), ("keys", "list", "--json")])
def test_a_reader_that_went_away_is_no_error(peer: Peer, run: Run, arguments: tuple[str, ...]) -> None:
    """`keysvc keys list | head -1`."""
    peer.answers("List", ListResponse(keys=[key()], next_page_token=""))
    assert into_a_closed_pipe(*arguments) == (0, b"")
    assert len(peer.requests["List"]) == 1


def test_a_reader_that_went_away_stops_no_change(peer: Peer, run: Run) -> None:
    """`keysvc keys revoke … | head -1` revokes all of them."""
    peer.answers("Revoke", *[RevokeResponse(key=key(), receipt=receipt())] * 2)
    assert into_a_closed_pipe("keys", "revoke", KEY_ID, OTHER_KEY_ID) == (0, b"")
    assert [request.key_id for request in peer.requests["Revoke"]] == [KEY_ID, OTHER_KEY_ID]


def test_help_into_a_closed_pipe_is_quiet(run: Run) -> None:
    """As everything else."""
    assert into_a_closed_pipe("--help")[1] == b""


def into_a_closed_pipe(*arguments: str) -> tuple[int, bytes]:
    """Run a command whose output nobody reads; its exit code, and what it says about that."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run([*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    return process.returncode, process.stderr


def test_closed_streams_are_no_error(peer: Peer, run: Run) -> None:
    """As a service manager may start it."""
    peer.answers("List", ListResponse(keys=[key()]))
    command = 'exec "$@" <&- >&- 2>&-'
    process = subprocess.run(["/bin/sh", "-c", command, "sh", *COMMAND, "keys", "list"], check=False)
    assert process.returncode == 0
    assert len(peer.requests["List"]) == 1
