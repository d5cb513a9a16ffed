"""A real PostgreSQL for all tests, a database of its own for each, and real servers on real sockets.

The server is an embedded one, started once for the whole run, or the one that ``KEYSVC_TEST_DATABASE_URL`` names.
"""

import logging
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from io import StringIO
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql

from keysvc import logs
from keysvc.core.pepper import Peppers
from keysvc.store.embedded import EmbeddedPostgres
from keysvc.store.migrate import migrate
from tests.databases import drop_database
from tests.deployment import Deployment
from tests.nemesis.link import Link, Wiring

# A busy machine is no counterexample. The second one is for whoever has time: --hypothesis-profile=long
settings.register_profile("keysvc", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2500)
settings.load_profile("keysvc")

# Whoever is started in the background by a shell ignores Ctrl-C, and so would every process that tests start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)

_SERVER_URL = pytest.StashKey[str]()
_EMBEDDED = pytest.StashKey[tuple[EmbeddedPostgres, "tempfile.TemporaryDirectory[str]"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the tests that are left to chance, and may be longer."""
    group = parser.getgroup("keysvc")
    group.addoption("--rounds", type=int, default=1, help="how often test_killed.py kills a server (1)")
    group.addoption("--seed", type=int, default=1, help="what chance does (1)")


def _configure_logs() -> None:
    """Only what is wrong; a call that succeeds says nothing in tests."""
    logs.configure()
    logging.getLogger("keysvc").setLevel(logging.WARNING)


def pytest_configure(config: pytest.Config) -> None:
    """Start the database server, in the process that started the run; others are told where it is."""
    _configure_logs()
    if hasattr(config, "workerinput"):
        config.stash[_SERVER_URL] = config.workerinput["database_server_url"]
    elif url := os.environ.get("KEYSVC_TEST_DATABASE_URL"):
        config.stash[_SERVER_URL] = url
    elif not config.option.collectonly:
        folder = tempfile.TemporaryDirectory(prefix="keysvc-tests-")
        embedded = EmbeddedPostgres.start(Path(folder.name) / "data", durable=False)
        config.stash[_EMBEDDED] = embedded, folder
        config.stash[_SERVER_URL] = embedded.url


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker where the database server is."""
    node.workerinput["database_server_url"] = node.config.stash.get(_SERVER_URL, "")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the database server."""
    if _EMBEDDED in config.stash:
        embedded, folder = config.stash[_EMBEDDED]
        embedded.stop()
        folder.cleanup()


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> str:
    """The database server, by a database that tests leave alone."""
    return request.config.stash[_SERVER_URL]


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    """A link to the database server of the tests."""
    (folder,) = parse_qs(urlsplit(server_url).query).get("host", [""])
    if not folder:
        pytest.skip("the database server has no Unix socket")
    with Wiring() as wiring:
        yield wiring.link(f"{folder}/.s.PGSQL.5432")


def _on_server(server_url: str, statement: str, *names: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _with_database(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """A new database with nothing in it."""
    name = f"test_{token_hex(8)}"
    _on_server(server_url, "CREATE DATABASE {}", name)
    yield _with_database(server_url, name)
    drop_database(server_url, name)


@pytest.fixture(scope="session")
def template_database(server_url: str) -> Iterator[str]:
    """A migrated database to copy."""
    name = f"template_{token_hex(8)}"
    _on_server(server_url, "CREATE DATABASE {}", name)
    migrate(_with_database(server_url, name))
    yield name
    drop_database(server_url, name)


@pytest.fixture
def database_url(server_url: str, template_database: str) -> Iterator[str]:
    """A new database with the schema of this version."""
    name = f"test_{token_hex(8)}"
    _on_server(server_url, "CREATE DATABASE {} TEMPLATE {}", name, template_database)
    yield _with_database(server_url, name)
    drop_database(server_url, name)


@pytest.fixture
def log() -> Iterator[StringIO]:
    """What keysvc logs while the test runs, a JSON object on each line."""
    stream = StringIO()
    logs.configure(stream)
    yield stream
    _configure_logs()


@pytest.fixture
def peppers() -> Peppers:
    """One new pepper."""
    return Peppers([token_bytes(32)])


@pytest.fixture
async def deployment(database_url: str, peppers: Peppers) -> AsyncIterator[Deployment]:
    """One server on a database of its own, with an operator."""
    async with AsyncExitStack() as stack:
        yield await Deployment.open(stack, database_url, peppers)
