"""How a command learns that it shall stop: Ctrl-C, SIGTERM, or a terminal that closed (but not under ``nohup``)."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def stop_signal() -> asyncio.Event:
    """An event that is set when somebody wants us to stop."""
    stopped = asyncio.Event()
    _on_stop(stopped.set)
    return stopped


def _on_stop(act: Callable[[], object]) -> None:
    """Call ``act`` when a signal wants us to stop: Ctrl-C, SIGTERM, or a terminal that closed (but not ``nohup``)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, act)


async def interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Run a command that takes down what it built also when SIGINT or SIGTERM end it: they cancel it."""
    command = asyncio.ensure_future(work)
    _on_stop(command.cancel)
    return await command


async def unless_stopped(stopped: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Do some work, such as to start; None if we are told to stop before it is done: then it is cancelled."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return None
