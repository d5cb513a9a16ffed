from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysvc.core.revision import Revision
from keysvc.core.scope import capped, granted
from keysvc.core.workspace import (
    SYSTEM_WORKSPACE,
    TTL_MAX,
    VERIFY_DEPENDS_ON,
    Workspace,
    parse_new_role,
    parse_new_workspace_name,
    parse_organization,
    parse_role,
    parse_workspace_name,
    span_text,
)

AT = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
END_OF_TIME = datetime.max.replace(tzinfo=UTC)

BAD_WORDS = [
    *("", " ", "-", "-a", "a-", "A", "a_b", "a.b", "a b", "a\n", "\na", "a\0", "é", "\u0661", "\uff41", "a:b", "*"),
    *("a" * 64, "a" * 10**6),
]
GOOD_WORDS = ["a", "0", "acme-corp", "a--b", "1-2", "a" * 63, f"{'a' * 61}-b"]


def workspace(name: str = "acme-corp/sales", **values: Any) -> Workspace:
    """A workspace."""
    return Workspace(UUID(int=1), name, AT, AT, Revision(UUID(int=2), 0), **values)


@pytest.mark.parametrize("word", GOOD_WORDS)
def test_a_name_is_two_words(word: str) -> None:
    """Lower-case letters, digits and inner hyphens, 1 to 63 of them, on both sides of the slash."""
    for name in (f"{word}/sales", f"acme/{word}", f"{word}/{word}"):
        assert parse_workspace_name(name) == parse_new_workspace_name(name) == name
    assert parse_organization(word) == word


@pytest.mark.parametrize("word", BAD_WORDS, ids=lambda word: f"{len(word)} {word[:9]!a}")
def test_a_bad_word_on_either_side_is_refused(word: str) -> None:
    """Names are not repaired: case, blanks, outer hyphens, other scripts and longer words are refused."""
    for name in (f"{word}/sales", f"acme/{word}"):
        for parse in (parse_workspace_name, parse_new_workspace_name):
            with pytest.raises(
                ValueError, match=r"^must be organization/workspace such as acme-corp/sales: "
            ) as refused:
                parse(name)
            assert len(str(refused.value)) < 150
    with pytest.raises(ValueError, match=r"^must be 1 to 63 lower-case letters, digits and inner hyphens$"):
        parse_organization(word)


@pytest.mark.parametrize(
    "name",
    ["", "/", "acme", "acme/", "/sales", "a/b/c", "a//b", "/a/b", "a/b/", "a/" * 10**6],
    ids=lambda name: name[:9],
)
def test_a_name_has_exactly_one_slash(name: str) -> None:
    """One word, or three, is no name."""
    with pytest.raises(ValueError, match="must be organization/workspace"):
        parse_workspace_name(name)


def test_the_reserved_organization_cannot_be_used_for_new_workspaces() -> None:
    """Nobody can create what could be taken for a part of keysvc; names that only begin alike are free."""
    assert parse_workspace_name(SYSTEM_WORKSPACE) == "keysvc/system"
    for name in (SYSTEM_WORKSPACE, "keysvc/other"):
        with pytest.raises(ValueError, match="reserved"):
            parse_new_workspace_name(name)
    for name in ("keysvc-inc/system", "acme/keysvc", "keysv/c"):
        assert parse_new_workspace_name(name) == name
    assert workspace(SYSTEM_WORKSPACE).is_system
    assert not workspace("keysvc-inc/system").is_system


@pytest.mark.parametrize("role", ["clerk", "pdf.clerk", "a" * 64])
def test_a_role_is_named_like_a_scope(role: str) -> None:
    """A name of a role is a word."""
    assert parse_role(role) == parse_new_role(role) == role


@pytest.mark.parametrize("role", ["", "*", "Clerk", "a b", "clerk\n", "pdf.*", "a" * 65], ids=ascii)
def test_a_bad_name_of_a_role_is_refused(role: str) -> None:
    """A pattern or a sentence is no name, and the error is about roles."""
    for parse in (parse_role, parse_new_role):
        with pytest.raises(ValueError, match="must be a lower-case word, at most 64 characters"):
            parse(role)


@pytest.mark.parametrize("role", ["viewer", "editor", "admin"])
def test_a_built_in_role_cannot_be_defined_again(role: str) -> None:
    """A built-in role means the same everywhere; keys may have it, workspaces may not change it."""
    assert parse_role(role) == role
    with pytest.raises(ValueError, match="built-in roles viewer, editor, admin"):
        parse_new_role(role)


@pytest.mark.parametrize(
    ("settings", "role", "scopes", "expected"),
    [
        ({}, "", (), ()),
        ({}, "", ("pdf.read",), ("pdf.read",)),
        ({}, "viewer", ("pdf.write",), ("*.read", "pdf.write", "read")),
        ({}, "admin", ("pdf.write",), ("*",)),
        ({}, "gone", ("pdf.write",), ("pdf.write",)),
        ({"roles": {"clerk": ("pdf.*",)}}, "clerk", ("pdf.read",), ("pdf.*",)),
        ({"allowed_scopes": ("pdf.*",)}, "viewer", (), ("pdf.*.read",)),
        ({"allowed_scopes": ("pdf.*",)}, "admin", (), ("pdf.*",)),
        ({"allowed_scopes": ("pdf.read",)}, "editor", ("image.read",), ("pdf.read",)),
        ({"allowed_scopes": ("image.*",), "roles": {"clerk": ("pdf.*",)}}, "clerk", ("pdf.read",), ()),
    ],
)
def test_a_key_is_granted_role_and_scopes_within_the_cap(
    settings: dict[str, Any], role: str, scopes: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    """Role and scopes together, never more than the workspace allows; a role that is gone grants nothing."""
    home = workspace(**settings)
    assert capped(granted(role, scopes, home.roles), home.allowed_scopes) == expected


@pytest.mark.parametrize(
    ("settings", "expire_time", "ttl", "expected"),
    [
        pytest.param({}, None, None, None, id="nothing asked, nothing set: never"),
        pytest.param({}, AT + DAY, None, AT + DAY, id="expire_time"),
        pytest.param({}, None, 3 * DAY, AT + 3 * DAY, id="ttl"),
        pytest.param({}, AT + TICK, None, AT + TICK, id="the next moment"),
        pytest.param({}, END_OF_TIME, None, END_OF_TIME, id="the last moment"),
        pytest.param({"default_ttl": DAY}, None, None, AT + DAY, id="the default"),
        pytest.param({"max_ttl": DAY}, None, None, AT + DAY, id="the maximum is the default"),
        pytest.param({"default_ttl": DAY, "max_ttl": 2 * DAY}, None, None, AT + DAY, id="default before maximum"),
        pytest.param({"default_ttl": DAY}, None, 3 * DAY, AT + 3 * DAY, id="ttl before default"),
        pytest.param({"default_ttl": DAY}, AT + 3 * DAY, None, AT + 3 * DAY, id="expire_time before default"),
        pytest.param({"max_ttl": DAY}, AT + DAY, None, AT + DAY, id="expire_time exactly at the maximum"),
        pytest.param({"max_ttl": DAY}, None, DAY, AT + DAY, id="ttl exactly the maximum"),
    ],
)
def test_a_key_ends_when_it_was_asked_to_or_as_the_workspace_has_it(
    settings: dict[str, Any], expire_time: datetime | None, ttl: timedelta | None, expected: datetime | None
) -> None:
    """What was asked for, else default_ttl, else max_ttl, else never."""
    assert workspace(**settings).expiry(expire_time, ttl, AT) == expected


@pytest.mark.parametrize(
    ("settings", "expire_time", "ttl", "message"),
    [
        ({}, AT, None, "must be in the future"),
        ({}, AT - TICK, None, "must be in the future"),
        ({}, datetime.min.replace(tzinfo=UTC), None, "must be in the future"),
        ({"max_ttl": DAY}, AT - DAY, None, "must be in the future"),
        ({"max_ttl": DAY}, AT + DAY + TICK, None, "max_ttl"),
        ({"max_ttl": DAY}, None, DAY + TICK, "max_ttl"),
        ({"max_ttl": DAY, "default_ttl": 2 * DAY}, None, None, "max_ttl"),
        ({"max_ttl": DAY}, END_OF_TIME, None, "max_ttl"),
        ({"max_ttl": DAY}, None, TTL_MAX, "max_ttl"),
    ],
)
def test_an_end_that_cannot_be_is_refused(
    settings: dict[str, Any], expire_time: datetime | None, ttl: timedelta | None, message: str
) -> None:
    """The past, the present and more than the workspace allows are bad fields."""
    with pytest.raises(ValueError, match=message):
        workspace(**settings).expiry(expire_time, ttl, AT)


spans = st.timedeltas(min_value=timedelta(milliseconds=1), max_value=TTL_MAX)


@given(
    default_ttl=st.none() | spans,
    max_ttl=st.none() | spans,
    ttl=st.none() | spans,
    expire_time=st.none() | st.datetimes(),
)
def test_no_key_outlives_the_maximum(
    default_ttl: timedelta | None, max_ttl: timedelta | None, ttl: timedelta | None, expire_time: datetime | None
) -> None:
    """Whatever is asked for and set: the end is in the future and within max_ttl, or refused; nothing overflows."""
    end = expire_time.replace(tzinfo=UTC) if expire_time and ttl is None else None
    try:
        expiry = workspace(default_ttl=default_ttl, max_ttl=max_ttl).expiry(end, ttl, AT)
    except ValueError:
        return
    assert expiry is not None or max_ttl is default_ttl is ttl is end is None
    assert expiry is None or expiry > AT
    assert expiry is None or max_ttl is None or expiry - AT <= max_ttl


@pytest.mark.parametrize("day", [date(1970, 1, 1), date(2026, 5, 17), date(9899, 1, 1)], ids=str)
def test_the_longest_lifetime_fits_into_the_calendar(day: date) -> None:
    """100 years, asked for or set, end before the year 10000 for a long time to come."""
    at = datetime(day.year, day.month, day.day, tzinfo=UTC)
    assert timedelta(days=36_500) == TTL_MAX
    assert workspace(max_ttl=TTL_MAX).expiry(None, TTL_MAX, at) == at + TTL_MAX
    assert workspace(max_ttl=TTL_MAX, default_ttl=DAY).expiry(None, None, at) == at + DAY
    assert workspace(default_ttl=TTL_MAX).expiry(None, None, at) == at + TTL_MAX


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (DAY, "1 days"),
        (90 * DAY, "90 days"),
        (timedelta(hours=1), "3600 seconds"),
        (timedelta(seconds=1.5), "1.5 seconds"),
    ],
)
def test_a_span_of_time_is_told_in_words(span: timedelta, text: str) -> None:
    """Whole days as days, everything else in seconds, in the error as elsewhere."""
    assert span_text(span) == text
    with pytest.raises(ValueError, match=f"^must be at most {text} from now: the workspace's max_ttl$"):
        workspace(max_ttl=span).expiry(None, span + TICK, AT)


def test_what_verify_depends_on_is_named_as_in_the_workspace() -> None:
    """A change of whatever judge or grants read takes a revision; a field that was renamed would be forgotten."""
    assert {"suspended", "allowed_scopes", "roles"} == set(VERIFY_DEPENDS_ON)
    assert set(VERIFY_DEPENDS_ON) <= {field.name for field in fields(Workspace)}
