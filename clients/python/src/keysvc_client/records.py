"""Usage records: what was done with a key after it was verified."""

from dataclasses import dataclass
from datetime import datetime

from keysvc.v1 import usage_pb2
from keysvc_client.values import OutcomeWord, outcome_value, to_timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """What was done with a key.

    Parameters:
        key_id, secret_id: as `verify` answered them.
        outcome: how the work went.
        status_code: HTTP or gRPC status that the end user got.
        resource: what was accessed; at most 128 characters.
        units: of the service's own measure (pages, tokens, bytes), of all the events together.
        source_ip: of the end user.
        request_id: the service's own trace id; at most 128 characters.
        occur_time: when it happened; None: when the record arrives.
        count: how many equal events this record stands for.
    """

    key_id: str
    secret_id: str
    outcome: OutcomeWord
    status_code: int = 0
    resource: str = ""
    units: int = 0
    source_ip: str = ""
    request_id: str = ""
    occur_time: datetime | None = None
    count: int = 1

    def to_message(self) -> usage_pb2.UsageRecord:
        """The same as a message.

        Raises:
            ValueError: the outcome is none, or the time names no time zone.
        """
        return usage_pb2.UsageRecord(
            key_id=self.key_id,
            secret_id=self.secret_id,
            outcome=outcome_value(self.outcome),
            status_code=self.status_code,
            resource=self.resource,
            units=self.units,
            source_ip=self.source_ip,
            request_id=self.request_id,
            occur_time=to_timestamp(self.occur_time, "occur_time"),
            count=self.count,
        )
