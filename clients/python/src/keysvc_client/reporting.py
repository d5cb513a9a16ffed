"""Reports what was counted in this process, so that the service's totals have it all.

What has been sent and not answered is sent again as it was, under its number, until it is answered; so everything is
counted once, however often connections are lost.
"""

import logging
from collections import deque
from collections.abc import Callable
from copy import copy
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import Final

import grpc

from keysvc.v1.usage_pb2 import Outcome, RecordUsageRequest, RecordUsageResponse, UsageRecord
from keysvc.v1.verify_pb2 import Verdict
from keysvc_client.channels import Channel, pause_at_forks
from keysvc_client.counting import Count, Counting, Sheet, left_over
from keysvc_client.values import to_timestamp

REPORT_SECONDS: Final = 1.0
"""How often counts are reported. A process that is killed loses those of so long."""

CALL_SECONDS: Final = 5.0
ADOPT_SECONDS: Final = 30.0
"""How often it is looked for sheets of processes that have ended."""

CLOSE_SECONDS: Final = 2.0
"""How long the last report may take when the client is closed."""

COUNT_MAX: Final = 1_000_000

_adopting: Final = Lock()

_log = logging.getLogger("keysvc_client")


class Reporting:
    """Reports counts until it is stopped.

    Parameters:
        seal: gives all that was counted since the last time, as sheets.
        counting: makes these.
        channel: to the service; closed in the end.
        metadata: of a call.
    """

    def __init__(
        self,
        seal: Callable[[], list[Sheet]],
        counting: Counting,
        channel: Channel,
        metadata: Callable[[], tuple[tuple[str, str], ...]],
    ) -> None:
        self._seal = seal
        self._counting = counting
        self._metadata = metadata
        self.channel = channel
        self._record = channel.unary_unary(
            "/keysvc.v1.KeyService/RecordUsage",
            request_serializer=RecordUsageRequest.SerializeToString,
            response_deserializer=RecordUsageResponse.FromString,
        )
        self._waiting: deque[Sheet] = deque()
        self._calling = Lock()
        self._stopped = Event()
        self._is_told = False
        self._thread = Thread(target=self._run, name="keysvc usage", daemon=True)

    def start(self) -> None:
        """Begin."""
        pause_at_forks(self)
        self._thread.start()

    def pause(self) -> None:
        """Return when no call is under way, and begin none."""
        self._calling.acquire()

    def resume(self) -> None:
        """Go on."""
        self._calling.release()

    def stop(self) -> None:
        """Report what is left, and end."""
        self._stopped.set()
        self._thread.join(CALL_SECONDS + CLOSE_SECONDS)
        self.channel.close()

    def _run(self) -> None:
        looks_at = 0.0
        while not self._stopped.wait(REPORT_SECONDS):
            try:
                self._counting.prepare()
                self._flush(CALL_SECONDS)
                if self._counting.folder is not None and monotonic() > looks_at:
                    looks_at = monotonic() + ADOPT_SECONDS
                    self._adopt(self._counting.folder)
            except Exception:  # noqa: BLE001 (the next report brings what this one did not)
                _log.exception("usage was not reported")
        # Once for what waits, if anything does, and once for what was counted since.
        try:
            is_done = self._flush(CLOSE_SECONDS) and self._flush(CLOSE_SECONDS)
        except Exception:  # noqa: BLE001 (the process ends all the same)
            _log.exception("usage was not reported")
            is_done = False
        if not is_done:
            self._give_up()
        self._counting.close()

    def _flush(self, timeout: float) -> bool:
        """Report all that was counted before; whether that was answered."""
        if not self._waiting:
            self._waiting.extend(self._seal())
        while self._waiting:
            if not self._send(self._waiting[0], timeout):
                return False
            self._waiting.popleft().discard()
        return True

    def _send(self, sheet: Sheet, timeout: float) -> bool:
        """Report a sheet; whether it need not be sent again."""
        records = [record for count in sheet for record in _records(count)]
        request = RecordUsageRequest(source_id=sheet.source_id, batch_seq=sheet.seq, records=records)
        try:
            with self._calling:
                answer = self._record(request, timeout=timeout, metadata=self._metadata())
        except grpc.RpcError as error:
            if _is_of_source(error):
                # After a restore, say: the service does not know our batches before this one; or we call as another.
                _log.warning("usage is numbered anew: %s", error.details())
                sheet.number_anew()
                self._counting.number_anew()
                return False
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT or _is_known(error):
                _log.error("usage lost: keysvc refuses it (%s)", error.details())
                return True
            if not self._is_told:
                _log.warning("usage waits: keysvc does not take it (%s: %s)", error.code().name, error.details())
            self._is_told = True
            return False
        self._is_told = False
        for failure in answer.failures:
            _log.error("usage refused by keysvc: %s", failure.message)
        return True

    def _adopt(self, folder: Path) -> None:
        """Report what processes have left that ended before they could."""
        # The lock of a file does not keep out another reporter of this process.
        with _adopting:
            for sheets in left_over(folder):
                is_answered = not self._stopped.is_set()
                for sheet in sheets:
                    is_answered = is_answered and (sheet.is_empty() or self._send(sheet, CALL_SECONDS))
                    (sheet.discard if is_answered else sheet.close)()
                if not is_answered:
                    return

    def _give_up(self) -> None:
        """Nobody answers, and the process ends."""
        left = [*self._waiting, *self._seal()]
        number = sum(count.number for sheet in left for count in sheet)
        if self._counting.folder is None:
            _log.error("usage lost: keysvc cannot be told of %d requests", number)
        elif number:
            _log.warning("usage waits in %s: keysvc cannot be told of %d requests", self._counting.folder, number)
        for sheet in left:
            sheet.close()


def _is_of_source(error: grpc.RpcError) -> bool:
    """Whether a batch was refused for its source, and would be taken from another one."""
    if error.code() is grpc.StatusCode.PERMISSION_DENIED:
        return (error.details() or "").startswith("source_id ")
    return error.code() is grpc.StatusCode.FAILED_PRECONDITION and not _is_known(error)


def _is_known(error: grpc.RpcError) -> bool:
    """Whether another batch was recorded under the number of this one, which may have been this one after all."""
    is_refused = error.code() is grpc.StatusCode.FAILED_PRECONDITION
    return is_refused and (error.details() or "").startswith("another batch was recorded")


def _records(count: Count) -> list[UsageRecord]:
    """A count, in records as large as the contract allows."""
    kind, sizes = count.kind, [COUNT_MAX] * (count.number // COUNT_MAX)
    if rest := count.number % COUNT_MAX:
        sizes.append(rest)
    last_time = to_timestamp(count.last_time, "last_time")
    record = UsageRecord(
        key_id=kind.key_id, secret_id=kind.secret_id, status_code=kind.status_code, occur_time=last_time
    )
    if kind.verdict:
        record.verdict = Verdict.Value(f"VERDICT_{kind.verdict}")
    if kind.outcome:
        record.outcome = Outcome.Value(f"OUTCOME_{kind.outcome}")
    records = [copy(record) for _ in sizes]
    for each, size in zip(records, sizes, strict=True):
        each.count = size
    return records
