"""Closes clients when the process ends, so that the last counts are reported and no change waits for their leases.

At the end of the program, and at SIGTERM if that would end the process at once; a handler that the application has set
before, or sets later, stays: whoever handles signals ends the program in order.
"""

import atexit
import logging
import os
import signal
import threading
from typing import Final, Protocol
from weakref import WeakSet


class Closable(Protocol):
    """What is closed."""

    def close(self) -> None:
        """In any thread, and again."""
        ...


CLOSE_SECONDS: Final = 5.0
"""How long the end of the process is held up at most."""

_log = logging.getLogger("keysvc_client")

_clients: Final[WeakSet[Closable]] = WeakSet()
_closed: Final = threading.Event()
_closing: Final[list[threading.Thread]] = []


def close_at_end(client: Closable) -> None:
    """Close this when the process ends, if it is still there."""
    _clients.add(client)
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)


def _terminated(number: int, _frame: object) -> None:
    """Close everything, then end as without us. In the main thread, which may hold any lock: so another one closes."""
    if _closed.is_set():
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        os._exit(128 + number)  # where that does nothing, as to the first process of a container
    if not _closing:
        _closing.append(threading.Thread(target=_close_and_terminate, name="keysvc end"))
        _closing[0].start()


def _close_and_terminate() -> None:
    try:
        _close_all()
    finally:
        _closed.set()
        os.kill(os.getpid(), signal.SIGTERM)


def _close_all() -> None:
    """Close all clients at once: together they take no longer than the slowest."""
    closing = [threading.Thread(target=_close, args=(client,), daemon=True) for client in _clients.copy()]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join(CLOSE_SECONDS)


def _close(client: Closable) -> None:
    try:
        client.close()
    except Exception:  # noqa: BLE001 (the others are closed all the same)
        _log.exception("a client was not closed")


def _forked() -> None:
    _closing.clear()
    _closed.clear()


os.register_at_fork(after_in_child=_forked)
atexit.register(_close_all)
