"""The supervisor: several processes that serve one port together, and one that looks after them.

What must happen once, it does: it holds the address, opens the database, which it alone migrates and, if that is an
embedded one, starts and stops, and creates the first operator key. The workers are fresh interpreters and no forks,
which gRPC does not survive, and each does on its own what ``app.serve`` does with one process.
"""

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from keysvc.app import Started, cannot_listen, serve_until_stopped, tell_started
from keysvc.capacity import SOLE
from keysvc.core.errors import KeysvcError
from keysvc.leasing import Worker
from keysvc.rpc.address import held_address
from keysvc.settings import Settings
from keysvc.storage import StartError, open_storage
from keysvc.store.leases import remove_members
from keysvc.worker import READY, REFUSED, Job

PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 5.0
"""How long a worker that ended stays away: at first, and at most."""

SETTLED_SECONDS: Final = 10.0
"""A worker that has served for so long may begin anew with the shortest pause."""

END_SECONDS: Final = 15.0
"""How long workers may take to stop, before they are killed: three times as long as they need in the worst case."""

LATE_SECONDS: Final = (1.0, 2.0, 4.0)
"""When rows of a worker that ended are looked for again: a statement that it had sent may be executed after its end."""

_COMMAND: Final = (sys.executable, "-P", "-m", "keysvc.worker")

_FROM_TERMINAL: Final = {signal.SIGINT, signal.SIGHUP}

_GOOD: Final = (0, -signal.SIGTERM)
"""How a worker ends that was told to, the latter before it has begun anything."""

_log = structlog.get_logger("keysvc")


async def serve(settings: Settings, announce: Callable[[Started], None], *, show_operator_key: bool) -> None:
    """Serve with several processes until SIGINT or SIGTERM; then stop them, and the database last.

    Parameters:
        announce: called once when all workers answer.
        show_operator_key: as in ``app.serve``.

    Raises:
        StartError: it cannot start, or a worker cannot.
    """

    async def start(stack: AsyncExitStack) -> Started:
        try:
            address = stack.enter_context(held_address(settings.listen))
        except OSError as error:
            raise cannot_listen(settings.listen, error) from None
        storage = await stack.enter_async_context(open_storage(settings, lanes=SOLE))

        async def remove(worker: Worker, granting: bool) -> None:  # noqa: FBT001 (see ``Supervisor``)
            await remove_members(storage.database, *worker.member_ids, granting=granting)

        given = replace(settings, listen=address, data_dir=None, database_url=storage.url, peppers=storage.peppers)
        supervisor = Supervisor(given, remove)
        stack.push_async_callback(supervisor.stop)
        await supervisor.start()
        return await tell_started(storage, settings, address, show_operator_key=show_operator_key)

    await serve_until_stopped(start, announce)


class Supervisor:
    """Keeps workers running.

    Parameters:
        settings: of each.
        remove: deletes the member rows of a worker that has ended, and whether also those that granted leases.
    """

    def __init__(self, settings: Settings, remove: Callable[[Worker, bool], Awaitable[None]]) -> None:
        self._settings = settings
        self._remove = remove
        self._stopping = asyncio.Event()
        self._running: dict[int, Process] = {}
        self._keeping: list[asyncio.Task[None]] = []
        self._removing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start all workers, and wait until each has answered once.

        Raises:
            StartError: one of them says that it cannot start.
        """
        loop = asyncio.get_running_loop()
        answers = {number: loop.create_future() for number in range(1, self._settings.workers + 1)}
        self._keeping = [asyncio.create_task(self._keep(*item)) for item in answers.items()]
        await asyncio.gather(*answers.values())

    async def stop(self) -> None:
        """Let all workers finish, and wait for their end; kill those that do not come to it."""
        self._stopping.set()
        for process in self._running.values():
            _send(process, signal.SIGTERM)
        _, late = await asyncio.wait(self._keeping, timeout=END_SECONDS)
        if late:
            for number, process in self._running.items():
                _log.error("worker killed: it does not stop", number=number, pid=process.pid)
                _send(process, signal.SIGKILL)
            await asyncio.wait(late)
        await asyncio.gather(*self._removing, return_exceptions=True)

    async def _keep(self, number: int, answered: "asyncio.Future[None]") -> None:
        """Start a worker again and again.

        Parameters:
            answered: hears when it answers for the first time, or that it refuses to start.
        """
        backoff = Backoff()
        while not self._stopping.is_set():
            life = await self._live(Worker(number), answered)
            if life.refusal is not None and not answered.done():
                answered.set_exception(StartError(life.refusal))
                return
            if self._stopping.is_set():
                return
            pause = backoff.after(life.served_seconds)
            tell = _log.info if life.is_good else _log.error
            tell("worker ended", number=number, **life.ending, restart_seconds=pause)
            await self._pause(pause)

    async def _live(self, worker: Worker, answered: "asyncio.Future[None]") -> "_Life":
        """Start a worker, and wait for its end."""
        try:
            process = await _spawn(Job(self._settings, worker))
        except OSError as error:
            return _Life({"reason": error.strerror})
        self._running[worker.number] = process
        if self._stopping.is_set():
            _send(process, signal.SIGTERM)
        heard, began = await _hear(process), time.monotonic()
        if heard == [READY, ""]:
            if answered.done():
                _log.info("worker serves again", number=worker.number, pid=process.pid)
            else:
                answered.set_result(None)
        code = await process.wait()
        served_seconds = time.monotonic() - began
        del self._running[worker.number]
        removing = asyncio.create_task(self._remove_rows(worker))
        self._removing.add(removing)
        removing.add_done_callback(self._removing.discard)
        how: dict[str, Any] = {"exit_code": code} if code >= 0 else {"signal": signal.Signals(-code).name}
        ending = {"pid": process.pid, **how}
        match heard:
            case [word, _] if word == READY:
                return _Life(ending, is_good=code in _GOOD, served_seconds=served_seconds)
            case [word, reason] if word == REFUSED:
                return _Life({**ending, "reason": reason}, refusal=reason)
            case _:
                return _Life(ending, is_good=code in _GOOD)

    async def _remove_rows(self, worker: Worker) -> None:
        """Delete the rows of a worker that has been reaped, so that no change waits for its lease.

        Not earlier: until waitpid has returned, it could have answered from memory. Nor where clients may have leases
        from it that have not ended yet. An error costs time alone: a collector finds the row.
        """
        terms = self._settings.terms
        ends_at = time.monotonic() + terms.wait_seconds(terms.lease_ms)
        for seconds in (*LATE_SECONDS, None):
            with suppress(KeysvcError):
                await self._remove(worker, time.monotonic() > ends_at)
            await self._pause(max(0.0, ends_at - time.monotonic()) if seconds is None else seconds)
            if self._stopping.is_set():
                return
        with suppress(KeysvcError):
            await self._remove(worker, True)  # noqa: FBT003 (see ``Supervisor``)

    async def _pause(self, seconds: float) -> None:
        """Wait for so long, or until everything stops."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


@dataclass
class Backoff:
    """How long a worker that ends again and again stays away."""

    pause_seconds: float = PAUSE_SECONDS_MIN

    def after(self, served_seconds: float) -> float:
        """The pause after a life.

        Parameters:
            served_seconds: how long it has answered.
        """
        if served_seconds >= SETTLED_SECONDS:
            self.pause_seconds = PAUSE_SECONDS_MIN
        pause, self.pause_seconds = self.pause_seconds, min(2 * self.pause_seconds, PAUSE_SECONDS_MAX)
        return pause


@dataclass(frozen=True, slots=True)
class _Life:
    """A life of a worker.

    Parameters:
        ending: how it ended, for the log.
        is_good: somebody wanted it to end.
        served_seconds: how long it has answered.
        refusal: why it refuses to start.
    """

    ending: dict[str, Any]
    is_good: bool = False
    served_seconds: float = 0.0
    refusal: str | None = None


async def _spawn(job: Job) -> Process:
    """Start a worker, in our own process group: what stops or kills the group means the workers too.

    Its standard input stays open for as long as we live.
    """
    # Their secrets come with the job: an environment can be read for as long as the process lives.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYSVC_")}
    # A mask is inherited: what a terminal sends to the whole group reaches us alone, and we decide.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_TERMINAL)
    try:
        process = await asyncio.create_subprocess_exec(*_COMMAND, stdin=PIPE, stdout=PIPE, env=environment)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FROM_TERMINAL)
    assert process.stdin is not None  # noqa: S101 (a pipe was asked for)
    process.stdin.write(job.pack())
    return process


async def _hear(process: Process) -> Any:  # noqa: ANN401 (JSON)
    """What a worker tells when it has started; None if it ends without a word."""
    assert process.stdout is not None  # noqa: S101 (a pipe was asked for)
    line = await process.stdout.readline()
    return json.loads(line) if line else None


def _send(process: Process, number: signal.Signals) -> None:
    """Send a worker a signal. SIGTERM lets it finish; while it is still being loaded it ends at once."""
    # Not by the methods of the process: they look first whether it lives, and may so reap it before asyncio does.
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)
