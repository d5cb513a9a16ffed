"""How durations, times and pairs are written on the command line and shown to people."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import typer

from keysvc.cli.failure import Failure

_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile("".join(rf"(?:([0-9]{{1,12}}){unit})?" for unit in _UNITS))
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# The longest that google.protobuf.Duration allows: about 10 000 years.
_DURATION_SECONDS_MAX = 315_576_000_000
_INT32_MAX = 2**31 - 1

# A unit, its seconds, and the count from which on the next unit is used.
_DISTANCES = (
    ("s", 1, 60),
    ("min", 60, 60),
    ("hour", 3600, 48),
    ("day", 86_400, 100),
    ("month", 2_629_800, 24),
    ("year", 31_557_600, 10**6),
)


@dataclass(frozen=True, slots=True)
class When:
    """A time, given as such or as a distance from now."""

    time: datetime | None = None
    distance: timedelta = timedelta()

    def ahead_of(self, now: datetime) -> datetime:
        """The time, where a distance looks forward."""
        return self.time or _shift(now, self.distance)

    def before(self, now: datetime) -> datetime:
        """The time, where a distance looks back."""
        return self.time or _shift(now, -self.distance)


@dataclass(frozen=True, slots=True)
class Pair:
    """A name and its value."""

    name: str
    value: str


def _shift(now: datetime, distance: timedelta) -> datetime:
    """Now plus a distance, if there is such a time."""
    try:
        return now + distance
    except OverflowError:
        raise Failure.usage("There is no such time: it is too far away.") from None


def parse_duration(text: str) -> timedelta:
    """A duration such as `90d`, `12h` or `1d12h`: weeks, days, hours, minutes, seconds, largest first."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise typer.BadParameter(f"{text!r} is no duration: write 90d, 12h, 30m or 1d12h.")
    seconds = sum(int(count or 0) * size for count, size in zip(match.groups(), _UNITS.values(), strict=True))
    if seconds > _DURATION_SECONDS_MAX:
        raise typer.BadParameter(f"{text!r} is too long.")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """Write a duration as ``parse_duration`` reads it, without weeks and without parts of a second."""
    seconds = duration // timedelta(seconds=1)
    if not seconds:
        return "0s"
    written = ""
    for unit, size in list(_UNITS.items())[1:]:
        count, seconds = divmod(seconds, size)
        written += f"{count}{unit}" if count else ""
    return written


def format_wait(duration: timedelta) -> str:
    """How long something took: `3 ms`, `2.5 s`."""
    seconds = duration.total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def parse_time(text: str) -> datetime:
    """A time as in RFC 3339, such as `2027-01-31T00:00:00Z`, or a day, which begins at midnight UTC."""
    try:
        time = datetime.fromisoformat(f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no time: write 2027-01-31T00:00:00Z or 2027-01-31.") from None
    raise typer.BadParameter(f"{text!r} names no time zone: end it with Z for UTC, or with an offset such as +01:00.")


def not_empty(parameter: typer.CallbackParam, value: str, context: typer.Context) -> str:
    """A condition that was given.

    Raises:
        typer.BadParameter: it is empty, as of a variable that is not set: that would stand for everything.
    """
    source = context.get_parameter_source(parameter.name or "")
    if not value and source is not None and source.name == "COMMANDLINE":
        raise typer.BadParameter("must not be empty: leave it out to set no such condition")
    return value


def parse_when(text: str) -> When:
    """A time, or a distance such as `7d`."""
    if _DURATION.fullmatch(text):
        return When(distance=parse_duration(text))
    return When(time=parse_time(text))


def format_time(time: datetime) -> str:
    """A time for people, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def format_distance(time: datetime, now: datetime) -> str:
    """How far away a time is: `in 29 days`, `3 hours ago`."""
    seconds = abs((time - now).total_seconds())
    unit, count = next(
        (unit, round(seconds / size)) for unit, size, limit in _DISTANCES if round(seconds / size) < limit
    )
    if not count:
        return "now"
    many = "s" if count > 1 and unit not in {"s", "min"} else ""
    return f"in {count} {unit}{many}" if time > now else f"{count} {unit}{many} ago"


def parse_pair(text: str) -> Pair:
    """`NAME=VALUE`; the value may hold more `=`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} must look like NAME=VALUE.")
    return Pair(name, value)


def to_mapping(pairs: Iterable[Pair]) -> dict[str, str]:
    """Pairs by name; no name may come twice."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        if pair.name in mapping:
            raise Failure.usage(f"{pair.name} is given twice.")
        mapping[pair.name] = pair.value
    return mapping


def parse_count(text: str) -> int:
    """A number that the contract can carry; whether it makes sense there is the service's to say."""
    try:
        count = int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number.") from None
    if abs(count) > _INT32_MAX:
        raise typer.BadParameter(f"{text!r} is too large.")
    return count
