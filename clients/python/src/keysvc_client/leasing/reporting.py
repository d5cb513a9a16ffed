"""Reports the answers that were given in this process, so that the service's totals have every Verify.

What has been sent and not answered is sent again as it was, under its number, until it is answered; so each answer is
counted once, however often connections are lost.
"""

import logging
from collections import deque
from collections.abc import Callable
from threading import Event, Thread
from typing import Final
from uuid import uuid4

import grpc

from keysvc.v1.usage_pb2 import RecordUsageRequest, RecordUsageResponse, UsageRecord
from keysvc.v1.verify_pb2 import Verdict
from keysvc_client.channels import Channel
from keysvc_client.leasing.answers import Answers, Count
from keysvc_client.values import to_timestamp

REPORT_SECONDS: Final = 1.0
"""How often counts are reported. A process that is killed loses those of so long."""

CALL_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 2.0
"""How long the last report may take when the client is closed."""

RECORDS_MAX: Final = 1000
COUNT_MAX: Final = 1_000_000

_log = logging.getLogger("keysvc_client")


class Reporting:
    """Reports counts until it is stopped.

    Parameters:
        answers: counts them.
        channel: to the service; closed in the end.
        metadata: of a call.
    """

    def __init__(self, answers: Answers, channel: Channel, metadata: Callable[[], tuple[tuple[str, str], ...]]) -> None:
        self._answers = answers
        self._metadata = metadata
        self.channel = channel
        self._record = channel.unary_unary(
            "/keysvc.v1.KeyService/RecordUsage",
            request_serializer=RecordUsageRequest.SerializeToString,
            response_deserializer=RecordUsageResponse.FromString,
        )
        self._source_id = f"client/{uuid4()}"
        self._batch_seq = 0
        self._waiting: deque[RecordUsageRequest] = deque()
        self._stopped = Event()
        self._is_told = False
        self._thread = Thread(target=self._run, name="keysvc usage", daemon=True)

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
        if not self._flush(CLOSE_SECONDS):
            lost = sum(record.count for request in self._waiting for record in request.records)
            _log.error("usage lost: keysvc cannot be told of %d answers that were given here", lost)

    def _flush(self, timeout: float) -> bool:
        """Report all that was counted before; whether that was answered."""
        if not self._waiting:
            self._waiting.extend(self._batches())
        while self._waiting:
            try:
                answer = self._record(self._waiting[0], timeout=timeout, metadata=self._metadata())
            except grpc.RpcError as error:
                self._tell(error)
                return False
            self._is_told = False
            self._waiting.popleft()
            for failure in answer.failures:
                _log.error("usage refused by keysvc: %s", failure.message)
        return True

    def _batches(self) -> list[RecordUsageRequest]:
        """What was counted, under the next numbers."""
        records = [record for count in self._answers.take_counts() for record in _records(count)]
        batches = []
        for first in range(0, len(records), RECORDS_MAX):
            self._batch_seq += 1
            some = records[first : first + RECORDS_MAX]
            batches.append(RecordUsageRequest(source_id=self._source_id, batch_seq=self._batch_seq, records=some))
        return batches

    def _tell(self, error: grpc.RpcError) -> None:
        """Say in the log that reports wait, once."""
        if not self._is_told:
            _log.warning("usage waits: keysvc does not take it (%s: %s)", error.code().name, error.details())
            self._is_told = True


def _records(count: Count) -> list[UsageRecord]:
    """A count, in records as large as the contract allows."""
    sizes = [COUNT_MAX] * (count.number // COUNT_MAX)
    if rest := count.number % COUNT_MAX:
        sizes.append(rest)
    verdict, last_time = Verdict.Value(f"VERDICT_{count.verdict.name}"), to_timestamp(count.last_time, "last_time")
    return [
        UsageRecord(key_id=count.key_id, secret_id=count.secret_id, verdict=verdict, count=size, occur_time=last_time)
        for size in sizes
    ]
