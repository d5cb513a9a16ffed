"""Counts what became of requests, and reports it to keysvc as usage: in batches, off the path of requests.

A record says how the work went that a key was verified for. The Verify itself has been counted by whoever answered it:
records have no verdict, so nothing is counted twice.
"""

import logging
import os
from collections import deque
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import uuid4

import grpc

from keysvc.v1.usage_pb2 import Outcome, RecordUsageRequest, RecordUsageResponse, UsageRecord
from keysvc_client.channels import Channel, leave_to_parent, open_channel, opening
from keysvc_client.connection import Connection
from keysvc_client.ending import close_at_end
from keysvc_client.values import new_request_id
from keysvc_client.verification import Verification

REPORT_SECONDS: Final = 1.0
"""How often outcomes are reported. A process that is killed loses those of so long."""

CALL_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 2.0
"""How long the last report may take."""

RECORDS_MAX: Final = 1000
COUNT_MAX: Final = 1_000_000

KINDS_MAX: Final = 20_000
"""So many different ones are kept while keysvc cannot be told, of some 300 bytes each."""

_WAIT: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
"""It is worth while to send the same batch again: it may have been recorded or not, or a person may grant it."""

_log = logging.getLogger("keysvc_client")


class Kind(NamedTuple):
    """Outcomes that are told as one number: of one secret, and with one status."""

    key_id: str
    secret_id: str
    is_success: bool
    status_code: int


Counts: TypeAlias = dict[Kind, int]


class Tally:
    """Outcomes that have not been reported.

    Parameters:
        kinds_max: how many different ones are kept; of more, only the number is.
    """

    def __init__(self, kinds_max: int = KINDS_MAX) -> None:
        self._kinds_max = kinds_max
        self._lock = Lock()
        self._counts: Counts = {}
        self._lost = 0

    def add(self, kind: Kind) -> None:
        """Count one."""
        with self._lock:
            counts = self._counts
            if kind in counts:
                counts[kind] += 1
            elif len(counts) < self._kinds_max:
                counts[kind] = 1
            else:
                self._lost += 1

    def take(self) -> tuple[Counts, int]:
        """What was counted since the last time, and how many were too many."""
        with self._lock:
            taken, self._counts, self._lost = (self._counts, self._lost), {}, 0
            return taken


class Reporter:
    """Reports a tally until it is stopped; each batch until it is answered, so that it counts once.

    Parameters:
        tally: what is to be told.
        channel: to keysvc; closed in the end.
        metadata: of a call.
    """

    def __init__(self, tally: Tally, channel: Channel, metadata: Callable[[], tuple[tuple[str, str], ...]]) -> None:
        self._tally = tally
        self._metadata = metadata
        self.channel: Final = channel
        self._record = channel.unary_unary(
            "/keysvc.v1.KeyService/RecordUsage",
            request_serializer=RecordUsageRequest.SerializeToString,
            response_deserializer=RecordUsageResponse.FromString,
        )
        self._waiting: deque[RecordUsageRequest] = deque()
        self._number_anew()
        self._is_told = False
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="keysvc outcomes", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Report what is left, and end."""
        self._stopped.set()
        self._thread.join(CALL_SECONDS + CLOSE_SECONDS)
        self.channel.close()

    def _run(self) -> None:
        while not self._stopped.wait(REPORT_SECONDS):
            self._flush(CALL_SECONDS)
        if not (self._flush(CLOSE_SECONDS) and self._flush(CLOSE_SECONDS)):
            left = sum(record.count for request in self._waiting for record in request.records)
            left += sum(self._tally.take()[0].values())
            _log.error("usage lost: keysvc cannot be told of the outcome of %d requests", left)

    def _flush(self, timeout: float) -> bool:
        """Report what waits, and what was counted before if nothing does; whether that was answered."""
        if not self._waiting:
            self._waiting.extend(self._batches())
        while self._waiting:
            try:
                answer = self._record(self._waiting[0], timeout=timeout, metadata=self._metadata())
            except grpc.RpcError as error:
                if error.code() in _WAIT:
                    self._tell(error)
                    return False
                _log.error("usage refused by keysvc: %s", error.details())
                self._waiting.clear()
                self._number_anew()
                return True
            self._is_told = False
            self._waiting.popleft()
            for failure in answer.failures:
                _log.error("usage refused by keysvc: %s", failure.message)
        return True

    def _batches(self) -> list[RecordUsageRequest]:
        """What was counted, under the next numbers."""
        counts, lost = self._tally.take()
        if lost:
            _log.error("usage lost: the outcomes of %d requests, of too many keys while keysvc was away", lost)
        records = [record for kind, count in counts.items() for record in _records(kind, count)]
        batches = []
        for first in range(0, len(records), RECORDS_MAX):
            self._batch_seq += 1
            some = records[first : first + RECORDS_MAX]
            batches.append(RecordUsageRequest(source_id=self._source_id, batch_seq=self._batch_seq, records=some))
        return batches

    def _number_anew(self) -> None:
        """Begin to number batches, as a source that nobody knows."""
        self._source_id = f"client/{uuid4()}"
        self._batch_seq = 0

    def _tell(self, error: grpc.RpcError) -> None:
        """Say in the log that reports wait, once."""
        if not self._is_told:
            _log.warning("usage waits: keysvc does not take it (%s: %s)", error.code().name, error.details())
            self._is_told = True


class _Opened(NamedTuple):
    process: int
    tally: Tally
    reporter: Reporter


class Outcomes:
    """What became of requests. It begins with the first one, and anew in a child process or after it was closed.

    Parameters:
        connection: where to report, and as whom.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._opened: _Opened | None = None
        close_at_end(self)

    def add(self, verification: Verification, status_code: int, *, is_success: bool) -> None:
        """Count the outcome of a request."""
        opened = self._opened
        if opened is None or opened.process != os.getpid():
            opened = self._open()
        opened.tally.add(Kind(verification.key_id, verification.secret_id, is_success, status_code))

    def close(self) -> None:
        """Report what is left. It waits for keysvc, a few seconds at most; the end of the process does so too."""
        with opening:
            opened, self._opened = self._opened, None
        if opened is not None and opened.process == os.getpid():
            opened.reporter.stop()

    def _open(self) -> _Opened:
        """Begin to report in this process, unless another thread has done so."""
        with opening:
            opened = self._opened
            if opened is None or opened.process != os.getpid():
                if opened is not None:
                    leave_to_parent(opened.reporter.channel)
                tally = Tally()
                channel = open_channel(self._connection)
                reporter = Reporter(tally, channel, lambda: self._connection.metadata(new_request_id()))
                opened = self._opened = _Opened(os.getpid(), tally, reporter)
                reporter.start()
            return opened


def _records(kind: Kind, count: int) -> list[UsageRecord]:
    """A count, in records as large as the contract allows."""
    sizes = [COUNT_MAX] * (count // COUNT_MAX)
    if rest := count % COUNT_MAX:
        sizes.append(rest)
    fields: dict[str, Any] = {
        "key_id": kind.key_id,
        "secret_id": kind.secret_id,
        "outcome": Outcome.OUTCOME_SUCCESS if kind.is_success else Outcome.OUTCOME_FAILURE,
        "status_code": kind.status_code,
    }
    return [UsageRecord(**fields, count=size) for size in sizes]
