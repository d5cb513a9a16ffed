"""Counts what became of requests, and reports it to keysvc as usage: in batches, off the path of requests.

A record says how the work went that a key was verified for. The Verify itself has been counted by whoever answered it:
records have no verdict, so nothing is counted twice.
"""

import os
import time
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from keysvc_client.channels import leave_to_parent, open_channel, opening
from keysvc_client.connection import Connection
from keysvc_client.counting import Counting, Kind, Sheet
from keysvc_client.ending import close_at_end
from keysvc_client.reporting import Reporting
from keysvc_client.values import Outcome, new_request_id
from keysvc_client.verification import Verification


class Tally:
    """Outcomes that have not been reported.

    Parameters:
        counting: where they are counted.
    """

    def __init__(self, counting: Counting) -> None:
        self._counting = counting
        self._lock = Lock()

    def add(self, kind: Kind) -> None:
        """Count one."""
        with self._lock:
            sheet, slot = self._counting.place(kind)
            sheet.times[slot] = time.time()
            sheet.counts[slot] += 1

    def take(self) -> list[Sheet]:
        """What was counted since the last time, as batches."""
        with self._lock:
            return self._counting.seal()


class _Opened(NamedTuple):
    process: int
    tally: Tally
    reporting: Reporting


class Outcomes:
    """What became of requests. It begins with the first one, and anew in a child process or after it was closed.

    Parameters:
        connection: where to report, and as whom.
        spool_dir: where counts are kept that outlive the process; None: they do not.
    """

    def __init__(self, connection: Connection, spool_dir: Path | None = None) -> None:
        self._connection = connection
        self._spool_dir = spool_dir
        self._opened: _Opened | None = None
        close_at_end(self)

    def add(self, verification: Verification, status_code: int, *, is_success: bool) -> None:
        """Count the outcome of a request."""
        opened = self._opened
        if opened is None or opened.process != os.getpid():
            opened = self._open()
        outcome = Outcome.SUCCESS if is_success else Outcome.FAILURE
        opened.tally.add(Kind(verification.key_id, verification.secret_id, "", outcome.name, status_code))

    def close(self) -> None:
        """Report what is left. It waits for keysvc, a few seconds at most; the end of the process does so too."""
        with opening:
            opened, self._opened = self._opened, None
        if opened is not None and opened.process == os.getpid():
            opened.reporting.stop()

    def _open(self) -> _Opened:
        """Begin to report in this process, unless another thread has done so."""
        with opening:
            opened = self._opened
            if opened is None or opened.process != os.getpid():
                if opened is not None:
                    leave_to_parent(opened.reporting.channel)
                counting = Counting(self._spool_dir)
                tally = Tally(counting)
                connection = self._connection
                reporting = Reporting(
                    tally.take, counting, open_channel(connection), lambda: connection.metadata(new_request_id())
                )
                opened = self._opened = _Opened(os.getpid(), tally, reporting)
                reporting.start()
            return opened
