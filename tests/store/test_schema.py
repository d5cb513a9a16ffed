"""The tables as the migrations make them, and as the code describes them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Connection, Index, Inspector, Integer, MetaData, Table, create_engine, inspect, text
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex

from keysvc.store.migrate import (
    SERVER_VERSION_MIN,
    UnfitDatabaseError,
    _read_schema,
    find_schema,
    migrate,
    newest_schema,
)
from keysvc.store.schema import metadata


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A connection to a migrated database."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database_url), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def found(connection: Connection) -> Inspector:
    """What the migrations made."""
    return inspect(connection)


def differences(connection: Connection, described: MetaData) -> list[Any]:
    """What Alembic would change to make the database as it is described."""
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return compare_metadata(context, described)


def copy_of(described: MetaData) -> MetaData:
    """The same description, to be changed."""
    copy = MetaData()
    for table in described.tables.values():
        table.to_metadata(copy)
    return copy


def test_migrations_make_what_the_code_describes(connection: Connection) -> None:
    """Tables, columns, types, NOT NULL, defaults, indexes, unique and foreign keys are the same in both."""
    assert differences(connection, metadata) == []


def test_primary_keys_and_collations_are_the_same(found: Inspector) -> None:
    """What Alembic does not compare: keys, whose order decides what an index can find, and the order of texts."""
    for name, table in metadata.tables.items():
        assert found.get_pk_constraint(name)["constrained_columns"] == [column.name for column in table.primary_key]
        made = {column["name"]: getattr(column["type"], "collation", None) for column in found.get_columns(name)}
        assert made == {column.name: getattr(column.type, "collation", None) for column in table.columns}


def test_foreign_keys_are_the_same(found: Inspector) -> None:
    """The one that is deferred, so that a request can be claimed before its key exists, and all that are not."""
    made = {
        (table, foreign["constrained_columns"][0]): foreign["options"]
        for table in metadata.tables
        for foreign in found.get_foreign_keys(table)
    }
    assert made == {
        ("key", "workspace_id"): {},
        ("secret", "key_id"): {},
        ("secret", "pepper"): {},
        ("key_activity", "key_id"): {},
        ("request", "key_id"): {"deferrable": True, "initially": "DEFERRED"},
    }


@pytest.mark.parametrize(
    ("index", "condition"),
    [
        ("pepper_signing", "signing"),
        ("key_unrevoked", "(revoke_time IS NULL)"),
        ("key_of_owner", "(owner <> ''::text)"),
        ("key_of_role", "(role <> ''::text)"),
        ("key_revoked", "(revoke_time IS NOT NULL)"),
        ("key_suspended", "suspended"),
        ("key_ending", "(expire_time IS NOT NULL)"),
    ],
)
def test_partial_indexes_have_their_condition(connection: Connection, index: str, condition: str) -> None:
    """What Alembic does not compare: one pepper signs, only keys that are not revoked are counted, and so on."""
    query = text("SELECT pg_get_expr(indpred, indrelid) FROM pg_index WHERE indexrelid = CAST(:index AS regclass)")
    assert connection.execute(query, {"index": index}).scalar_one() == condition
    (described,) = [each for table in metadata.tables.values() for each in table.indexes if each.name == index]
    assert str(described.dialect_options["postgresql"]["where"]) == condition.strip("()").replace("::text", "")


@pytest.mark.parametrize(
    ("index", "end"),
    [("key_named", "btree (display_name text_pattern_ops)"), ("key_tagged", "gin (tags) WITH (fastupdate=off)")],
)
def test_indexes_have_their_kind(connection: Connection, index: str, end: str) -> None:
    """What Alembic does not compare either."""
    query = text("SELECT pg_get_indexdef(CAST(:index AS regclass))")
    assert connection.execute(query, {"index": index}).scalar_one().endswith(f" USING {end}")
    (described,) = [each for table in metadata.tables.values() for each in table.indexes if each.name == index]
    assert str(CreateIndex(described).compile(dialect=dialect())).endswith(
        f" USING {end}".replace(" USING btree", "").replace("=", " = ")
    )


def test_the_comparison_finds_differences(connection: Connection) -> None:
    """A column, index, table, type or NOT NULL that only the code knows is seen, and an index that it does not know."""
    changed = copy_of(metadata)
    changed.tables["key"].append_column(Column("extra", Integer))
    changed.tables["secret"].indexes.clear()
    changed.tables["workspace"].c["key_limit"].nullable = False
    changed.tables["audit_event"].c["seq"].type = Integer()
    Index("more", changed.tables["pepper"].c["create_time"])
    Table("extra", changed, Column("id", Integer, primary_key=True))
    kinds = {each[0] if isinstance(each, tuple) else each[0][0] for each in differences(connection, changed)}
    assert kinds == {"add_column", "remove_index", "modify_nullable", "modify_type", "add_index", "add_table"}


def test_only_one_row_fits_into_the_clock_and_the_tag_key(database_url: str) -> None:
    """A second clock would give two changes the same revision; a second tag key would make keys MALFORMED."""
    for statement in (
        "INSERT INTO revocation_clock SELECT true, epoch, seq, log_start, lease_ms_max FROM revocation_clock",
        "INSERT INTO revocation_clock SELECT false, epoch, seq, log_start, lease_ms_max FROM revocation_clock",
        "INSERT INTO tag_key SELECT true, key FROM tag_key",
        "INSERT INTO tag_key SELECT false, key FROM tag_key",
    ):
        with psycopg.connect(database_url) as connection, pytest.raises(psycopg.IntegrityError):
            connection.execute(statement)


def test_a_new_database_has_its_rows(database_url: str) -> None:
    """The clock at 0, a tag key of 256 bits, and the workspace of the callers, which allows everything."""
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT seq, log_start FROM revocation_clock").fetchall() == [(0, 0)]
        assert connection.execute("SELECT length(key) FROM tag_key").fetchall() == [(32,)]
        system = "SELECT name, suspended, allowed_scopes, roles, max_ttl, key_limit, seq FROM workspace"
        assert connection.execute(system).fetchall() == [("keysvc/system", False, [], {}, None, None, 0)]


def test_no_two_databases_have_the_same_epoch_and_tag_key(empty_database_url: str, database_url: str) -> None:
    """They are made by the migration, not written in it."""
    migrate(empty_database_url)
    query = "SELECT epoch, key FROM revocation_clock, tag_key"
    rows = []
    for url in (empty_database_url, database_url):
        with psycopg.connect(url) as connection:
            rows.append(connection.execute(query).fetchone())
    (first, second) = rows
    assert first is not None
    assert second is not None
    assert first[0] != second[0]
    assert first[1] != second[1]


def snapshot(url: str) -> list[Any]:
    """All rows that a migration makes."""
    with psycopg.connect(url) as connection:
        return [
            connection.execute(query).fetchall()
            for query in ("TABLE revocation_clock", "TABLE tag_key", "TABLE workspace", "TABLE alembic_version")
        ]


def test_migrating_again_changes_nothing(empty_database_url: str) -> None:
    """`keysvc migrate` can be run at any time; it says what it found."""
    assert find_schema(empty_database_url) is None
    assert migrate(empty_database_url) == (None, newest_schema())
    before = snapshot(empty_database_url)
    assert migrate(empty_database_url) == (newest_schema(), newest_schema())
    assert snapshot(empty_database_url) == before
    assert find_schema(empty_database_url) == newest_schema() != ""


def test_a_newer_schema_is_left_alone(database_url: str) -> None:
    """An older version of keysvc neither repairs nor uses what it does not understand, and says what it found."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UnfitDatabaseError, match=rf"schema 9999, newer than this version's {newest_schema()}$"):
        migrate(database_url)
    assert find_schema(database_url) == "9999"


def test_several_can_migrate_at_once(empty_database_url: str) -> None:
    """Servers that start together on an empty database: one migrates, the others find it done, none fails."""
    impatient = f"{empty_database_url}{'&' if '?' in empty_database_url else '?'}options=-c%20lock_timeout%3D10s"
    with ThreadPoolExecutor(4) as pool:
        results = [*pool.map(migrate, [impatient] * 4)]
    newest = newest_schema()
    assert sorted(results, key=str) == sorted([(None, newest), *[(newest, newest)] * 3], key=str)
    assert len(snapshot(empty_database_url)[0]) == 1


def test_a_migration_that_fails_leaves_nothing(empty_database_url: str) -> None:
    """All steps are one transaction: a table that is in the way stops it, and is all that is there afterwards."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE secret ()")
        with pytest.raises(Exception, match='relation "secret" already exists'):
            migrate(empty_database_url)
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert tables == [("secret",)]
    assert find_schema(empty_database_url) is None


@pytest.mark.parametrize(("version", "name"), [(130_023, "13"), (90_624, "9")])
def test_an_old_postgresql_is_refused_by_name(version: int, name: str) -> None:
    """Below 14 nothing is tried: the person who starts keysvc reads which version was found and which is needed."""
    driver_connection = SimpleNamespace(info=SimpleNamespace(server_version=version))
    connection: Any = SimpleNamespace(connection=SimpleNamespace(driver_connection=driver_connection))
    with pytest.raises(UnfitDatabaseError, match=rf"^PostgreSQL {name} is too old: keysvc needs 14 or newer$"):
        _read_schema(connection)
    assert SERVER_VERSION_MIN == 140_000


def test_a_database_that_cannot_keep_every_character_is_refused(server_url: str) -> None:
    """At the start, by name, instead of at the first owner with an umlaut."""
    name = f"test_{token_hex(8)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'".encode())
        try:
            with pytest.raises(UnfitDatabaseError, match="encoded in SQL_ASCII: keysvc needs UTF8"):
                migrate(urlunsplit(urlsplit(server_url)._replace(path=f"/{name}")))
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
