from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysvc.core.listing import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, Position


@given(time=st.datetimes(timezones=st.just(UTC)), item_id=st.uuids())
def test_a_position_is_read_as_it_was_written(time: datetime, item_id: UUID) -> None:
    """To the microsecond, for every time of the calendar: a page neither repeats its last item nor skips the next."""
    assert Position.parse(str(Position(time, item_id))) == Position(time, item_id)


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), "0.00000000000000000000000000000007"),
        (datetime(2026, 9, 17, 12, 0, 0, 1, tzinfo=UTC), "1789646400000001.00000000000000000000000000000007"),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "-1.00000000000000000000000000000007"),
    ],
)
def test_a_position_is_the_text_made_by_hand(time: datetime, text: str) -> None:
    """Tokens of one version are read by the next during a roll-out."""
    assert str(Position(time, UUID(int=7))) == text


def test_a_time_of_another_zone_is_the_same_position() -> None:
    """The database may answer in its own time zone."""
    time = datetime(2026, 9, 17, 12, 0, tzinfo=UTC)
    elsewhere = time.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert str(Position(elsewhere, UUID(int=7))) == str(Position(time, UUID(int=7)))


def test_pages_have_the_documented_sizes() -> None:
    """50 if nothing is asked for, and never more than 1000."""
    assert (PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX) == (50, 1000)
