"""What a client needs to verify in its own process: answers, a thread that keeps their lease, and one that reports."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Final, NamedTuple

from keysvc_client.channels import leave_to_parent, open_channel, open_lease_channel, opening
from keysvc_client.connection import Connection
from keysvc_client.counting import Counting
from keysvc_client.ending import close_at_end
from keysvc_client.leasing.answers import Answers
from keysvc_client.leasing.renewing import Renewing
from keysvc_client.reporting import Reporting
from keysvc_client.values import new_request_id

_forks: Final[list[None]] = []
"""As long as there are forks between this process and the first one."""

os.register_at_fork(after_in_child=lambda: _forks.append(None))


class _Opened(NamedTuple):
    """What has begun in a process, ``forks`` away from the first one."""

    forks: int
    answers: Answers
    renewing: Renewing
    reporting: Reporting


class Leased:
    """Verification in process. It begins with the first question, and anew in a child process.

    Parameters:
        connection: where to ask for leases, and as whom.
        stale: go on after the lease for as long as the service allows, while no server can be reached.
        spool_dir: where counts are kept that outlive the process; None: they do not.
    """

    def __init__(self, connection: Connection, *, stale: bool, spool_dir: Path | None) -> None:
        self._connection = connection
        self._stale = stale
        self._spool_dir = spool_dir
        self._opened: _Opened | None = None
        close_at_end(self)
        self._is_closed = False

    def answers(self) -> Answers:
        """What is remembered in this process."""
        opened = self._opened
        if opened is None or opened.forks != len(_forks):
            opened = self._open()
        return opened.answers

    def close(self) -> None:
        """Give up the lease, end the session, and report the last counts."""
        with opening:
            opened, self._opened, self._is_closed = self._opened, None, True
        if opened is not None and opened.forks == len(_forks):
            opened.renewing.stop()
            opened.reporting.stop()

    async def aclose(self) -> None:
        """As ``close``, in a thread, since that waits for the service."""
        await asyncio.to_thread(self.close)

    def _open(self) -> _Opened:
        """Begin, unless another thread has done so."""
        with opening:
            if self._is_closed:
                raise RuntimeError("this client is closed")
            opened = self._opened
            if opened is None or opened.forks != len(_forks):
                if opened is not None:
                    leave_to_parent(opened)
                opened = self._begin()
                opened.reporting.start()
                opened.renewing.start()
                self._opened = opened
            return opened

    def _begin(self) -> _Opened:
        connection = self._connection

        def metadata() -> tuple[tuple[str, str], ...]:
            return connection.metadata(new_request_id())

        counting = Counting(self._spool_dir)
        answers = Answers(f"{socket.gethostname()}/{os.getpid()} (client)", counting, stale=self._stale)
        renewing = Renewing(answers, lambda: open_lease_channel(connection), metadata, stale=self._stale)
        reporting = Reporting(answers.take_counts, counting, open_channel(connection), metadata)
        return _Opened(len(_forks), answers, renewing, reporting)
