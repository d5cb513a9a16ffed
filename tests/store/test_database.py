"""Connections whose time is up."""

import asyncio
import os
import subprocess
import sys

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from keysvc.store.database import Database, abandon

ANSWERED_TOO_LATE = """
import asyncio, sys, time
import psycopg
from keysvc.store.database import Database, abandon

async def main():
    connection = await psycopg.AsyncConnection.connect(sys.argv[1])
    under_way = asyncio.create_task(connection.execute("SELECT pg_sleep(0.2), repeat('x', 1000)"))

    async def attempt():
        await asyncio.shield(under_way)

    task = asyncio.create_task(attempt())
    await asyncio.sleep(0.1)
    time.sleep(0.3)  # a busy machine: the answer is there, and in the next turn of the loop it is noticed,
    await asyncio.sleep(0)  # but this goes on first
    abandon(task, [connection])
    await asyncio.wait({under_way})
    await connection.close()
    print("alive")

asyncio.run(main())
"""


async def test_an_abandoned_connection_is_cut_and_not_freed(database_url: str) -> None:
    """Whoever waits at it hears at once that it is lost, and libpq keeps until then what they read."""
    connection = await psycopg.AsyncConnection.connect(database_url)
    under_way = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))

    async def attempt() -> None:
        await asyncio.shield(under_way)

    task = asyncio.create_task(attempt())
    await asyncio.sleep(0.1)
    abandon(task, [connection])
    assert not connection.closed
    with pytest.raises(psycopg.OperationalError):
        await asyncio.wait_for(under_way, 5)
    await asyncio.wait({task}, timeout=5)
    assert task.done()
    await connection.close()
    abandon(task, [connection])  # what has been closed before is fine


def test_an_answer_that_comes_too_late_does_not_kill_the_process(database_url: str) -> None:
    """What comes while a connection is abandoned is read from memory that is still there.

    SQLAlchemy shields its rollbacks, so that they go on. Servers on busy machines died of that.
    """
    done = subprocess.run(
        [sys.executable, "-c", ANSWERED_TOO_LATE, database_url],
        check=False,
        capture_output=True,
        text=True,
        timeout=40,
        env={**os.environ, "MALLOC_PERTURB_": "165"},  # what is freed is overwritten: reading it does not go well
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


async def test_reads_can_take_turns_with_transactions_on_one_connection(database_url: str) -> None:
    """Where there are few connections: each work gets its result, a read is still no transaction, a change is one."""
    database = Database(database_url, limit_seconds=20, readings_max=0, connections_max=1, application_name="one")

    async def number(connection: AsyncConnection) -> int:
        return int((await connection.execute(text("SELECT txid_current()"))).scalar_one())

    async def numbers(connection: AsyncConnection, *_: object) -> tuple[int, int]:
        return await number(connection), await number(connection)

    try:
        done = await asyncio.gather(
            *(each for _ in range(5) for each in (database.read(numbers), database.run(numbers, commit=True)))
        )
        reads, transactions = done[::2], done[1::2]
        assert all(first != second for first, second in reads)
        assert all(first == second for first, second in transactions)
        with psycopg.connect(database_url) as connection:
            query = (
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'one' AND datname = current_database()"
            )
            assert connection.execute(query).fetchone() == (1,)
    finally:
        await database.close()


async def test_postgresql_is_asked_to_notice_soon_that_we_are_gone(database_url: str) -> None:
    """If the network swallows us: a session that it keeps counts towards all that it may have."""
    database = Database(database_url, limit_seconds=20)
    keepalives = "SELECT name, reset_val FROM pg_settings WHERE name LIKE 'tcp_keepalives_%'"

    async def work(connection: AsyncConnection) -> dict[str, int]:
        return {row.name: int(row.reset_val) for row in await connection.execute(text(keepalives))}

    settings = await database.read(work)
    await database.close()
    idle, interval, count = (settings[f"tcp_keepalives_{name}"] for name in ("idle", "interval", "count"))
    assert idle > 0
    assert 0 < idle + interval * count <= 30
