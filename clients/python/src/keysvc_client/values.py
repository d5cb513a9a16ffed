"""Words, times and durations, to and from those of the contract."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum, auto
from typing import Literal, TypeAlias
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from keysvc.v1 import key_pb2, receipt_pb2, usage_pb2, usage_service_pb2


class Environment(StrEnum):
    """Where a key may be used."""

    LIVE = auto()
    TEST = auto()


class KeyState(StrEnum):
    """Where a key is in its life."""

    ACTIVE = auto()
    SUSPENDED = auto()
    REVOKING = auto()
    REVOKED = auto()
    EXPIRED = auto()


class Wait(StrEnum):
    """What a change waits for: that it is true everywhere, or only that it is durable."""

    BARRIER = auto()
    COMMIT = auto()


class Outcome(StrEnum):
    """How the work that a key was verified for went."""

    SUCCESS = auto()
    FAILURE = auto()


class UsageGroup(StrEnum):
    """What a usage query keeps apart. The service does not know resources and sources yet."""

    KEY = auto()
    SECRET = auto()
    VERDICT = auto()
    RESOURCE = auto()
    SOURCE = auto()


# Each argument takes the member or its word.
EnvironmentWord: TypeAlias = Environment | Literal["live", "test"]
KeyStateWord: TypeAlias = KeyState | Literal["active", "suspended", "revoking", "revoked", "expired"]
WaitWord: TypeAlias = Wait | Literal["barrier", "commit"]
OutcomeWord: TypeAlias = Outcome | Literal["success", "failure"]
UsageGroupWord: TypeAlias = UsageGroup | Literal["key", "secret", "verdict", "resource", "source"]


def environment_value(choice: EnvironmentWord | None) -> key_pb2.Environment.ValueType:
    """The environment in a request; None: either."""
    return key_pb2.Environment.Value(f"ENVIRONMENT_{_name(Environment, choice, 'environment')}")


def key_state_value(choice: KeyStateWord | None) -> key_pb2.Key.State.ValueType:
    """The state in a request; None: any."""
    return key_pb2.Key.State.Value(f"STATE_{_name(KeyState, choice, 'state')}")


def wait_value(choice: WaitWord | None) -> receipt_pb2.Wait.ValueType:
    """What a change waits for; None: what the service thinks best."""
    return receipt_pb2.Wait.Value(f"WAIT_{_name(Wait, choice, 'wait')}")


def outcome_value(choice: OutcomeWord) -> usage_pb2.Outcome.ValueType:
    """The outcome in a usage record."""
    return usage_pb2.Outcome.Value(f"OUTCOME_{_name(Outcome, choice, 'outcome')}")


def usage_group_value(choice: UsageGroupWord) -> usage_service_pb2.QueryUsageRequest.Group.ValueType:
    """The group in a query."""
    return usage_service_pb2.QueryUsageRequest.Group.Value(f"GROUP_{_name(UsageGroup, choice, 'groups')}")


def _name(enum: type[StrEnum], choice: str | None, argument: str) -> str:
    """The name of a member, as the contract has it."""
    if choice is None:
        return "UNSPECIFIED"
    try:
        return enum(choice).name
    except ValueError:
        raise ValueError(f"{argument} must be one of: {', '.join(enum)}") from None


def to_timestamp(time: datetime | None, argument: str) -> Timestamp | None:
    """A time for a request.

    Raises:
        ValueError: it names no time zone, so that nobody knows when it is.
    """
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError(f"{argument} must have a time zone, such as datetime.now(UTC) has")
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


def several(argument: str, texts: Iterable[str]) -> list[str]:
    """Several texts for a request.

    Raises:
        TypeError: it is one text, whose letters nobody can have meant.
    """
    if isinstance(texts, str):
        raise TypeError(f"{argument} must be several texts, such as a list, not one")
    return list(texts)


def seconds(timeout: float, argument: str = "timeout") -> float:
    """A deadline, in seconds.

    Raises:
        ValueError: it is not more than 0, or not finite: every call has a deadline.
    """
    if not 0 < timeout < float("inf"):
        raise ValueError(f"{argument} must be more than 0, and finite")
    return timeout


def new_request_id() -> str:
    """A random id."""
    return str(uuid4())
