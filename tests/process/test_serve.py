"""`keysvc serve` with a database of its own: what it prints, and that it always ends whole."""

import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from keysvc.core.keystring import PATTERN
from keysvc.v1 import key_pb2, key_service_pb2, verify_pb2, workspace_service_pb2
from keysvc.v1.key_service_pb2_grpc import KeyServiceStub
from keysvc.v1.workspace_service_pb2_grpc import WorkspaceServiceStub
from tests.process.conftest import Used
from tests.process.running import (
    PATIENCE,
    STOP_SECONDS,
    Serving,
    bash,
    postmaster_of,
    processes_of,
    refusal,
    run,
    until,
)

pytestmark = pytest.mark.timeout(180)  # on a busy machine each of many processes takes its time

ENDINGS = [
    pytest.param(signal.SIGINT, False, id="SIGINT"),
    pytest.param(signal.SIGTERM, False, id="SIGTERM"),
    pytest.param(signal.SIGINT, True, id="Ctrl-C"),
    pytest.param(signal.SIGTERM, True, id="SIGTERM-to-the-group"),
    pytest.param(signal.SIGHUP, True, id="the-terminal-is-closed"),
]


def verdicts(script: str, cwd: Path = Path("/")) -> list[str]:
    """Run pasted lines; the verdicts that they show, in their order. No line may complain but the last `verify`."""
    done = bash(script, cwd)
    assert done.stderr == ""
    assert done.returncode == 3, "the last line is a refused verify"
    return re.findall(r"^(VALID|REVOKED|[A-Z_]{6,})$", done.stdout, re.MULTILINE)


def caller(key_string: str) -> list[tuple[str, str]]:
    """The metadata of a call."""
    return [("authorization", f"Bearer {key_string}")]


def test_the_first_start_shows_the_operator_key_once_and_its_commands_work(data_dir: Path) -> None:
    """On a terminal the first page has the key, and the lines below it, pasted, give VALID, then REVOKED.

    The second start has no key to show, and no use for those lines; the key is still good.
    """
    with Serving("--data-dir", data_dir, terminal=True) as first:
        first.ready()
        (key_string,) = set(re.findall(PATTERN, first.out))
        assert verdicts(first.commands()) == ["VALID", "REVOKED"]
        first.stop(signal.SIGINT, group=True)
        assert first.out.count(key_string) == 2, "once to keep, once to paste"
    with Serving("--data-dir", data_dir, terminal=True) as second:
        address = second.ready()
        assert re.search(PATTERN, second.out) is None
        assert "Operator key" not in second.out
        assert "workspaces create" not in second.out
        assert caller_is_known(address, key_string)
        second.stop(signal.SIGINT, group=True)


def test_without_a_terminal_no_key_is_printed_and_bootstrap_works_beside_the_server(data_dir: Path) -> None:
    """Logs and pipes never get the key: the page says to run `keysvc bootstrap`, and that works as printed."""
    with Serving("--data-dir", data_dir) as server:
        server.ready()
        assert re.search(PATTERN, server.out + server.err) is None
        script = server.commands()
        assert f" bootstrap --data-dir {data_dir})" in script
        assert verdicts(script) == ["VALID", "REVOKED"]
        again = run("bootstrap", "--data-dir", data_dir)
        assert again.returncode == 1
        assert re.search(PATTERN, again.stdout + again.stderr) is None
        server.stop()
        assert re.search(PATTERN, server.out + server.err) is None


def test_the_page_works_from_any_path(data_dir: Path) -> None:
    """A checkout may have a space in its path, and so may a data folder; `make run` names both by relative paths.

    The page says that its lines are for this folder.
    """
    home = data_dir.parent
    (home / "my env").symlink_to(Path(sys.executable).parent.parent)
    with Serving("--data-dir", "my data", program=("my env/bin/keysvc",), cwd=home) as server:
        server.ready()
        assert "in this folder" in server.out
        script, create, _ = server.commands().partition("workspaces create acme-corp/sales\n")
        done = bash(script + create, home)
        assert (done.returncode, done.stderr) == (0, "")
        assert "acme-corp/sales" in done.stdout
        server.stop()


def caller_is_known(address: str, key_string: str) -> bool:
    """Whether a server takes a key for one of its callers."""
    with grpc.insecure_channel(address) as channel:
        try:
            KeyServiceStub(channel).List(key_service_pb2.ListRequest(), metadata=caller(key_string), timeout=10)
        except grpc.RpcError:
            return False
    return True


@pytest.mark.parametrize(("number", "group"), ENDINGS)
def test_a_signal_stops_everything_and_the_database_last(used: Used, number: signal.Signals, group: bool) -> None:
    """Exit code 0 within 5 s, PostgreSQL shut down in order after the port is closed, no process left."""
    with Serving("--data-dir", used.folder) as server:
        host, port = server.ready().split(":")
        database = postmaster_of(used.folder)
        port_when_database_ended: list[bool] = []

        def watch() -> None:
            until(lambda: not database.is_running() or database.status() == psutil.STATUS_ZOMBIE, pause=0.003)
            with socket.socket() as probe:
                port_when_database_ended.append(probe.connect_ex((host, int(port))) == 0)

        watcher = threading.Thread(target=watch)
        watcher.start()
        seconds = server.stop(number, group=group)
        assert not processes_of(used.folder)
        watcher.join()
    assert seconds < PATIENCE * STOP_SECONDS
    assert port_when_database_ended == [False]
    assert "database system is shut down" in (used.folder / "postgres.log").read_text().splitlines()[-1]
    assert [line["event"] for line in server.log] == ["serving", "stopping", "stopped"]


def test_calls_under_way_never_see_the_database_go(used: Used) -> None:
    """While the server stops, a call is either answered or not taken; none is told that the database is away.

    Open health watches are told NOT_SERVING and hold up nothing.
    """
    stopped, outcomes, watched = threading.Event(), list[str](), list[int]()

    with Serving("--data-dir", used.folder) as server:
        address = server.ready()

        def hammer() -> None:
            with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                stub = KeyServiceStub(channel)
                while not stopped.is_set():
                    try:
                        stub.List(key_service_pb2.ListRequest(), metadata=caller(used.operator_key), timeout=10)
                        outcomes.append("OK")
                    except grpc.RpcError as error:
                        outcomes.append(outcome(error))

        def watch() -> None:
            with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                try:
                    for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
                        watched.append(answer.status)
                except grpc.RpcError:
                    pass

        threads = [threading.Thread(target=each) for each in (hammer, hammer, watch)]
        for thread in threads:
            thread.start()
        until(lambda: outcomes.count("OK") >= 20 and watched)
        seconds = server.stop()
        stopped.set()
        for thread in threads:
            thread.join()
    assert seconds < PATIENCE * STOP_SECONDS
    assert set(outcomes) <= {"OK", "not taken"}
    assert watched == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    assert not [line for line in server.log if line["level"] in {"warning", "error", "critical"}]


def outcome(error: grpc.RpcError) -> str:
    """What became of a call: `not taken` if keysvc itself said nothing, else what it said."""
    assert isinstance(error, grpc.Call)
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            (info, *_) = status_pb2.Status.FromString(value).details
            told = error_details_pb2.ErrorInfo()
            info.Unpack(told)
            return told.reason
    if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
        return "not taken"
    return f"{error.code().name}: {error.details()}"


def exists(pattern: str) -> Callable[[Path], object]:
    """Whether a data folder holds something."""
    return lambda folder: folder.exists() and any(folder.glob(pattern))


@pytest.mark.parametrize(
    ("moment", "number", "group"),
    [
        pytest.param(exists("owner.lock"), signal.SIGTERM, False, id="the-folder-is-ours"),
        pytest.param(exists("new-*/PG_VERSION"), signal.SIGINT, True, id="the-cluster-is-being-made"),
        pytest.param(exists("cluster/postmaster.pid"), signal.SIGTERM, True, id="the-database-starts"),
        pytest.param(exists("peppers"), signal.SIGINT, False, id="the-schema-is-there"),
    ],
)
def test_a_signal_during_the_first_start_stops_everything(
    data_dir: Path, moment: Callable[[Path], object], number: signal.Signals, group: bool
) -> None:
    """Whatever has begun is taken down, in 5 s; the exit is a good one, without an error in the log."""
    with Serving("--data-dir", data_dir) as server:
        until(lambda: moment(data_dir), pause=0.003)
        seconds = server.stop(number, group=group)
        assert not processes_of(data_dir)
    assert seconds < PATIENCE * STOP_SECONDS
    assert {line["level"] for line in server.log} == {"info"}


@pytest.fixture
def kept(used: Used) -> tuple[Used, str]:
    """A data folder whose server was killed with -9 after it had made a key, and that key."""
    with Serving("--data-dir", used.folder) as server:
        with grpc.insecure_channel(server.ready()) as channel:
            workspace = workspace_service_pb2.Workspace(name="acme-corp/sales")
            WorkspaceServiceStub(channel).CreateWorkspace(
                workspace_service_pb2.CreateWorkspaceRequest(workspace=workspace), metadata=caller(used.operator_key)
            )
            created = KeyServiceStub(channel).Create(
                key_service_pb2.CreateRequest(
                    workspace="acme-corp/sales", display_name="kept", environment=key_pb2.ENVIRONMENT_LIVE
                ),
                metadata=caller(used.operator_key),
            )
        server.process.kill()
        assert server.ended() == -signal.SIGKILL
    return used, created.key_string


@pytest.mark.parametrize("database_too", [False, True], ids=["keysvc", "keysvc-and-its-database"])
def test_after_kill_9_the_next_run_has_the_data_and_stops_everything(
    kept: tuple[Used, str], database_too: bool
) -> None:
    """Nothing committed is lost, and what the killed run left behind is ended with the next."""
    used, key_string = kept
    left = postmaster_of(used.folder)
    assert left.is_running()
    if database_too:
        left.kill()
    with Serving("--data-dir", used.folder) as server:
        with grpc.insecure_channel(server.ready()) as channel:
            request = verify_pb2.VerifyRequest(key_string=key_string)
            response = KeyServiceStub(channel).Verify(request, metadata=caller(used.operator_key), timeout=10)
            assert response.verdict == verify_pb2.VERDICT_VALID
        seconds = server.stop(signal.SIGINT, group=True)
        assert not processes_of(used.folder)
    assert seconds < PATIENCE * STOP_SECONDS


def test_a_signal_during_a_start_after_kill_9_stops_everything(kept: tuple[Used, str]) -> None:
    """The database that the killed run left is ended by a run that is itself interrupted while it starts."""
    used, _ = kept
    owner = used.folder / "owner.lock"
    with Serving("--data-dir", used.folder) as server:
        until(lambda: owner.read_text().strip() == str(server.pid), pause=0.003)
        server.stop(signal.SIGINT)
        assert not processes_of(used.folder)


def test_a_killed_database_comes_back_by_itself(used: Used) -> None:
    """When PostgreSQL is killed under a running server, calls are UNAVAILABLE for a while, and then work again."""
    with Serving("--data-dir", used.folder) as server:
        address = server.ready()
        postmaster_of(used.folder).kill()
        until(lambda: caller_is_known(address, used.operator_key), pause=0.1)
        seconds = server.stop()
        assert not processes_of(used.folder)
    assert seconds < PATIENCE * STOP_SECONDS


def test_a_terminated_command_leaves_no_database_behind(data_dir: Path) -> None:
    """A `bootstrap` (or `migrate`) that owns the database while it runs takes it along, also on SIGTERM."""
    with Serving("--data-dir", data_dir, command="bootstrap") as running:
        until(lambda: exists("cluster/postmaster.pid")(data_dir), pause=0.003)
        running.process.send_signal(signal.SIGTERM)
        running.ended(PATIENCE * STOP_SECONDS)
        until(lambda: not processes_of(data_dir), STOP_SECONDS)
    assert "Traceback" not in running.err


def test_a_second_serve_on_the_same_folder_is_refused(used: Used) -> None:
    """A sentence names the folder and the process to stop; the first server notices nothing."""
    with Serving("--data-dir", used.folder) as first:
        address = first.ready()
        second = run("serve", "--listen", "127.0.0.1:0", "--data-dir", used.folder)
        assert second.returncode == 1
        assert second.stdout == ""
        assert f"{used.folder} is in use by process {first.pid}" in refusal(second.stderr)
        assert caller_is_known(address, used.operator_key)
        first.stop()


@pytest.fixture
def taken() -> Iterator[str]:
    """An address on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_taken_port_is_refused_and_leaves_nothing_running(used: Used, taken: str) -> None:
    """One line names the setting and the address; the database is stopped again."""
    began = time.monotonic()
    refused = run("serve", "--listen", taken, "--data-dir", used.folder)
    assert not processes_of(used.folder)
    assert time.monotonic() - began < 30
    assert refused.returncode == 1
    reason = refusal(refused.stderr)
    assert "KEYSVC_LISTEN" in reason
    assert taken in reason


def test_an_operator_key_is_never_made_unseen(data_dir: Path, taken: str) -> None:
    """A first start that fails after all, on a terminal, does not eat the key: the next one shows it."""
    with Serving("--data-dir", data_dir, listen=taken, terminal=True) as refused:
        assert refused.ended() == 1
        assert re.search(PATTERN, refused.out) is None
    with Serving("--data-dir", data_dir, terminal=True) as server:
        address = server.ready()
        (key_string,) = set(re.findall(PATTERN, server.out))
        assert caller_is_known(address, key_string)
        server.stop()


def test_the_data_is_closed_to_others(used: Used) -> None:
    """Peppers are readable by their owner alone, and so is everything in the cluster."""
    assert (used.folder / "peppers").stat().st_mode & 0o777 == 0o600
    assert (used.folder / "cluster").stat().st_mode & 0o077 == 0


def test_a_half_written_peppers_file_is_told_by_name(used: Used) -> None:
    """What a power cut or an editor leaves in it is a sentence that names the file, and shows nothing of it."""
    (used.folder / "peppers").write_text("0123456789abcdef\n")
    refused = run("serve", "--listen", "127.0.0.1:0", "--data-dir", used.folder)
    assert refused.returncode == 1
    reason = refusal(refused.stderr)
    assert str(used.folder / "peppers") in reason
    assert "0123456789abcdef" not in refused.stderr


def test_lost_peppers_are_told_and_can_be_brought_back(used: Used) -> None:
    """Without its peppers file a database with keys is refused; with the old file everything is as it was."""
    kept = (used.folder / "peppers").rename(used.folder / "kept")
    refused = run("serve", "--listen", "127.0.0.1:0", "--data-dir", used.folder)
    assert refused.returncode == 1
    assert "pepper" in refusal(refused.stderr)
    kept.rename(used.folder / "peppers")
    with Serving("--data-dir", used.folder) as server:
        assert caller_is_known(server.ready(), used.operator_key)
        server.stop()
