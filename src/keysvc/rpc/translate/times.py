"""Times, spans of time and receipts as messages."""

from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from keysvc.core.revision import Revision
from keysvc.rpc.fields import Fields
from keysvc.v1 import receipt_pb2


def timestamp(time: datetime | None) -> Timestamp | None:
    """A time, or nothing."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message


def duration(span: timedelta | None) -> Duration | None:
    """A span of time, or nothing."""
    if span is None:
        return None
    message = Duration()
    message.FromTimedelta(span)
    return message


def check_wait(fields: Fields, wait: receipt_pb2.Wait.ValueType) -> None:
    """Refuse a value that this version does not know."""
    if wait not in receipt_pb2.Wait.values():
        fields.bad("wait", "must be WAIT_BARRIER or WAIT_COMMIT")


def complete_receipt(revision: Revision) -> receipt_pb2.Receipt:
    """The receipt of a committed change: nobody answers from memory, so there was nobody to wait for."""
    return receipt_pb2.Receipt(
        revision=str(revision),
        state=receipt_pb2.Receipt.STATE_COMPLETE,
        path=receipt_pb2.Receipt.PATH_ACK,
        waited=Duration(),
    )
