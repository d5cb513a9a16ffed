"""The law of imports, of pure code and of SQL, read from the source itself.

A room is a folder of ``src/keysvc``, or a module that stands alone there. The client library is a house of its own.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import keysvc
import keysvc_client

SOURCE = Path(keysvc.__file__).parent
CLIENT_SOURCE = Path(keysvc_client.__file__).parent

ALL = frozenset(
    {
        *("v1", "core", "service", "lease", "store", "rpc", "cli"),
        *("app", "worker", "workers", "storage", "leasing", "tls", "settings", "capacity", "logs"),
        *("stopping", "reloading", "serving"),
    }
)

LAW: Mapping[str, frozenset[str]] = {
    "v1": frozenset(),
    "core": frozenset(),
    "lease": frozenset({"core"}),
    "service": frozenset({"core", "lease"}),
    "store": frozenset({"core", "lease"}),
    "rpc": frozenset({"core", "service", "v1"}),
    # The server knows nothing of the fake.
    "fake": frozenset({"core", "lease", "rpc", "service", "v1"}),
    "capacity": frozenset(),
    "settings": frozenset({"capacity", "core", "lease"}),
    "logs": frozenset({"core"}),
    "stopping": frozenset(),
    "reloading": frozenset(),
    "serving": frozenset(),
    "storage": frozenset({"capacity", "core", "settings", "store"}),
    "leasing": frozenset({"lease", "service", "storage", "store"}),
    "tls": frozenset({"reloading", "rpc", "service", "settings"}),
    "app": ALL - {"cli", "worker", "workers"},
    "worker": frozenset({"app", "capacity", "leasing", "logs", "serving", "settings", "stopping", "storage"}),
    "workers": frozenset({"app", "capacity", "core", "leasing", "rpc", "settings", "storage", "store", "worker"}),
    "cli": ALL,
    "__main__": frozenset({"cli"}),
    "__init__": frozenset(),
}
"""What each room may import of ours, besides itself."""

PURE = frozenset(
    {
        *("abc", "base64", "binascii", "bisect", "collections", "contextlib", "dataclasses", "datetime", "decimal"),
        *("enum", "functools", "hashlib", "hmac", "ipaddress", "itertools", "json", "math", "operator", "re", "string"),
        *("struct", "types", "typing", "unicodedata", "uuid"),
    }
)
"""Of the standard library, what core may import: nothing that reads a clock, a file, a socket or chance."""

IMPURE_NAMES = frozenset({"open", "print", "input", "exec", "eval", "compile", "breakpoint", "__import__"})
IMPURE_ATTRIBUTES = frozenset({"now", "utcnow", "today", "uuid1", "uuid4", "getnode"})
"""What core may not name: it would be I/O, a clock or randomness of its own."""

CLIENT_MAY_IMPORT = ("grpc", "google.protobuf", "keysvc.v1", "keysvc.core", "keysvc_client")
"""Besides the standard library: what comes with the base install of keysvc."""

CLIENT_EXTRAS: Mapping[str, tuple[str, ...]] = {
    "keysvc_client.testing": ("keysvc.fake",),
    "keysvc_client.django": ("django",),
    "keysvc_client.fastapi": ("fastapi", "starlette"),
    "keysvc_client.flask": ("flask",),
    "keysvc_client.starlette": ("starlette",),
}
"""What a module for the users of a framework, or for tests, may import besides."""

DATABASE_LIBRARIES = frozenset({"sqlalchemy", "psycopg", "alembic"})

DATABASE_EXCEPTIONS: Mapping[str, frozenset[str]] = {
    "settings": frozenset({"psycopg.ProgrammingError", "psycopg.conninfo.conninfo_to_dict"}),  # checks a URL
    "storage": frozenset({"psycopg", "psycopg.Error", "sqlalchemy.exc.DBAPIError"}),  # names errors
}
"""What is used of database libraries outside the store."""

SQL = re.compile(
    r"\bSELECT\b.*\bFROM\b|\bINSERT\s+INTO\b|\bUPDATE\b.*\bSET\b|\bDELETE\s+FROM\b|\b(?:CREATE|ALTER|DROP)\s+TABLE\b"
    r"|\bLISTEN\s+\w+;|\bNOTIFY\s+\w+|\bpg_\w+\(",
    re.DOTALL | re.IGNORECASE,
)


def room_of(module: str) -> str:
    """The room of a module: ``keysvc.store.rows`` is of ``store``."""
    words = module.split(".")
    return words[1] if len(words) > 1 else "__init__"


def modules(source: Path) -> dict[str, ast.Module]:
    """Every module of a package, parsed; a package is named like its folder."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        words = path.relative_to(source.parent).with_suffix("").parts
        name = ".".join(words[:-1] if words[-1] == "__init__" else words)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


TREES = modules(SOURCE)
CLIENT_TREES = modules(CLIENT_SOURCE)
PLUGIN_TREES = modules(CLIENT_SOURCE.parent / "pytest_keysvc")


def imported(tree: ast.AST) -> Iterator[str]:
    """What a source imports, wherever in it: ``a.b`` for ``import a.b``, ``a.b.c`` for ``from a.b import c``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def foreign_rooms(module: str, tree: ast.AST) -> list[str]:
    """Imports of ours that the law does not allow to the module's room."""
    room = room_of(module)
    allowed = LAW[room] | {room}
    ours = [name for name in imported(tree) if name.startswith((".", "keysvc.")) or name == "keysvc"]
    return [name for name in ours if not name.startswith("keysvc.") or name.split(".")[1] not in allowed]


def foreign_to_the_client(module: str, tree: ast.AST) -> list[str]:
    """What a module of the client library may not import."""
    allowed = (*CLIENT_MAY_IMPORT, *CLIENT_EXTRAS.get(module, ()))
    return [
        name
        for name in imported(tree)
        if name.split(".")[0] not in sys.stdlib_module_names
        and not any(f"{name}.".startswith(f"{each}.") for each in allowed)
    ]


def impurities(tree: ast.AST) -> list[str]:
    """What core may not import or name."""
    found = [name for name in imported(tree) if name.split(".")[0] not in PURE | {"keysvc"}]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in IMPURE_NAMES | IMPURE_ATTRIBUTES:
            found.append(node.id)
        elif isinstance(node, ast.Attribute) and node.attr in IMPURE_ATTRIBUTES:
            found.append(node.attr)
    return found


def database_uses(tree: ast.AST) -> set[str]:
    """What a source imports of database libraries, or reaches through what it imported."""
    used = {name for name in imported(tree) if name.split(".")[0] in DATABASE_LIBRARIES}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in DATABASE_LIBRARIES:
            used.add(f"{node.value.id}.{node.attr}")
    return used


def sql_texts(tree: ast.AST) -> list[str]:
    """Texts that look like SQL, parts of f-strings included, docstrings not."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documentation
        and SQL.search(node.value)
    ]


def loads(tree: ast.Module) -> Iterator[str]:
    """What is imported while a module is loaded: not in functions, not for type checkers alone."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(node)
        waiting += ast.iter_child_nodes(node)


def graph(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Which module loads which, among those given."""
    edges = {}
    for module, tree in trees.items():
        names = {name if name in trees else name.rpartition(".")[0] for name in loads(tree)}
        edges[module] = {name for name in names if name in trees and name != module}
    return edges


def find_cycle(edges: Mapping[str, set[str]]) -> list[str]:
    """A way that leads back to its beginning; empty if there is none."""
    done: set[str] = set()

    def follow(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for other in sorted(edges[module]):
            if cycle := follow(other, [*way, module]):
                return cycle
        done.add(module)
        return []

    return next((cycle for module in edges if (cycle := follow(module, []))), [])


def test_the_law_knows_every_room() -> None:
    """A new folder or module of ``src/keysvc`` has its place in the law."""
    assert {room_of(module) for module in TREES} <= LAW.keys()
    assert LAW.keys() - {"lease"} <= {room_of(module) for module in TREES}
    assert len(TREES) > 50


@pytest.mark.parametrize("module", TREES)
def test_a_module_imports_only_rooms_that_it_may_know(module: str) -> None:
    """Imports point one way."""
    assert foreign_rooms(module, TREES[module]) == []


@pytest.mark.parametrize("module", CLIENT_TREES)
def test_the_client_library_needs_nothing_of_the_server(module: str) -> None:
    """It imports the contract, what is pure, gRPC, protobuf, the standard library, or what its users have besides."""
    assert foreign_to_the_client(module, CLIENT_TREES[module]) == []


@pytest.mark.parametrize("module", [module for module in CLIENT_TREES if module not in CLIENT_EXTRAS])
def test_nothing_more_is_loaded_but_for_its_users(module: str) -> None:
    """Modules that need more than the base install of the library are imported by each other alone."""
    names = list(imported(CLIENT_TREES[module]))
    assert not [name for name in names for each in CLIENT_EXTRAS if f"{name}.".startswith(f"{each}.")]


@pytest.mark.parametrize("module", PLUGIN_TREES)
def test_the_pytest_plugin_loads_next_to_nothing(module: str) -> None:
    """It is in every run of pytest: whatever else it needs comes with the first fixture that is asked for."""
    tops = {name.split(".")[0] for name in loads(PLUGIN_TREES[module])}
    assert tops <= sys.stdlib_module_names | {"pytest", "pytest_keysvc"}


def test_the_client_library_is_left_alone() -> None:
    """Nothing of keysvc imports it, and nothing in it needs itself to load."""
    ours = [name for tree in TREES.values() for name in imported(tree)]
    assert not [name for name in ours if name.startswith("keysvc_client")]
    assert len(CLIENT_TREES) > 10
    assert find_cycle(graph(CLIENT_TREES)) == []


@pytest.mark.parametrize("module", [module for module in TREES if room_of(module) == "core"])
def test_core_is_pure(module: str) -> None:
    """Core needs nothing but what is pure of the standard library, and names no clock, no I/O and no chance."""
    assert impurities(TREES[module]) == []


@pytest.mark.parametrize("module", [module for module in TREES if room_of(module) != "store"])
def test_only_the_store_speaks_sql(module: str) -> None:
    """Neither a statement nor a database library is anywhere else, but for the named exceptions."""
    assert sql_texts(TREES[module]) == []
    assert database_uses(TREES[module]) <= DATABASE_EXCEPTIONS.get(room_of(module), frozenset())


def test_no_module_needs_itself_to_load() -> None:
    """Modules can be read one after the other: nowhere does an import lead back to where it came from."""
    assert find_cycle(graph(TREES)) == []


def test_pure_modules_are_of_the_standard_library() -> None:
    """The list of what core may import has no library in it, and nothing that is never pure."""
    assert sys.stdlib_module_names >= PURE
    assert PURE.isdisjoint(
        {
            "os",
            "time",
            "socket",
            "random",
            "secrets",
            "asyncio",
            "pathlib",
            "subprocess",
            "logging",
            "sys",
            "io",
            "threading",
        }
    )


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("keysvc.core.key", "import keysvc.store.rows", ["keysvc.store.rows"]),
        ("keysvc.core.key", "from keysvc import logs", ["keysvc.logs"]),
        ("keysvc.core.key", "import keysvc", ["keysvc"]),
        ("keysvc.core.key", "from . import scope", ["..scope"]),
        ("keysvc.service.issuing", "from keysvc.store.changes import Changes", ["keysvc.store.changes.Changes"]),
        ("keysvc.service.issuing", "def f():\n    from keysvc.v1 import key_pb2", ["keysvc.v1.key_pb2"]),
        ("keysvc.store.rows", "if TYPE_CHECKING:\n    import keysvc.service.ports", ["keysvc.service.ports"]),
        ("keysvc.rpc.door", "try:\n    import keysvc.settings\nexcept ImportError: ...", ["keysvc.settings"]),
        ("keysvc.v1.key_pb2", "from keysvc.core import key", ["keysvc.core.key"]),
        ("keysvc.app", "from keysvc.cli.main import main", ["keysvc.cli.main.main"]),
        ("keysvc.__main__", "from keysvc.app import serve", ["keysvc.app.serve"]),
        ("keysvc.logs", "from keysvc.app import serve", ["keysvc.app.serve"]),
        ("keysvc", "from keysvc.core import key", ["keysvc.core.key"]),
        ("keysvc.app", "from keysvc.fake import server", ["keysvc.fake.server"]),
        ("keysvc.fake.server", "from keysvc.store.changes import Changes", ["keysvc.store.changes.Changes"]),
        ("keysvc.rpc.door", "import grpc\nfrom keysvc.core import key\nfrom keysvc.rpc.status import code_of", []),
        ("keysvc.cli.server", "from keysvc import app", []),
    ],
)
def test_the_check_finds_a_foreign_room(module: str, source: str, found: list[str]) -> None:
    """A made-up violation is seen, wherever in a module it hides; what is lawful is let through."""
    assert foreign_rooms(module, ast.parse(source)) == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from google.rpc import status_pb2", ["google.rpc.status_pb2"]),
        ("from keysvc.settings import Settings", ["keysvc.settings.Settings"]),
        ("from keysvc import core", []),
        ("from keysvc.fake.server import FakeServer", ["keysvc.fake.server.FakeServer"]),
        ("import keysvc", ["keysvc"]),
        ("def f():\n    import httpx", ["httpx"]),
        ("from . import calls", ["..calls"]),
        ("import os, grpc.aio\nfrom google.protobuf import any_pb2\nfrom keysvc.core.keystring import redact", []),
    ],
)
def test_the_check_finds_what_the_client_may_not_import(source: str, found: list[str]) -> None:
    """A made-up import of the server, or of another library, is seen."""
    assert foreign_to_the_client("keysvc_client.any", ast.parse(source)) == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os", ["os"]),
        ("import os.path as p", ["os.path"]),
        ("from time import monotonic", ["time.monotonic"]),
        ("def f():\n    import secrets", ["secrets"]),
        ("import attrs", ["attrs"]),
        ("from datetime import datetime\nx = datetime.now(UTC)", ["now"]),
        ("clock = datetime.datetime.utcnow", ["utcnow"]),
        ("date.today()", ["today"]),
        ("from uuid import uuid4\nuuid4()", ["uuid4"]),
        ("import uuid\nuuid.uuid1()", ["uuid1"]),
        ("open('x')", ["open"]),
        ("print('x')", ["print"]),
        ("__import__('os')", ["__import__"]),
        ("import hmac, re\nfrom datetime import datetime\nfrom keysvc.core.key import Key\nKey.now_ = opened = 1", []),
    ],
)
def test_the_check_finds_what_is_not_pure(source: str, found: list[str]) -> None:
    """A made-up clock, file, secret or library in core is seen; what is pure is let through."""
    assert impurities(ast.parse(source)) == found


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("x = 'SELECT 1 FROM key'", 1),
        ("x = '''\nselect *\n  from key\n'''", 1),
        ("x = f'INSERT INTO {table} VALUES (1)'", 1),
        ("f('UPDATE key SET seq = 1')", 1),
        ("f('DELETE FROM key', 'DROP TABLE key')", 2),
        ("f('pg_advisory_lock(1)')", 1),
        ('def f():\n    """Select the best from all."""', 0),
        ("f('update_mask', 'offset', 'from', 'Updated', 'created')", 0),
    ],
)
def test_the_check_finds_sql(source: str, count: int) -> None:
    """Made-up statements are seen; words that are only alike, and documentation, are let through."""
    assert len(sql_texts(ast.parse(source))) == count


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("import psycopg\npsycopg.connect(url)", {"psycopg", "psycopg.connect"}),
        ("from sqlalchemy.exc import DBAPIError", {"sqlalchemy.exc.DBAPIError"}),
        ("from sqlalchemy import text", {"sqlalchemy.text"}),
        ("def f():\n    import alembic.command", {"alembic.command"}),
        ("import structlog", set()),
    ],
)
def test_the_check_finds_database_libraries(source: str, used: set[str]) -> None:
    """What is imported and what is then used of it is seen."""
    assert database_uses(ast.parse(source)) == used


def test_the_check_finds_a_cycle() -> None:
    """A made-up cycle is seen; one that exists for type checkers or in functions only is none."""
    sources = {
        "a.x": "from a.y import f",
        "a.y": "import a.z",
        "a.z": "try:\n    from a import x\nexcept ImportError: ...",
    }
    trees = {module: ast.parse(source) for module, source in sources.items()}
    assert find_cycle(graph(trees)) == ["a.x", "a.y", "a.z", "a.x"]
    trees["a.z"] = ast.parse("if TYPE_CHECKING:\n    from a import x\ndef f():\n    import a.x")
    assert find_cycle(graph(trees)) == []
