from datetime import UTC, datetime, timedelta

import pytest
import typer

from keysvc.cli.failure import Failure
from keysvc.cli.values import (
    Pair,
    When,
    format_distance,
    format_duration,
    format_wait,
    parse_count,
    parse_duration,
    parse_pair,
    parse_time,
    parse_when,
    to_mapping,
)

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("45s", timedelta(seconds=45)),
        ("1d12h", timedelta(days=1, hours=12)),
        ("2w", timedelta(weeks=2)),
        ("1w2d3h4m5s", timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5)),
        ("0s", timedelta()),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, duration: timedelta) -> None:
    """Units follow each other, the largest first."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "90", "d", "1.5h", "-1d", "12h1d", "1d 12h", "1D", "1y", "٣d", "9999999999999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A number without a unit, most of all: nobody knows what it would mean."""
    with pytest.raises(typer.BadParameter, match="is no duration: write 90d"):
        parse_duration(text)


def test_a_duration_that_the_contract_cannot_carry_is_refused() -> None:
    """google.protobuf.Duration ends at about 10 000 years."""
    assert parse_duration("315576000000s")
    with pytest.raises(typer.BadParameter, match="too long"):
        parse_duration("315576000001s")


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(days=90), "90d"),
        (timedelta(days=1, hours=12), "1d12h"),
        (timedelta(minutes=30), "30m"),
        (timedelta(seconds=59.9), "59s"),
        (timedelta(), "0s"),
    ],
)
def test_a_duration_is_written_as_it_is_read(duration: timedelta, text: str) -> None:
    """Without weeks: 90 days say more than 12 weeks and 6 days."""
    assert format_duration(duration) == text


def test_a_wait_has_the_unit_that_suits_it() -> None:
    """It is not typed by anybody."""
    waits = (timedelta(), timedelta(milliseconds=3.2), timedelta(seconds=2.5), timedelta(seconds=70))
    assert [format_wait(wait) for wait in waits] == ["0 ms", "3 ms", "2.5 s", "70.0 s"]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2027-01-31T00:00:00Z", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T01:30:00+01:30", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_with_its_zone(text: str, time: datetime) -> None:
    """A day alone begins at midnight UTC."""
    assert parse_time(text) == time


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2027-01-31T00:00:00", "names no time zone"),
        ("tomorrow", "is no time"),
        ("2027-02-30", "is no time"),
        ("9999-12-31T23:59:59-23:59", "is no time"),
    ],
)
def test_what_is_no_time_is_refused(text: str, why: str) -> None:
    """Without a zone it would mean another time on every machine."""
    with pytest.raises(typer.BadParameter, match=why):
        parse_time(text)


def test_a_distance_looks_ahead_or_back_as_its_option_does() -> None:
    """`7d` is in a week for an expiry, a week ago for an audit event."""
    when = parse_when("7d")
    assert when.ahead_of(NOW) == NOW + timedelta(days=7)
    assert when.before(NOW) == NOW - timedelta(days=7)
    assert parse_when("2027-01-31") == When(time=datetime(2027, 1, 31, tzinfo=UTC))
    with pytest.raises(Failure, match="too far away"):
        parse_when("9999w99999d").before(NOW - timedelta(days=720_000))


@pytest.mark.parametrize(
    ("distance", "text"),
    [
        (timedelta(days=29, hours=1), "in 29 days"),
        (timedelta(days=90) - timedelta(seconds=1), "in 90 days"),
        (timedelta(hours=-3), "3 hours ago"),
        (timedelta(minutes=1), "in 1 min"),
        (timedelta(seconds=-59.7), "1 min ago"),
        (timedelta(seconds=4), "in 4 s"),
        (timedelta(days=365), "in 12 months"),
        (timedelta(days=-3650), "10 years ago"),
        (timedelta(), "now"),
    ],
)
def test_a_distance_is_rounded_to_one_unit(distance: timedelta, text: str) -> None:
    """A key that was created for 90 days expires in 90, not in 89."""
    assert format_distance(NOW + distance, NOW) == text


def test_pairs_keep_what_follows_the_first_equals_sign() -> None:
    """A value may hold more of them, or be empty; a name comes once."""
    assert parse_pair("url=https://x/?a=b") == Pair("url", "https://x/?a=b")
    assert to_mapping([parse_pair("a="), parse_pair("b=c")]) == {"a": "", "b": "c"}
    for text in ("plan", "=gold", ""):
        with pytest.raises(typer.BadParameter, match="NAME=VALUE"):
            parse_pair(text)
    with pytest.raises(Failure, match="a is given twice"):
        to_mapping([parse_pair("a=1"), parse_pair("a=2")])


def test_a_count_is_what_the_contract_can_carry() -> None:
    """A negative one is for the service to refuse; one beyond 32 bits would never get there."""
    assert parse_count("-1") == -1
    for text in ("2147483648", "x", "1.5", "9" * 5000):
        with pytest.raises(typer.BadParameter):
            parse_count(text)
