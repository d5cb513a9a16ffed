"""The storage: an open database that fits this version, and the keys that belong to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import psycopg
import structlog
from sqlalchemy.exc import DBAPIError

from keysvc.capacity import SEPARATE, Lanes
from keysvc.core.errors import KeysvcError, Overloaded, Unavailable
from keysvc.core.pepper import Peppers
from keysvc.settings import SettingError, Settings, own_peppers
from keysvc.store.database import Database
from keysvc.store.embedded import EmbeddedError, EmbeddedPostgres
from keysvc.store.leases import find_timeline
from keysvc.store.migrate import UnfitDatabaseError, find_schema, migrate, newest_schema
from keysvc.store.peppers import DeploymentKeys, has_pepper, read_deployment_keys

PATIENCE_SECONDS: Final = 10.0
"""How long a start goes on to ask a database that it has reached."""

_PAUSE_SECONDS: Final = 0.1

KEEP_ALIVE_SECONDS: Final = 0.5
"""How often a server looks whether its embedded database is alive."""

A = TypeVar("A")
T = TypeVar("T")

_log = structlog.get_logger("keysvc")


class StartError(Exception):
    """keysvc cannot start; the text is a sentence for the person who started it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the database may take before it counts as away; together less than the 2 s that callers are promised.

    Parameters:
        change_seconds: for one change or list.
        look_up_seconds: for one look-up of Verify, which comes first in every call.
    """

    change_seconds: float = 1.2
    look_up_seconds: float = 0.75


@dataclass(frozen=True, slots=True)
class OpenDatabase:
    """An open database with the schema of this version.

    Parameters:
        timeline: SQL of the timeline of its write-ahead log.
    """

    url: str = field(repr=False)
    database: Database
    timeline: str


@dataclass(frozen=True, slots=True)
class Storage(OpenDatabase):
    """An open database, and the keys that belong to it."""

    peppers: Peppers
    keys: DeploymentKeys
    limits: Limits


async def migrate_database(settings: Settings) -> tuple[str | None, str]:
    """Bring the database to this version's schema; what it was before and is now.

    Raises:
        StartError: the database cannot be used.
    """
    async with _database_url(settings, share=True) as url:
        return await _blocking(migrate, url)


@asynccontextmanager
async def open_database(
    settings: Settings,
    *,
    share: bool = False,
    migrating: bool = False,
    limits: Limits = Limits(),
    lanes: Lanes = SEPARATE,
) -> AsyncIterator[OpenDatabase]:
    """An open database, checked: its schema is this version's.

    Parameters:
        share: an embedded database may belong to another process.
        migrating: migrate an external database too; otherwise an older schema is refused. An embedded one is always
            migrated.
        lanes: of the connections.

    Raises:
        StartError: it cannot be used.
    """
    async with _database_url(settings, share=share) as url:
        if migrating or settings.database_url is None:
            await _blocking(migrate, url)
        else:
            await _check_schema(url)
        database = Database(
            url,
            limit_seconds=limits.change_seconds,
            connections_max=lanes.transactions,
            readings_max=lanes.readings,
        )
        try:
            yield OpenDatabase(url, database, await patiently(partial(find_timeline, database)))
        except KeysvcError as error:
            raise StartError(error.message) from error
        except DBAPIError as error:
            raise _unusable(error) from None
        finally:
            await database.close()


@asynccontextmanager
async def open_storage(
    settings: Settings,
    *,
    share: bool = False,
    migrating: bool = False,
    limits: Limits = Limits(),
    lanes: Lanes = SEPARATE,
) -> AsyncIterator[Storage]:
    """As ``open_database``; also this server holds the peppers that its keys need.

    Raises:
        StartError: it cannot be used.
    """
    async with open_database(settings, share=share, migrating=migrating, limits=limits, lanes=lanes) as opened:
        peppers = settings.peppers
        if peppers is None:
            is_new = not await patiently(partial(has_pepper, opened.database))
            peppers = await _blocking(partial(own_peppers, is_new=is_new), settings.folder)
        keys = await patiently(partial(read_deployment_keys, opened.database, peppers.fingerprints[0]))
        if not keys.needed <= set(peppers.fingerprints):
            raise StartError(
                "KEYSVC_PEPPERS or --peppers-file: a pepper is missing that living keys of this database need"
            )
        peppers.sign_with(keys.signing)
        yield Storage(opened.url, opened.database, opened.timeline, peppers, keys, limits)


async def patiently(read: Callable[[], Awaitable[T]]) -> T:
    """Read something at the start, with more patience than a caller would have: the machine may be starting too."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    while loop.time() < deadline:
        with suppress(Unavailable, Overloaded):
            return await read()
        await asyncio.sleep(_PAUSE_SECONDS)
    return await read()


@asynccontextmanager
async def _database_url(settings: Settings, *, share: bool) -> AsyncIterator[str]:
    """Where the database is; an embedded one is started, and stopped afterwards."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    starting = asyncio.create_task(_blocking(partial(EmbeddedPostgres.start, share=share), settings.folder))
    try:
        embedded = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # A thread cannot be cancelled: let it come to its end, then take down what it built.
        await asyncio.to_thread((await starting).stop)
        raise
    keeper = asyncio.create_task(_keep_alive(embedded))
    try:
        yield embedded.url
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await asyncio.to_thread(embedded.stop)


async def _keep_alive(embedded: EmbeddedPostgres) -> None:
    """Start an embedded database again that somebody killed; an external one has its own keeper."""
    while True:
        await asyncio.sleep(KEEP_ALIVE_SECONDS)
        if not embedded.is_dead:
            continue
        _log.error("the embedded database died: starting it again")
        reviving = asyncio.create_task(asyncio.to_thread(embedded.revive))
        try:
            await asyncio.shield(reviving)
        except asyncio.CancelledError:
            await asyncio.gather(reviving, return_exceptions=True)  # so that there is something to stop
            raise
        except EmbeddedError as error:
            _log.error("the embedded database does not start", reason=str(error))


async def _check_schema(url: str) -> None:
    """Raise ``StartError`` unless the schema is this version's."""
    found, needed = await _blocking(find_schema, url), newest_schema()
    if found == needed:
        return
    if found is None or found < needed:
        raise StartError(f"the database has schema {found or 'none'}, this version needs {needed}: run keysvc migrate")
    raise StartError(f"the database has schema {found}, which is newer than this version of keysvc ({needed})")


async def _blocking(work: Callable[[A], T], argument: A) -> T:
    """Run blocking work on the database in a thread; errors are sentences."""
    try:
        return await asyncio.to_thread(work, argument)
    except (EmbeddedError, UnfitDatabaseError, SettingError) as error:
        raise StartError(str(error)) from None
    except (DBAPIError, psycopg.Error) as error:
        raise _unusable(error) from None


def _unusable(error: DBAPIError | psycopg.Error) -> StartError:
    """What the database said. Only the first line: what follows may quote a statement."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return StartError(
        f"the database (--database-url, KEYSVC_DATABASE_URL) cannot be used: {str(cause).strip().partition(chr(10))[0]}"
    )
