"""Brings a database to the schema of this version, or tells how far it is."""

from pathlib import Path
from typing import Final

import psycopg
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

MIGRATION_LOCK: Final = 0x6B65797376630002
"""Advisory lock held while migrating, so that several servers starting at once do it one after the other."""

SERVER_VERSION_MIN: Final = 140_000
CONNECT_SECONDS_MAX: Final = 5


class UnfitDatabaseError(Exception):
    """This version of keysvc cannot use the database: its server too old, its schema too new, its encoding another."""


_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def newest_schema() -> str:
    """The schema that this version of keysvc needs: the number that the last migration's file begins with."""
    return max(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def find_schema(url: str) -> str | None:
    """The schema that a database has; None if it has none of ours. Blocks.

    Parameters:
        url: whatever libpq takes: ``postgresql://…``.
    """
    with _engine(url).connect() as connection:
        return _read_schema(connection)


def migrate(url: str) -> tuple[str | None, str]:
    """Bring the database to ``newest_schema`` in one transaction; what it was before and is now. Blocks.

    Parameters:
        url: whatever libpq takes; its role must be allowed to create tables.
    """
    from alembic import command  # noqa: PLC0415 (takes its time to load, and most starts do without)
    from alembic.config import Config  # noqa: PLC0415 (as above)

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with _engine(url).begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        before = _read_schema(connection)
        if before is not None and before > newest_schema():
            raise UnfitDatabaseError(f"the database has schema {before}, newer than this version's {newest_schema()}")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return before, newest_schema()


def _engine(url: str) -> Engine:
    """Connections for one piece of work each. The time limit is for people who wait at a start."""
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(
            url, connect_timeout=CONNECT_SECONDS_MAX, application_name="keysvc migrate", client_encoding="utf8"
        ),
        poolclass=NullPool,
        hide_parameters=True,
    )


def _read_schema(connection: Connection) -> str | None:
    """The schema of the database behind a connection."""
    info = connection.connection.driver_connection.info  # type: ignore[union-attr]
    if info.server_version < SERVER_VERSION_MIN:
        raise UnfitDatabaseError(f"PostgreSQL {info.server_version // 10000} is too old: keysvc needs 14 or newer")
    encoding = info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise UnfitDatabaseError(f"the database is encoded in {encoding}: keysvc needs UTF8")
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found
