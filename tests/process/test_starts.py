"""Starts that are refused, each with one line that names what to change; and the commands beside `serve`."""

import re
import secrets
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from keysvc.core.keystring import PATTERN
from keysvc.store.migrate import newest_schema
from tests.process.running import (
    KEYSVC,
    START_SECONDS_MAX,
    Serving,
    environment,
    processes_of,
    refusal,
    run,
    short_folder,
    until,
)

pytestmark = pytest.mark.timeout(180)  # on a busy machine each of many processes takes its time

PEPPERS = "5ec2e7ab" * 8
NEWER = "9999"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path; nothing may run in it in the end."""
    with short_folder() as folder:
        yield folder


@pytest.fixture
def file(folder: Path) -> Path:
    """A file that can be read, and has nothing in it that anybody could use."""
    file = folder / "file"
    file.write_text("nothing\n")
    return file


def serve(*arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Try to serve."""
    return run("serve", "--listen", "127.0.0.1:0", *arguments, **variables)


def reason(refused: "subprocess.CompletedProcess[str]") -> str:
    """Why a command was refused; nothing was printed."""
    assert refused.returncode == 1, refused
    assert refused.stdout == ""
    return refusal(refused.stderr)


@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        pytest.param([], {"KEYSVC_LISTN": "127.0.0.1:0"}, ["KEYSVC_LISTN"], id="unknown-variable"),
        pytest.param(["--listen", "0.0.0.0:0"], {}, ["KEYSVC_LISTEN", "0.0.0.0:0", "--tls-cert"], id="all-addresses"),
        pytest.param(["--listen", "::1:0"], {}, ["KEYSVC_LISTEN", "[::1]"], id="no-brackets"),
        pytest.param(["--tls-cert", "A-FILE"], {}, ["KEYSVC_TLS_CERT", "KEYSVC_TLS_KEY"], id="certificate-alone"),
        pytest.param(
            ["--tls-cert", "A-FOLDER", "--tls-key", "A-FILE"], {}, ["KEYSVC_TLS_CERT", "A-FOLDER"], id="a-folder"
        ),
        pytest.param(["--peppers-file", "NOTHING"], {}, ["KEYSVC_PEPPERS_FILE", "NOTHING"], id="no-peppers-file"),
        pytest.param(["--data-dir", "A-FILE"], {}, ["A-FILE"], id="data-in-a-file"),
        pytest.param(
            ["--data-dir", "A-FOLDER/data", "--database-url", "postgresql://h/d"],
            {},
            ["KEYSVC_DATA_DIR", "KEYSVC_DATABASE_URL"],
            id="two-databases",
        ),
        pytest.param(["--database-url", "postgresql://h/d"], {}, ["KEYSVC_PEPPERS"], id="external-without-peppers"),
        pytest.param([], {"KEYSVC_LEASE_SECONDS": "0"}, ["KEYSVC_LEASE_SECONDS", "0.2"], id="no-lease"),
        pytest.param(["--lease-margin-seconds", "-1"], {}, ["KEYSVC_LEASE_MARGIN_SECONDS"], id="negative-margin"),
    ],
)
def test_a_bad_setting_is_named(
    folder: Path, file: Path, arguments: list[str], variables: dict[str, str], named: list[str]
) -> None:
    """One line of JSON on standard error names the setting and the bad value; nothing is started or made for it."""

    def placed(text: str) -> str:
        for word, path in {"A-FILE": file, "NOTHING": folder / "nothing", "A-FOLDER": folder}.items():
            text = text.replace(word, str(path))
        return text

    data = [] if {"--data-dir", "--database-url"} & {*arguments} else ["--data-dir", str(folder / "data")]
    told = reason(serve(*data, *map(placed, arguments), **variables))
    for each in named:
        assert placed(each) in told
    assert {path.name for path in folder.iterdir()} <= {"file"}


def test_every_server_command_checks_its_variables(folder: Path) -> None:
    """`bootstrap` and `migrate` refuse what `serve` refuses, and variables are checked like options."""
    for command, name, value in (
        ("serve", "KEYSVC_LISTEN", "0.0.0.0:0"),
        ("bootstrap", "KEYSVC_LISTN", "127.0.0.1:0"),
        ("migrate", "KEYSVC_DATABASEURL", "postgresql://h/d"),
    ):
        assert name in reason(run(command, "--data-dir", folder / "data", **{name: value}))
    assert list(folder.iterdir()) == []


def test_a_slow_parser_is_refused(folder: Path) -> None:
    """Requests would be parsed by Python itself, and everybody would wait for whoever sends large ones."""
    told = reason(serve("--data-dir", folder / "data", PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python"))
    assert "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION" in told


def test_a_flag_that_is_none_is_named(folder: Path) -> None:
    """A variable for yes or no that says neither stops the start by name, and starts nothing."""
    refused = serve("--data-dir", folder / "data", KEYSVC_ALLOW_PLAINTEXT="maybe")
    assert refused.returncode != 0
    assert "KEYSVC_ALLOW_PLAINTEXT" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "mysql://keysvc:hunter2@h/d",
        "postgresql://keysvc:hunter2@h/d?no_such_parameter=1",
        "postgresql://keysvc:one@hunter2@127.0.0.1:1/d",  # an @ that should have been written %40
        "postgresql://keysvc:hunter2/one@127.0.0.1:1/d",  # a / that should have been written %2F
        "postgresql://keysvc:hunter2%zz@h/d",
    ],
)
def test_a_bad_url_is_named_and_never_repeated(url: str) -> None:
    """Whatever is wrong with the URL, no piece of its password comes back, also where it is misread."""
    refused = serve("--database-url", url, KEYSVC_PEPPERS=PEPPERS)
    assert "hunter2" not in refused.stderr
    assert "KEYSVC_DATABASE_URL" in reason(refused)


@pytest.mark.parametrize(
    "peppers",
    ["", PEPPERS[:-1]],
    ids=["none", "too-short"],
)
def test_bad_peppers_are_named_and_never_repeated(folder: Path, peppers: str) -> None:
    """The sentence says what peppers look like, and shows none of them, not even a bad one."""
    refused = serve("--data-dir", folder / "data", KEYSVC_PEPPERS=peppers)
    assert "KEYSVC_PEPPERS" in reason(refused)
    assert PEPPERS[:16] not in refused.stderr
    assert list(folder.iterdir()) == []


def bootstrapped(url: str, peppers: str = PEPPERS) -> str:
    """An operator key of an external database."""
    done = run("bootstrap", KEYSVC_DATABASE_URL=url, KEYSVC_PEPPERS=peppers)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(PATTERN + r"\n", done.stdout), "the key and nothing else"
    assert done.stderr == ""
    return done.stdout.strip()


def test_a_missing_pepper_is_refused(database_url: str) -> None:
    """A server that lacks a pepper of living keys does not start; with the old one behind a new one it does."""
    bootstrapped(database_url)
    other = secrets.token_hex(32)
    refused = serve("--database-url", database_url, KEYSVC_PEPPERS=other)
    assert "KEYSVC_PEPPERS" in reason(refused)
    assert other not in refused.stderr
    with Serving("--database-url", database_url, KEYSVC_PEPPERS=f"{other},{PEPPERS}") as server:
        server.ready()
        server.stop()


def set_schema(url: str, schema: str) -> None:
    """Let a database say that it has another schema."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = %s", [schema])


def test_a_database_without_schema_is_refused_with_advice(empty_database_url: str) -> None:
    """`serve` does not touch the schema of an external database: it says what to run, and that helps."""
    told = reason(serve("--database-url", empty_database_url, KEYSVC_PEPPERS=PEPPERS))
    assert "keysvc migrate" in told
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT FROM pg_tables WHERE schemaname = 'public'").fetchall() == []


def test_an_older_schema_is_refused_with_advice(database_url: str) -> None:
    """The sentence says which schema there is, which is needed and what to run."""
    set_schema(database_url, "0000")
    told = reason(serve("--database-url", database_url, KEYSVC_PEPPERS=PEPPERS))
    assert "0000" in told
    assert newest_schema() in told
    assert "keysvc migrate" in told


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_newer_schema_is_refused_by_every_command(database_url: str, command: str) -> None:
    """An old version of keysvc touches nothing in a database of a newer one, and does not advise to migrate."""
    set_schema(database_url, NEWER)
    told = reason(run(command, "--database-url", database_url, KEYSVC_PEPPERS=PEPPERS))
    assert NEWER in told
    assert "newer" in told
    assert "run keysvc migrate" not in told
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(NEWER,)]


@pytest.fixture
def stranger(database_url: str) -> Iterator[str]:
    """The URL of a database for a role that may see which schema it has, and nothing else."""
    role = f"test_{secrets.token_hex(8)}"
    parts = urlsplit(database_url)
    host = parts.netloc.rpartition("@")[2]
    with psycopg.connect(database_url, autocommit=True) as connection:
        try:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'hunter2'").format(sql.Identifier(role)))
        except psycopg.errors.InsufficientPrivilege:
            pytest.skip("the role of the tests may not make roles")
        connection.execute(sql.SQL("GRANT SELECT ON alembic_version TO {}").format(sql.Identifier(role)))
        yield urlunsplit(parts._replace(netloc=f"{role}:hunter2@{host}"))
        connection.execute(sql.SQL("REVOKE SELECT ON alembic_version FROM {}").format(sql.Identifier(role)))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_a_role_without_rights_is_told(stranger: str) -> None:
    """Forgotten grants are a sentence of PostgreSQL's, not a mistake in keysvc."""
    refused = run("serve", KEYSVC_DATABASE_URL=stranger, KEYSVC_PEPPERS=PEPPERS)
    assert "permission denied" in reason(refused)
    assert "hunter2" not in refused.stderr


def test_a_role_that_may_only_read_is_told(database_url: str) -> None:
    """A URL that leads to a read-only database, such as a standby, is refused with a sentence."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(sql.Identifier(name))
        )
    assert "database" in reason(serve("--database-url", database_url, KEYSVC_PEPPERS=PEPPERS))


@pytest.fixture
def silent() -> Iterator[int]:
    """A port on which connections are taken and never answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


def test_an_unreachable_database_is_told(silent: int) -> None:
    """Refused, unknown and silent hosts: a sentence within seconds, without the password."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    running = [
        Serving(command=command, KEYSVC_DATABASE_URL=f"postgresql://keysvc:hunter2@{host}/d", KEYSVC_PEPPERS=PEPPERS)
        for command, host in (
            ("serve", f"127.0.0.1:{closed}"),
            ("bootstrap", "no-such-host.invalid"),
            ("serve", f"127.0.0.1:{silent}"),
        )
    ]
    for each in running:
        assert each.ended() == 1
        assert "database" in refusal(each.err)
        assert "hunter2" not in each.err


def test_migrate_can_be_run_again(empty_database_url: str) -> None:
    """The first run says from where to where, the second that there is nothing to do; no pepper is asked for."""
    first = run("migrate", "--database-url", empty_database_url)
    assert (first.returncode, first.stderr) == (0, "")
    assert newest_schema() in first.stdout
    second = run("migrate", KEYSVC_DATABASE_URL=empty_database_url)
    assert (second.returncode, second.stderr) == (0, "")
    assert "already" in second.stdout


def test_migrations_at_once_wait_for_each_other(empty_database_url: str) -> None:
    """Several replicas that migrate at the same moment all succeed, and one of them has done it."""
    running = [
        Serving("--database-url", empty_database_url, command="migrate", KEYSVC_PEPPERS=PEPPERS) for _ in range(2)
    ]
    assert [each.ended() for each in running] == [0, 0]
    assert ["already" in each.out for each in running].count(False) == 1


def test_bootstrap_prints_one_key_alone(empty_database_url: str) -> None:
    """It migrates, prints the key and nothing else, refuses politely a second time, and `--another` makes another."""
    first = bootstrapped(empty_database_url)
    second = run("bootstrap", KEYSVC_DATABASE_URL=empty_database_url, KEYSVC_PEPPERS=PEPPERS)
    assert second.returncode == 1
    assert second.stdout == ""
    assert "--another" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    another = run("bootstrap", "--another", KEYSVC_DATABASE_URL=empty_database_url, KEYSVC_PEPPERS=PEPPERS)
    assert another.returncode == 0
    assert re.fullmatch(PATTERN, another.stdout.strip())
    assert another.stdout.strip() != first


def test_bootstraps_at_once_make_one_key(empty_database_url: str) -> None:
    """Several that find no operator at the same moment make one, not several."""
    running = [
        Serving("--database-url", empty_database_url, command="bootstrap", KEYSVC_PEPPERS=PEPPERS) for _ in range(2)
    ]
    assert sorted(each.ended() for each in running) == [0, 1]
    assert len(re.findall(PATTERN, "".join(each.out for each in running))) == 1


def test_bootstrap_beside_a_first_start_makes_one_key(folder: Path) -> None:
    """While a server makes its database, `bootstrap` waits for it, and both go on with the same peppers."""
    owner = folder / "data" / "owner.lock"
    with Serving("--data-dir", folder / "data") as server:
        until(lambda: owner.exists() and owner.read_text().strip() == str(server.pid))
        done = run("bootstrap", "--data-dir", folder / "data")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(PATTERN, done.stdout.strip())
        address = server.ready()
        listed = run("keys", "list", "-q", KEYSVC_ADDRESS=address, KEYSVC_API_KEY=done.stdout.strip())
        assert listed.returncode == 0, listed.stderr
        assert len(listed.stdout.splitlines()) == 1
        server.stop()


def test_bootstrap_makes_peppers_for_their_owner_alone(folder: Path) -> None:
    """Alone it starts the embedded database, makes one pepper with mode 0600, and leaves nothing running."""
    done = subprocess.run(
        ["sh", "-c", 'umask 000; exec "$0" "$@"', *KEYSVC, "bootstrap", "--data-dir", folder / "data"],
        check=False,
        capture_output=True,
        text=True,
        timeout=START_SECONDS_MAX,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert not processes_of(folder)
    peppers = folder / "data" / "peppers"
    assert stat.S_IMODE(peppers.stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", peppers.read_text())


def test_variables_of_kubernetes_are_tolerated(database_url: str) -> None:
    """What a pod finds in its environment beside a Service called keysvc stops no command."""
    variables = {
        "KEYSVC_SERVICE_HOST": "10.0.0.7",
        "KEYSVC_SERVICE_PORT": "50051",
        "KEYSVC_SERVICE_PORT_GRPC": "50051",
        "KEYSVC_PORT": "tcp://10.0.0.7:50051",
        "KEYSVC_PORT_50051_TCP": "tcp://10.0.0.7:50051",
        "KEYSVC_PORT_50051_TCP_ADDR": "10.0.0.7",
        "KEYSVC_PORT_50051_TCP_PORT": "50051",
        "KEYSVC_PORT_50051_TCP_PROTO": "tcp",
    }
    done = run("migrate", "--database-url", database_url, **variables)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_of_an_external_database_shows_no_url(database_url: str) -> None:
    """The URL may hold a password: it is neither on the page nor in the log. Nor is a key: `bootstrap` prints it.

    A server that listens everywhere is called where it is.
    """
    options = ("--allow-plaintext", "--database-url", database_url)
    with Serving(*options, listen="0.0.0.0:0", terminal=True, KEYSVC_PEPPERS=PEPPERS) as server:
        address = server.ready().replace("0.0.0.0", "127.0.0.1")
        assert f"export KEYSVC_ADDRESS={address}\n" in server.commands()
        assert " bootstrap …)" in server.commands()
        assert urlsplit(database_url).path not in server.out
        assert re.search(PATTERN, server.out) is None
        server.stop()


def test_a_refusal_on_a_terminal_is_for_people(folder: Path) -> None:
    """On a terminal the same line is laid out for the eye: no JSON, no traceback."""
    with Serving("--data-dir", folder / "data", listen="0.0.0.0:0", terminal=True) as refused:
        assert refused.ended() == 1
    assert "start refused" in refused.out
    assert "KEYSVC_LISTEN" in refused.out
    assert "{" not in refused.out
