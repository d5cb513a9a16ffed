"""One of several processes that serve together: a program that only ``keysvc.workers`` starts.

Its job comes over standard input, since it has secrets in it, which everybody on the machine could read in arguments.
Then standard input stays open and says no more: its end means that the supervisor has died without a word, and that the
worker must end too. Over standard output it tells that it answers, or why it never will.
"""

import asyncio
import json
import os
import pickle
import signal
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import BinaryIO, Final

import structlog

from keysvc import logs, serving
from keysvc.app import listen
from keysvc.capacity import Lanes
from keysvc.leasing import Worker
from keysvc.settings import Settings
from keysvc.stopping import unless_stopped
from keysvc.storage import StartError, open_storage

READY: Final = "ready"
REFUSED: Final = "refused"

_SIZE_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker has to do.

    Parameters:
        settings: with a port that is held for all workers, and with the database and the peppers that the supervisor
            has opened.
    """

    settings: Settings
    worker: Worker

    def pack(self) -> bytes:
        """The job as it goes to the worker."""
        packed = pickle.dumps(self)
        return len(packed).to_bytes(_SIZE_BYTES) + packed

    @staticmethod
    def unpack(stream: BinaryIO) -> "Job | None":
        """Read a job, and not a byte beyond; None if the stream ends before: the supervisor has died."""
        size = int.from_bytes(stream.read(_SIZE_BYTES))
        packed = stream.read(size)
        # It is from our own parent, which alone can write to this stream.
        return pickle.loads(packed) if size and len(packed) == size else None  # noqa: S301


def main() -> int:
    """Be a worker; the exit code."""
    job = Job.unpack(sys.stdin.buffer)
    if job is None:
        return 0
    # What a library prints must not be taken for what we tell.
    told = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logs.configure(worker=job.worker.number)
    try:
        serving.run(_serve(job, told))
    except StartError as error:
        _tell(told, REFUSED, str(error))  # and do not log it: all workers say the same
        return 1
    except Exception:  # noqa: BLE001 (as every command: the log has it)
        structlog.get_logger("keysvc").exception("failed")
        return 1
    return 0


async def _serve(job: Job, told: int) -> None:
    """Serve until SIGTERM, or the end of standard input.

    Parameters:
        told: where the supervisor listens.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_reader(sys.stdin.fileno())
        stopped.set()

    loop.add_reader(sys.stdin.fileno(), stop)
    loop.add_signal_handler(signal.SIGTERM, stop)
    async with AsyncExitStack() as stack:
        if await unless_stopped(stopped, _start(job, stack)) is not None:
            _tell(told, READY)
            await stopped.wait()


async def _start(job: Job, stack: AsyncExitStack) -> int:
    """Build a server that listens; its port."""
    settings = job.settings
    storage = await stack.enter_async_context(open_storage(settings, lanes=Lanes.of(settings.connections)))
    return await listen(storage, settings, stack, worker=job.worker)


def _tell(told: int, what: str, reason: str = "") -> None:
    """Tell the supervisor something, if it lives."""
    with suppress(OSError):
        os.write(told, json.dumps([what, reason]).encode() + b"\n")


if __name__ == "__main__":
    # Under its own name, by which the supervisor knows what it sends.
    from keysvc.worker import main as run

    sys.exit(run())
