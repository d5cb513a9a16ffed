"""A real PostgreSQL 18 in a folder, for development and tests.

One process owns the folder: it holds a file lock, starts the server and stops it last. The kernel drops the lock with
the process, so no users have to be counted, and a server that a killed owner left running is adopted by the next.

The limits, by intention: there is no password and no TCP port. Whoever may enter the socket folder (mode 0700: the
user whom the server belongs to, and root) is let in, as any role. Never for production.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import psycopg

if TYPE_CHECKING:
    from keysvc.store.embedded_postmaster import Postmaster

SOCKET_DIR_PREFIX: Final = "keysvc-"
_GUEST_SECONDS_MAX: Final = 60.0
_OWNER_SECONDS_MAX: Final = 2.0
_CONNECT_SECONDS_MAX: Final = 3
_POLL_SECONDS: Final = 0.02


class EmbeddedError(Exception):
    """The embedded database cannot be used; the text is a sentence for the person who wanted it."""


class EmbeddedInUse(EmbeddedError):  # noqa: N818 (its family has the suffix)
    """Another living process owns the folder.

    Parameters:
        data_dir: the folder.
        pid: the owner, or None in the instant before it has written its number.
    """

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        owner = "another process" if pid is None else f"process {pid}"
        super().__init__(f"the embedded database in {data_dir} is in use by {owner}: stop that one first")
        self.pid = pid


class EmbeddedPostgres:
    """A running embedded PostgreSQL, made by ``start``.

    Attributes:
        url: ``postgresql://…`` for libpq, psycopg and SQLAlchemy: role and database ``keysvc``. As on a managed
            PostgreSQL the role owns its database and may create databases and roles, but is no superuser.
        owned: False for a guest.
    """

    __slots__ = ("_launch", "_lock", "_postmaster", "owned", "url")

    def __init__(
        self,
        url: str,
        lock: int | None = None,
        postmaster: "Postmaster | None" = None,
        launch: "Callable[..., Postmaster] | None" = None,
    ) -> None:
        self.url = url
        self.owned = lock is not None
        self._lock = lock
        self._postmaster = postmaster
        self._launch = launch

    @classmethod
    def start(cls, data_dir: Path, *, share: bool = False, durable: bool = True) -> Self:
        """Own the database in a folder, made if missing; blocks until it answers.

        Have the signal handlers that lead to ``stop`` in place before: a process that merely dies leaves its server to
        the next owner. Do not fork while owning: the child would keep the lock.

        Parameters:
            data_dir: the folder; the cluster, ``postgres.log`` and ``owner.lock`` live in it.
            share: be the guest of a living owner instead of refusing; a guest's ``stop`` does nothing.
            durable: False gives up surviving a power cut, for the speed of throw-away tests. Not asked of a guest.

        Raises EmbeddedInUse if another process owns the folder and ``share`` is False, EmbeddedError for all else.
        """
        try:
            from keysvc.store import embedded_postmaster  # noqa: PLC0415 (what it needs comes with keysvc[embedded])
        except ModuleNotFoundError as error:
            raise EmbeddedError(f"{error}: install keysvc[embedded], or give --database-url") from error

        data_dir = data_dir.expanduser().resolve()
        # A short-lived owner, such as `keysvc bootstrap`, is worth waiting for.
        deadline = time.monotonic() + (_GUEST_SECONDS_MAX if share else _OWNER_SECONDS_MAX)
        try:
            _make_folder(data_dir)
            while (lock := _take_lock(data_dir)) is None:
                if time.monotonic() > deadline:
                    raise EmbeddedInUse(data_dir, _owner_pid(data_dir))
                # A guest that comes while the owner starts waits for it; one that comes while it stops inherits.
                record = Record.read(data_dir / "cluster") if share else None
                if record is not None and record.ready and fsync_at(record.url) is not None:
                    return cls(record.url)
                time.sleep(_POLL_SECONDS)
            with contextlib.ExitStack() as undo:
                undo.callback(os.close, lock)
                launch = partial(embedded_postmaster.run, data_dir, durable=durable)
                postmaster = launch()
                undo.pop_all()
        except (OSError, psycopg.Error) as error:
            raise EmbeddedError(f"the embedded database in {data_dir} cannot be used: {error}") from error
        return cls(postmaster.record.url, lock, postmaster, launch)

    @property
    def is_dead(self) -> bool:
        """Whether the server of an owner has ended by itself: somebody killed it."""
        return self._lock is not None and self._postmaster is not None and not self._postmaster.is_alive()

    def revive(self) -> None:
        """Start a server that is dead again, at the same address. Blocks for seconds. Raises EmbeddedError."""
        if self._postmaster is None or self._launch is None:
            return
        try:
            self._postmaster = self._launch(socket_dir=self._postmaster.record.socket_dir)
        except (OSError, psycopg.Error) as error:
            raise EmbeddedError(f"the embedded database does not start again: {error}") from error

    def stop(self) -> None:
        """Stop the server and let go of the folder; blocks for at most 5 s.

        A guest's call, a second call and a server that has died already are all fine.
        """
        lock, self._lock = self._lock, None
        if lock is None:
            return
        try:
            if self._postmaster is not None:
                self._postmaster.end()
        finally:
            os.close(lock)


class Record(NamedTuple):
    """What a server says of itself in ``postmaster.pid``: its number, where it listens, whether it is ready."""

    pid: int
    socket_dir: Path
    ready: bool

    @classmethod
    def read(cls, cluster: Path) -> Self | None:
        """The record in a cluster, or None if no server runs or has died there."""
        try:
            lines = os.fsdecode((cluster / "postmaster.pid").read_bytes()).split("\n")
        except FileNotFoundError:
            return None
        lines += [""] * 8  # it grows while the server starts
        return cls(int(lines[0]) if lines[0].isdecimal() else 0, Path(lines[4]), lines[7].strip() == "ready")

    @property
    def url(self) -> str:
        """Where role ``keysvc`` finds its database."""
        return self._url("keysvc")

    @property
    def admin_url(self) -> str:
        """Where the superuser finds one that is always there."""
        return self._url("postgres")

    def _url(self, name: str) -> str:
        # With the port, lest a PGPORT of the environment is obeyed.
        return f"postgresql://{name}@/{name}?host={self.socket_dir}&port=5432"

    def remove_socket_dir(self) -> None:
        """Remove what the server left; file by file, since PostgreSQL's user might put another path into the record."""
        if self.socket_dir.name.startswith(SOCKET_DIR_PREFIX):
            with contextlib.suppress(OSError):
                for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
                    (self.socket_dir / name).unlink(missing_ok=True)
                self.socket_dir.rmdir()


def fsync_at(url: str) -> bool | None:
    """Whether the server at an address survives a power cut; None if none answers."""
    try:
        with psycopg.connect(url, connect_timeout=_CONNECT_SECONDS_MAX) as connection:
            row = connection.execute("SELECT current_setting('fsync')::bool").fetchone()
    except psycopg.Error:
        return None
    return row is not None and row[0] is True


def ensure_database(url: str) -> None:
    """Make role and database ``keysvc``, each if missing (an earlier start may have come half way), as a superuser."""
    with psycopg.connect(url, connect_timeout=_CONNECT_SECONDS_MAX, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = 'keysvc'").fetchone() is None:
            connection.execute("CREATE ROLE keysvc LOGIN CREATEDB CREATEROLE")
        if connection.execute("SELECT FROM pg_database WHERE datname = 'keysvc'").fetchone() is None:
            connection.execute("CREATE DATABASE keysvc OWNER keysvc")


_OURS: Final = frozenset({"owner.lock", "cluster"})
"""What every folder of ours has, from its first moment on."""


def _make_folder(data_dir: Path) -> None:
    """Make the folder for us alone; as root others may pass through without looking: PostgreSQL's user has to."""
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700)
    found = [path.name for path in data_dir.iterdir()]
    if found and _OURS.isdisjoint(found):
        raise EmbeddedError(f"{data_dir} has files that are not keysvc's: give it a folder of its own with --data-dir")


def _take_lock(data_dir: Path) -> int | None:
    """Become the owner: the descriptor that holds the lock, or None if there is one already."""
    lock = os.open(data_dir / "owner.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    os.ftruncate(lock, 0)
    os.write(lock, b"%d\n" % os.getpid())
    return lock


def _owner_pid(data_dir: Path) -> int | None:
    """The number that the owner wrote into its lock."""
    text = (data_dir / "owner.lock").read_text().strip()
    return int(text) if text.isdecimal() else None
