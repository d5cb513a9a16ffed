"""Databases of tests on a server that is shared."""

import time
from typing import Final

import psycopg
from psycopg import sql

BUSY_SECONDS_MAX: Final = 20.0


def drop_database(server_url: str, name: str) -> None:
    """Remove a database, whoever still has a connection.

    PostgreSQL's own vacuum may be at work in it, which only a superuser can end: it is waited for.
    """
    statement = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    give_up = time.monotonic() + BUSY_SECONDS_MAX
    with psycopg.connect(server_url, autocommit=True) as connection:
        while True:
            try:
                connection.execute(statement)
            except psycopg.errors.InsufficientPrivilege:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.1)
            else:
                return
