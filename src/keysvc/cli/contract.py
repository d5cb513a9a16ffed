"""The contract's words, times and durations, to and from those of the command line."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from keysvc.v1 import key_pb2, receipt_pb2, usage_service_pb2


class Environment(StrEnum):
    """Where a key may be used."""

    LIVE = "live"
    TEST = "test"


class KeyState(StrEnum):
    """Where a key is in its life."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKING = "revoking"
    REVOKED = "revoked"
    EXPIRED = "expired"


class UsageGroup(StrEnum):
    """What of usage can be kept apart, in the order of the service's answer."""

    KEY = "key"
    SECRET = "secret"  # noqa: S105 (no password)
    VERDICT = "verdict"


class Wait(StrEnum):
    """What a change waits for before it returns."""

    BARRIER = "barrier"
    COMMIT = "commit"


def environment_value(choice: Environment | None) -> key_pb2.Environment.ValueType:
    """The environment in a request; None: either."""
    return key_pb2.Environment.Value(f"ENVIRONMENT_{choice.name}" if choice else "ENVIRONMENT_UNSPECIFIED")


def key_state_value(choice: KeyState | None) -> key_pb2.Key.State.ValueType:
    """The state in a request; None: any."""
    return key_pb2.Key.State.Value(f"STATE_{choice.name}" if choice else "STATE_UNSPECIFIED")


def usage_group_value(choice: UsageGroup) -> usage_service_pb2.QueryUsageRequest.Group.ValueType:
    """The group in a request."""
    return usage_service_pb2.QueryUsageRequest.Group.Value(f"GROUP_{choice.name}")


def wait_value(choice: Wait | None) -> receipt_pb2.Wait.ValueType:
    """What a request waits for; None: what the service thinks best."""
    return receipt_pb2.Wait.Value(f"WAIT_{choice.name}" if choice else "WAIT_UNSPECIFIED")


def word(enum: EnumDescriptor, number: int) -> str:
    """The word of an enum value without its prefix, such as `ACTIVE`; a value newer than this program is a number."""
    value = enum.values_by_number.get(number)
    return value.name.removeprefix(enum.values[0].name.removesuffix("UNSPECIFIED")) if value else str(number)


def environment_word(value: key_pb2.Environment.ValueType) -> str:
    """`live` or `test`."""
    return word(key_pb2.Environment.DESCRIPTOR, value).lower()


def key_state_word(value: key_pb2.Key.State.ValueType) -> str:
    """A key's or a secret's state, such as `active`."""
    return word(key_pb2.Key.State.DESCRIPTOR, value).lower()


def to_timestamp(time: datetime | None) -> Timestamp | None:
    """A time for a request."""
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def to_duration(duration: timedelta | None) -> Duration | None:
    """A duration for a request."""
    if duration is None:
        return None
    message = Duration()
    message.FromTimedelta(duration)
    return message


def to_datetime(time: Timestamp) -> datetime:
    """A time of an answer."""
    return time.ToDatetime(tzinfo=UTC)
