"""Closes clients when the process ends, so that the last counts are reported and no change waits for their leases.

At the end of the program, and at SIGTERM if that would end the process at once; a handler that the application has set
before, or sets later, stays: whoever handles signals ends the program in order.
"""

import atexit
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
    elif not _closing:
        _closing.append(threading.Thread(target=_close_and_terminate, name="keysvc end"))
        _closing[0].start()


def _close_and_terminate() -> None:
    _close_all()
    _closed.set()
    os.kill(os.getpid(), signal.SIGTERM)


def _close_all() -> None:
    for client in list(_clients):
        client.close()


atexit.register(_close_all)
