"""Connections whose time is up."""

import asyncio
import os
import subprocess
import sys

import psycopg
import pytest

from keysvc.store.database import abandon

ANSWERED_TOO_LATE = """
import asyncio, sys, time
import psycopg
from keysvc.store.database import abandon

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
