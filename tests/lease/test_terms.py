"""The terms of leases."""

import re
import time
from typing import Any

import pytest

from keysvc.lease.terms import Terms, boottime


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("lease_seconds", 0.199, "0.2 to 600"),
        ("lease_seconds", 600.1, "0.2 to 600"),
        ("lease_seconds", float("nan"), "0.2 to 600"),
        ("renew_seconds", 0.009, "0.01 to 1"),
        ("renew_seconds", 1.001, "0.01 to 1"),
        ("stale_seconds", -0.1, "0 to 86400"),
        ("stale_seconds", 86_400.1, "0 to 86400"),
        ("clock_rate", 0.99, "1 to 10"),
        ("clock_rate", float("inf"), "1 to 10"),
        ("margin_seconds", -0.001, "0 to 60"),
        ("margin_seconds", 60.1, "0 to 60"),
    ],
)
def test_terms_that_cannot_be_kept_are_refused(name: str, value: float, allowed: str) -> None:
    """The parameter is named, and what is allowed."""
    with pytest.raises(ValueError, match=rf"^{name} must be {re.escape(allowed)}$"):
        Terms(**{name: value})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"lease_seconds": 0.2, "renew_seconds": 0.01},
        {"lease_seconds": 600, "renew_seconds": 200},
        {"stale_seconds": 86_400},
        {"clock_rate": 1, "margin_seconds": 0},
        {"clock_rate": 10, "margin_seconds": 60},
    ],
)
def test_terms_at_their_bounds_can_be_kept(values: dict[str, Any]) -> None:
    """The bounds are allowed."""
    terms = Terms(**values)
    assert terms.renew_seconds <= terms.renewal_limit_seconds


def test_there_is_time_for_two_attempts_before_a_lease_ends() -> None:
    """One that is given up, and another one."""
    terms = Terms()
    assert terms.renew_seconds + 2 * terms.renewal_limit_seconds < terms.lease_seconds


def test_a_lease_as_others_see_it_includes_the_time_after_it() -> None:
    """Every wait is for both; what cannot be said in milliseconds is rounded up."""
    terms = Terms(lease_seconds=3, stale_seconds=2.0004)
    assert terms.lease_ms == 5001
    assert terms.wait_seconds(5000) == pytest.approx(6.05)
    assert terms.collect_seconds(5000) == pytest.approx(18.15)


def test_others_wait_for_their_own_terms_and_the_row_s_lease() -> None:
    """A lease that is longer than one's own is waited for as long as it is."""
    assert Terms(lease_seconds=0.6, renew_seconds=0.1).wait_seconds(3000) == Terms().wait_seconds(3000)


def test_the_clock_of_leases_goes_on_and_never_back() -> None:
    """It is none of the wall's."""
    before, wall = boottime(), time.time()
    assert before <= boottime() < before + 60
    assert abs(before - wall) > 60
