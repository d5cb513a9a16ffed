"""The hall: builds everything once, in order, and takes it down in reverse. The only file that knows all rooms."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import uuid4

import structlog

from keysvc.capacity import Lanes
from keysvc.core.errors import Overloaded, Unavailable
from keysvc.core.keystring import KeyString
from keysvc.core.page import PageTokens
from keysvc.core.permission import Permission
from keysvc.core.usage import Meter
from keysvc.lease.terms import boottime
from keysvc.leasing import REAL, Leasing, Parts, Worker, open_leasing, open_waiting
from keysvc.rpc.address import check_address
from keysvc.rpc.door import Door
from keysvc.rpc.fast_path import FastPath
from keysvc.rpc.parsing import slow_parser
from keysvc.rpc.refusals import Refusals
from keysvc.rpc.server import Server
from keysvc.rpc.servicers import AuditServicer, KeyServicer, UsageServicer, WorkspaceServicer
from keysvc.rpc.translate.leases import Memos
from keysvc.rpc.translate.verify import Answers, describe
from keysvc.service.callers import Call, Caller, Callers
from keysvc.service.confirming import Confirming
from keysvc.service.issuing import Issuing
from keysvc.service.lifecycle import Lifecycle
from keysvc.service.metering import FLUSH_SECONDS, Metering
from keysvc.service.minting import REPEATABLE, Minting
from keysvc.service.peppering import REFRESH_SECONDS, Rehashing
from keysvc.service.periodic import Periodic
from keysvc.service.reading import Reading
from keysvc.service.recording import Recording
from keysvc.service.rotating import Rotating
from keysvc.service.tenancy import Tenancy
from keysvc.service.updating import Updating
from keysvc.service.upkeep import Upkeep
from keysvc.service.verifying import Verifying
from keysvc.serving import settle
from keysvc.settings import SettingError, Settings
from keysvc.stopping import stop_signal, unless_stopped
from keysvc.storage import OpenDatabase, StartError, Storage, open_database, open_storage, patiently
from keysvc.store.changes import Changes
from keysvc.store.database import Database
from keysvc.store.listings import Listings
from keysvc.store.lookups import Lookups
from keysvc.store.peppers import PepperStore
from keysvc.store.sweeper import Sweeper
from keysvc.store.usage_totals import UsageTotals
from keysvc.tls import open_tls

DRAIN_SECONDS: Final = 1.5
"""How long calls under way may take to finish at the end; together with the database's end less than 5 s."""

SWEEP_SECONDS: Final = 5.0
"""How often sealed copies are looked through: so much longer than their time they may be there."""

FORGET_SECONDS: Final = 600.0
"""How often servers that are dead are looked for, and changes that are old; nobody waits for it."""

FINISH_SECONDS: Final = 1.0
"""How often barriers are looked for that whoever made the change does not wait for any more, and members that died."""

KEPT: Final = timedelta(hours=1)
"""How long changes are kept in the log after everybody knows them: a server that was cut off for longer forgets all."""

_log = structlog.get_logger("keysvc")


@dataclass(frozen=True, slots=True)
class Started:
    """What a start page tells.

    Parameters:
        address: where the server listens.
        tls: whether it speaks TLS.
        operator_key: the operator key, if it has been created now.
        has_operator: whether there is a usable operator key.
    """

    address: str
    tls: bool
    operator_key: KeyString | None
    has_operator: bool


async def serve(
    settings: Settings, announce: Callable[[Started], None], *, show_operator_key: bool, parts: Parts = REAL
) -> None:
    """Serve as one process until SIGINT or SIGTERM; then take everything down, the database last.

    Parameters:
        announce: called once when the server answers.
        show_operator_key: ``announce`` may show a key, so the first start of an embedded database creates one.
        parts: what answering from memory is made of.

    Raises:
        StartError: it cannot start.
    """

    async def start(stack: AsyncExitStack) -> Started:
        try:
            check_address(settings.listen)
        except OSError as error:
            raise cannot_listen(settings.listen, error) from None
        storage = await stack.enter_async_context(open_storage(settings, lanes=Lanes.of(settings.connections)))
        port = await listen(storage, settings, stack, parts)
        address = f"{settings.listen.rpartition(':')[0]}:{port}"
        return await tell_started(storage, settings, address, show_operator_key=show_operator_key)

    await serve_until_stopped(start, announce)


async def serve_until_stopped(
    start: Callable[[AsyncExitStack], Coroutine[Any, Any, Started]], announce: Callable[[Started], None]
) -> None:
    """Start, and take everything down when a signal says so, also while it starts.

    Parameters:
        start: builds everything; the stack takes it down.

    Raises:
        StartError: it cannot start.
    """
    if slow := slow_parser():
        raise StartError(slow)
    stopped = stop_signal()
    async with AsyncExitStack() as stack:
        started = await unless_stopped(stopped, start(stack))
        if started is not None:
            announce(started)
            _log.info("serving", address=started.address)
            await stopped.wait()
        _log.info("stopping")
    _log.info("stopped")


def cannot_listen(address: str, error: OSError) -> StartError:
    """Nobody can listen at an address."""
    return StartError(f"--listen (KEYSVC_LISTEN): cannot listen on {address}: {error.strerror}")


async def listen(
    storage: Storage, settings: Settings, stack: AsyncExitStack, parts: Parts = REAL, worker: Worker | None = None
) -> int:
    """Build a server on an open database, and let it listen; its port.

    Parameters:
        stack: takes it down: calls under way finish, then the counts are written and the lease is given up.
        worker: which one we are, if several share the port.

    Raises:
        StartError: it cannot start.
    """
    server, callers = await stack.enter_async_context(open_server(storage, settings, parts, worker))
    try:
        tls = await stack.enter_async_context(open_tls(settings, callers))
        port = await server.start(settings.listen, tls)
    except SettingError as error:
        raise StartError(str(error)) from None
    except OSError as error:
        raise StartError(f"--listen (KEYSVC_LISTEN): {error}") from None
    settle()
    return port


async def tell_started(storage: Storage, settings: Settings, address: str, *, show_operator_key: bool) -> Started:
    """What the start page tells. Comes last: a key that is made by a start which then fails would never be seen."""
    operator_key = None
    if show_operator_key and settings.database_url is None:
        operator_key = await _create_operator(storage, another=False)
    has_operator = await patiently(_reading(storage).has_operator)
    return Started(address, settings.tls_cert is not None, operator_key, has_operator)


async def bootstrap(settings: Settings, *, another: bool) -> KeyString | None:
    """Migrate, and create an operator key; None if there is one already and no other one is wanted.

    Raises:
        StartError: the database cannot be used.
    """
    async with open_storage(settings, share=True, migrating=True) as storage:
        return await _create_operator(storage, another=another)


@asynccontextmanager
async def open_upkeep(settings: Settings) -> AsyncIterator[tuple[OpenDatabase, Upkeep]]:
    """What operators look after a deployment with, beside servers that may be running.

    Raises:
        StartError: the database cannot be used.
    """
    async with open_database(settings, share=True) as opened, open_waiting(opened, settings.terms) as waiting:
        changes = Changes(opened.database, opened.timeline)
        yield opened, Upkeep(changes, Confirming(changes, waiting, boottime))


@asynccontextmanager
async def open_server(
    storage: Storage, settings: Settings, parts: Parts = REAL, worker: Worker | None = None
) -> AsyncIterator[tuple[Server, Callers]]:
    """A server on an open database, not listening yet, and who decides on its callers.

    Parameters:
        worker: which one it is, if several share the port.
    """
    async with (
        open_leasing(storage, settings.terms, parts, bytes_max=settings.memory_mib << 20, worker=worker) as leasing,
        _open_background(storage, settings) as background,
        _open_server(storage, leasing, background, shares_port=worker is not None) as opened,
    ):
        yield opened


@asynccontextmanager
async def _open_server(
    storage: Storage, leasing: Leasing, background: Database, *, shares_port: bool
) -> AsyncIterator[tuple[Server, Callers]]:
    """A server that answers from memory."""
    lookups = Lookups(storage.url, describe, limit_seconds=storage.limits.look_up_seconds)
    changes = Changes(storage.database, storage.timeline)
    confirming = Confirming(changes, leasing.waiting, leasing.clock)
    totals, sweeper, meter = UsageTotals(background), Sweeper(background), Meter()
    rehashing = Rehashing(storage.peppers, leasing.holder.memory, PepperStore(background))
    verifying = Verifying(
        lookups,
        leasing.holder,
        storage.peppers,
        tag_key=storage.keys.tag_key,
        hash_key=secrets.token_bytes(32),
        meter=meter,
        rehashing=rehashing,
    )
    leasing.tell = lambda: {
        "hits": verifying.hits,
        "misses": verifying.misses,
        "peppers": [each.hex() for each in storage.peppers.fingerprints],
    }
    reading = _reading(storage)
    minting = _minting(storage)
    metering = Metering(meter, totals, f"server/{uuid4()}", clock=time.monotonic)
    chores = (
        Periodic("write usage", metering.flush, FLUSH_SECONDS),
        Periodic("remove sealed copies", partial(sweeper.remove_sealed_copies, REPEATABLE), SWEEP_SECONDS),
        Periodic("forget dead servers", totals.forget_dead_servers, FORGET_SECONDS),
        Periodic("move digests", rehashing.flush, REFRESH_SECONDS),
        Periodic("finish barriers", leasing.waiting.sweep, FINISH_SECONDS),
        Periodic("trim the log of changes", partial(sweeper.trim_changes, KEPT), FORGET_SECONDS),
    )
    callers, answers, refusals = Callers(verifying), Answers(leasing.host), Refusals()
    memos = Memos(storage.keys.tag_key, leasing.granting.epoch)
    server = Server(
        Door(callers),
        {
            "KeyService": KeyServicer(
                Issuing(changes, minting),
                Updating(confirming),
                Rotating(confirming, minting),
                Lifecycle(confirming),
                reading,
                verifying,
                Recording(UsageTotals(storage.database)),
                leasing.granting,
                answers,
                memos,
                refusals,
            ),
            "WorkspaceService": WorkspaceServicer(Tenancy(changes, confirming), reading),
            "UsageService": UsageServicer(reading),
            "AuditService": AuditServicer(reading),
        },
        {"KeyService": {"Verify": FastPath(callers, verifying, answers, memos, refusals).verify}},
        shares_port=shares_port,
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(metering.finish)
        stack.push_async_callback(lookups.close)
        # Before anything is verified: from now on answers say how fresh their counts are.
        with suppress(Unavailable, Overloaded):
            await metering.flush()
        stack.push_async_callback(_stop, chores)
        for chore in chores:
            chore.start()
        stack.push_async_callback(server.stop, DRAIN_SECONDS)
        stack.push_async_callback(leasing.granting.stop)
        yield server, callers


@asynccontextmanager
async def _open_background(storage: Storage, settings: Settings) -> AsyncIterator[Database]:
    """Connections for what nobody waits for: of its own if there are enough, so that it holds up nobody."""
    if not Lanes.of(settings.connections).background:
        yield storage.database
        return
    background = Database(
        storage.url,
        limit_seconds=storage.limits.change_seconds,
        connections_max=1,
        readings_max=1,
        application_name="keysvc background",
    )
    try:
        yield background
    finally:
        await background.close()


async def _stop(chores: Iterable[Periodic]) -> None:
    """Stop work that is done again and again, all at once."""
    await asyncio.gather(*(chore.stop() for chore in chores))


def _reading(storage: Storage) -> Reading:
    """What gets and lists."""
    return Reading(Listings(storage.database), UsageTotals(storage.database), PageTokens(storage.keys.tag_key))


def _minting(storage: Storage) -> Minting:
    """What makes secrets."""
    return Minting(
        storage.peppers,
        tag_key=storage.keys.tag_key,
        entropy=secrets.token_bytes,
    )


async def _create_operator(storage: Storage, *, another: bool) -> KeyString | None:
    """Create an operator key, if there is none or another one is wanted."""
    caller = Caller("bootstrap", (Permission.OPERATOR,))
    call = Call(caller, "keysvc bootstrap", str(uuid4()), "")
    return await Issuing(Changes(storage.database, storage.timeline), _minting(storage)).create_operator(
        call, another=another
    )
