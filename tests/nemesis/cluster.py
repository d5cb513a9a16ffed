"""A PostgreSQL that survives crashes, and several real servers on it."""

import contextlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import psycopg

from keysvc.store.embedded import EmbeddedPostgres, Record
from keysvc.v1.audit_service_pb2_grpc import AuditServiceStub
from keysvc.v1.key_service_pb2_grpc import KeyServiceStub
from keysvc.v1.workspace_service_pb2_grpc import WorkspaceServiceStub
from tests.nemesis.link import Link, Wiring
from tests.process.running import KEYSVC, Serving, postmaster_of, run, short_folder, until

LEASE_SECONDS: Final = 1.0
"""Short, so that a run is quick: whatever is waited for takes a lease or two."""

OPTIONS: Final = ("--lease-seconds", str(LEASE_SECONDS))
"""Of every server, so that its leases are as long."""

CLOCK_RATIO_MAX: Final = 1.2
WAIT_SECONDS: Final = CLOCK_RATIO_MAX * LEASE_SECONDS + 0.05
"""What a change waits for when somebody does not acknowledge: the lease by the slowest clock, and a little."""

_SAID_LINES: Final = 300
"""Of the last words of a server that died: Python says in which calls all of its threads were."""

CHECKOUT: Final = Path(__file__).parents[2]

STEERED: Final = (sys.executable, "-m", "tests.nemesis.serving")
"""A server whose event loop can be blocked, and whose clock can run at another rate."""

_CHANNEL: Final = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]


def now() -> float:
    """The clock of everything: it goes on while a process is stopped, and is the same in all processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Site:
    """How a server is started.

    Parameters:
        name: of one letter.
        is_linked: it reaches PostgreSQL through a link.
        program: how keysvc is called.
        variables: of its environment.
        host: where it listens.
        link_host: where its link listens.
        is_client: it is no server, but a client of some that answers for itself.
    """

    name: str
    is_linked: bool = False
    program: tuple[str, ...] = KEYSVC
    variables: dict[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    link_host: str = "127.0.0.1"
    is_client: bool = False


class ServerDiedError(Exception):
    """A server has ended that nobody has ended."""


class Node:
    """A server that can be started again and again, each time at another address.

    Attributes:
        life: how often it was started.
        link: to PostgreSQL, if it has one.
    """

    def __init__(self, site: Site, cluster: "Cluster") -> None:
        self.site = site
        self._cluster = cluster
        self._serving: Serving | None = None
        self.life = 0
        self.address = ""
        self.link: Link | None = cluster.wire(site.link_host) if site.is_linked else None

    @property
    def name(self) -> str:
        """The server in this life."""
        return f"{self.site.name}/{self.life}"

    def launch(self) -> None:
        """Start it, and do not wait for it. In the main thread only: signals are dealt with there."""
        url = self.link.url() if self.link else self._cluster.url
        options = [] if self.site.host == "127.0.0.1" else ["--allow-plaintext"]
        self._serving = Serving(
            *options,
            *OPTIONS,
            listen=f"{self.site.host}:0",
            program=self.site.program,
            cwd=CHECKOUT,
            KEYSVC_DATABASE_URL=url,
            KEYSVC_PEPPERS=self._cluster.pepper,
            PYTHONFAULTHANDLER="1",
            **self.site.variables,
        )

    def await_ready(self) -> None:
        """Wait until it answers."""
        self.address = self._running.ready()
        self.life += 1

    @property
    def _running(self) -> Serving:
        assert self._serving, f"server {self.site.name} does not run"
        return self._serving

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._running.pid

    @property
    def log(self) -> list[dict[str, object]]:
        """What it has logged in this life."""
        return self._running.log

    @property
    def died(self) -> str:
        """How it ended, if nobody ended it."""
        if self._serving is None or (code := self._serving.process.poll()) is None:
            return ""
        said = [line for line in self._serving.err.splitlines() if '"level": "info"' not in line]
        return "\n  ".join([f"server {self.name} ended with {code}", *said[-_SAID_LINES:]])

    def signal(self, number: signal.Signals) -> None:
        """Signal all its processes."""
        os.killpg(self._running.pid, number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.signal(signal.SIGKILL)
        assert self._running.ended() == -signal.SIGKILL
        self._serving = None

    def leave(self) -> None:
        """End it as its operator would; what it was doing is finished."""
        self._running.stop()
        self._serving = None

    def close(self) -> None:
        """End it, in whatever state it is."""
        if self._serving is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGCONT)
            with self._serving:
                pass
            self._serving = None


class Cluster:
    """The database and its servers. Blocks while things start and stop.

    Parameters:
        folder: for the database, with a short path.
        stack: ends what was begun.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder / "data"
        self._postgres = EmbeddedPostgres.start(self._folder, durable=True)
        stack.callback(self._postgres.stop)
        self._wiring = stack.enter_context(Wiring())
        self.url = self._postgres.url
        self.pepper = secrets.token_hex(32)
        done = run("bootstrap", KEYSVC_DATABASE_URL=self.url, KEYSVC_PEPPERS=self.pepper)
        assert done.returncode == 0, done.stderr
        self.operator_key = done.stdout.strip()
        self.nodes = list[Node]()
        stack.callback(self._close)

    @classmethod
    @contextlib.contextmanager
    def open(cls, *sites: Site) -> "Iterator[Cluster]":
        """A cluster with servers that answer; afterwards nothing of it is left."""
        with short_folder() as folder, ExitStack() as stack:
            cluster = cls(folder, stack)
            for node in cluster.launch(*sites):
                node.await_ready()
            yield cluster

    def launch(self, *sites: Site) -> list[Node]:
        """Add servers, all at once, and do not wait for them."""
        added = [Node(site, self) for site in sites]
        self.nodes += added
        for node in added:
            node.launch()
        return added

    def remove(self, node: Node) -> None:
        """Forget a server, which may still run."""
        self.nodes.remove(node)
        node.close()

    def _close(self) -> None:
        died = [reason for node in self.nodes if (reason := node.died)]
        for node in self.nodes:
            node.close()
        if died:
            raise ServerDiedError("; ".join(died))

    def wire(self, host: str) -> Link:
        """A link to PostgreSQL."""
        return self._wiring.link(self._record.socket_dir / ".s.PGSQL.5432", host)

    def wire_to(self, node: Node) -> Link:
        """A link to a server."""
        return self._wiring.link(node.address)

    @property
    def _record(self) -> Record:
        record = Record.read(self._folder / "cluster")
        assert record
        return record

    def end_postgres(self, how: signal.Signals) -> None:
        """End PostgreSQL: SIGINT fast, SIGQUIT at once, SIGKILL without its knowing."""
        postmaster_of(self._folder).send_signal(how)
        until(lambda: self._postgres.is_dead)

    def revive_postgres(self) -> None:
        """Start PostgreSQL again, at the same address."""
        self._postgres.revive()

    def terminate_backends(self) -> int:
        """Let PostgreSQL end all connections of servers; how many there were."""
        with psycopg.connect(self._record.admin_url, autocommit=True) as connection:
            found = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'keysvc'"
            ).fetchone()
        assert found
        return int(found[0])

    @property
    def postgres_version(self) -> str:
        """Such as ``18.4``."""
        with psycopg.connect(self.url) as connection:
            return str(connection.execute("SHOW server_version").fetchone()[0])  # type: ignore[index]


class Caller:
    """The operator, as a client of one life of a server.

    Attributes:
        name: of the server in this life.
    """

    def __init__(self, node: Node, key_string: str) -> None:
        self.name = node.name
        self.channel = grpc.aio.insecure_channel(node.address, _CHANNEL)
        self.keys = KeyServiceStub(self.channel)
        self.workspaces = WorkspaceServiceStub(self.channel)
        self.audit = AuditServiceStub(self.channel)
        self.metadata = (("authorization", f"Bearer {key_string}"),)

    def answered_by(self, holder: str) -> str:
        """Who has given an answer.

        Parameters:
            holder: that the answer names.
        """
        return self.name
