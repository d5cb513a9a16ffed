from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from keysvc.core.key import Key, Revocation, Secret, State
from keysvc.core.keystring import Environment
from keysvc.core.revision import Revision

AT = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)
TICK = timedelta(microseconds=1)
START = Revision(UUID(int=2), 0)
REVOCATION = Revocation(AT, "leaked")
SECRET = Secret("065eoDiDgza8qaZ", "sk_live_1065eoDi", AT, START)


def key(**values: Any) -> Key:
    """A key, read at ``AT``."""
    defaults: dict[str, Any] = {
        "id": UUID(int=1),
        "workspace": "acme-corp/sales",
        "display_name": "a key",
        "environment": Environment.LIVE,
        "creator": "bootstrap",
        "create_time": AT,
        "update_time": AT,
        "at": AT,
        "revision": START,
    }
    return Key(**(defaults | values))


def test_states_are_in_the_documented_order() -> None:
    """Of several the first is shown."""
    assert list(State) == [State.REVOKED, State.REVOKING, State.SUSPENDED, State.EXPIRED, State.ACTIVE]


@pytest.mark.parametrize(("revoked", "suspended", "expired"), [*product([False, True], repeat=3)])
def test_the_first_state_that_applies_is_shown(revoked: bool, suspended: bool, expired: bool) -> None:
    """REVOKED before SUSPENDED before EXPIRED before ACTIVE, for every combination."""
    expected = (
        State.REVOKED if revoked else State.SUSPENDED if suspended else State.EXPIRED if expired else State.ACTIVE
    )
    shown = key(
        revocation=REVOCATION if revoked else None,
        suspended=suspended,
        expire_time=AT - TICK if expired else AT + TICK,
    )
    assert shown.state is expected


@pytest.mark.parametrize(
    ("end", "expected"),
    [(AT - TICK, State.EXPIRED), (AT, State.EXPIRED), (AT + TICK, State.ACTIVE), (None, State.ACTIVE)],
    ids=["over", "exactly now", "in the next moment", "never"],
)
def test_the_end_itself_is_expired(end: datetime | None, expected: State) -> None:
    """From its expire_time on a key is EXPIRED, from its retire_time on a secret; absent means never."""
    assert key(expire_time=end).state is expected
    assert Secret(SECRET.id, SECRET.hint, AT, START, retire_time=end).state(AT) is expected


def test_a_revoked_secret_is_revoked_before_it_is_expired() -> None:
    """The reason that somebody gave is shown, not the calendar's."""
    assert Secret(SECRET.id, SECRET.hint, AT, START, AT - TICK, REVOCATION).state(AT) is State.REVOKED


def test_a_revocation_without_a_reason_is_one() -> None:
    """The reason may be empty."""
    assert key(revocation=Revocation(AT, "")).state is State.REVOKED


def test_a_key_without_living_secret_is_active() -> None:
    """Revoking the last secret does not change the key's own state."""
    assert key(secrets=(Secret(SECRET.id, SECRET.hint, AT, START, revocation=REVOCATION),)).state is State.ACTIVE


def test_a_secret_is_found_by_its_id() -> None:
    """Among the key's own secrets, and no others."""
    other = Secret("165eoDiDgza8qaZ", "sk_live_1165eoDi", AT, START)
    assert key(secrets=(SECRET, other)).secret(other.id) is other
    assert key(secrets=(SECRET, other)).secret("265eoDiDgza8qaZ") is None
    assert key().secret(SECRET.id) is None


@pytest.mark.parametrize(("workspace", "expected"), [("keysvc/system", True), ("acme-corp/sales", False)])
def test_a_caller_key_is_one_of_the_reserved_workspace(workspace: str, expected: bool) -> None:
    """Only keys of `keysvc/system` authenticate callers."""
    assert key(workspace=workspace).is_caller is expected
