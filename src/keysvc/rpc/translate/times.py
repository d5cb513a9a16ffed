"""Times and spans of time as messages."""

from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


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
