import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysvc.core.audit import changed_fields, describe_key, describe_workspace, set_fields
from keysvc.core.key import Key, Revocation, Secret
from keysvc.core.keystring import Environment
from keysvc.core.revision import Revision
from keysvc.core.workspace import Workspace

AT = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)
START = Revision(UUID(int=2), 0)
REVOCATION = Revocation(AT, "leaked")
KEY = Key(
    id=UUID(int=1),
    workspace="acme-corp/sales",
    display_name="a key",
    environment=Environment.LIVE,
    creator="bootstrap",
    create_time=AT,
    update_time=AT,
    at=AT,
    revision=START,
    owner="team-a",
    scopes=("pdf.read",),
    role="viewer",
    ip_allowlist=("203.0.113.0/24",),
    metadata={"a": "b"},
    tags=("x",),
    workspaces=("acme-corp/sales",),
    expire_time=AT,
    secrets=(Secret("065eoDiDgza8qaZ", "sk_live_1065eoDi", AT, START),),
)
WORKSPACE = Workspace(
    id=UUID(int=1),
    name="acme-corp/sales",
    create_time=AT,
    update_time=AT,
    revision=START,
    display_name="Sales",
    allowed_scopes=("pdf.*",),
    roles={"clerk": ("pdf.read",)},
    default_ttl=timedelta(hours=1),
    max_ttl=timedelta(days=1),
    key_limit=7,
)

snapshots = st.dictionaries(st.sampled_from("abcde"), st.none() | st.booleans() | st.integers() | st.text())


def test_a_key_is_described_as_by_hand() -> None:
    """What auditors see of a key, in JSON values."""
    assert describe_key(KEY) == {
        "display_name": "a key",
        "environment": "live",
        "owner": "team-a",
        "scopes": ["pdf.read"],
        "role": "viewer",
        "ip_allowlist": ["203.0.113.0/24"],
        "metadata": {"a": "b"},
        "tags": ["x"],
        "workspaces": ["acme-corp/sales"],
        "expire_time": "2026-05-17T12:00:00+00:00",
        "suspended": False,
        "revocation": None,
        "secrets": [{"id": "065eoDiDgza8qaZ", "hint": "sk_live_1065eoDi", "retire_time": None, "revocation": None}],
    }


def test_a_workspace_is_described_as_by_hand() -> None:
    """What auditors see of a workspace, in JSON values."""
    assert describe_workspace(WORKSPACE) == {
        "display_name": "Sales",
        "suspended": False,
        "allowed_scopes": ["pdf.*"],
        "roles": {"clerk": ["pdf.read"]},
        "default_ttl_seconds": 3600.0,
        "max_ttl_seconds": 86400.0,
        "key_limit": 7,
    }
    bare = replace(WORKSPACE, default_ttl=None, max_ttl=None, key_limit=None)
    assert {describe_workspace(bare)[name] for name in ("default_ttl_seconds", "max_ttl_seconds", "key_limit")} == {
        None
    }


@pytest.mark.parametrize(
    ("value", "described", "told_elsewhere"),
    [
        (
            KEY,
            describe_key(KEY),
            {"id", "workspace", "creator", "create_time", "update_time", "at", "revision", "version", "usage_time"},
        ),
        (WORKSPACE, describe_workspace(WORKSPACE), {"id", "name", "create_time", "update_time", "revision", "version"}),
        (
            KEY.secrets[0],
            describe_key(KEY)["secrets"][0],
            {"create_time", "revision", "predecessor_retire_time", "usage_total", "last_used_time"},
        ),
    ],
    ids=["key", "workspace", "secret"],
)
def test_no_field_is_forgotten(value: object, described: dict[str, Any], told_elsewhere: set[str]) -> None:
    """A field that is added is described, or said here to be told by the event itself."""
    names = {name.removesuffix("_seconds") for name in described}
    assert names | told_elsewhere == {field.name for field in fields(value)}  # type: ignore[arg-type]
    assert names.isdisjoint(told_elsewhere)


def test_a_creation_is_told_by_what_was_given() -> None:
    """What is empty, absent or off says nothing of a new key or workspace, and everything else is told."""
    empty = {"a": None, "b": "", "c": [], "d": {}, "e": False}
    given = {"f": "x", "g": ["x"], "h": {"x": ""}, "i": True, "j": 1, "k": 0.5, "l": [None]}
    assert set_fields(empty | given) == given
    assert set_fields(describe_workspace(WORKSPACE)).keys() == describe_workspace(WORKSPACE).keys() - {"suspended"}
    assert set_fields(describe_key(KEY)).keys() == describe_key(KEY).keys() - {"suspended", "revocation"}


@pytest.mark.parametrize(
    ("change", "was", "is_now"),
    [
        ({"suspended": True}, {"suspended": False}, {"suspended": True}),
        ({"scopes": ()}, {"scopes": ["pdf.read"]}, {"scopes": []}),
        ({"expire_time": None}, {"expire_time": "2026-05-17T12:00:00+00:00"}, {"expire_time": None}),
        (
            {"revocation": REVOCATION},
            {"revocation": None},
            {"revocation": {"time": "2026-05-17T12:00:00+00:00", "reason": "leaked"}},
        ),
        (
            {"display_name": "b", "owner": ""},
            {"display_name": "a key", "owner": "team-a"},
            {"display_name": "b", "owner": ""},
        ),
        ({"version": 2, "update_time": AT + timedelta(1)}, {}, {}),
    ],
)
def test_an_event_tells_what_changed(change: dict[str, Any], was: dict[str, Any], is_now: dict[str, Any]) -> None:
    """Before and after of the fields that changed, and of no other."""
    assert changed_fields(describe_key(KEY), describe_key(replace(KEY, **change))) == (was, is_now)


def test_a_revoked_secret_is_told() -> None:
    """A change inside a list is a change: the whole list is told, before and after."""
    revoked = replace(KEY.secrets[0], revocation=REVOCATION)
    was, is_now = changed_fields(describe_key(KEY), describe_key(replace(KEY, secrets=(revoked,))))
    assert list(was) == list(is_now) == ["secrets"]
    assert was["secrets"][0]["revocation"] is None
    assert is_now["secrets"][0]["revocation"]["reason"] == "leaked"


def test_an_event_is_json() -> None:
    """It can be stored and sent as it is."""
    for described in (describe_key(replace(KEY, revocation=REVOCATION)), describe_workspace(WORKSPACE)):
        assert json.loads(json.dumps(described)) == described


def test_a_description_does_not_change_with_what_it_describes() -> None:
    """It is a copy: what is written later is what was true then."""
    metadata, roles = {"a": "b"}, {"clerk": ("pdf.read",)}
    key, workspace = describe_key(replace(KEY, metadata=metadata)), describe_workspace(replace(WORKSPACE, roles=roles))
    metadata["a"] = "c"
    roles.clear()
    assert key["metadata"] == {"a": "b"}
    assert workspace["roles"] == {"clerk": ["pdf.read"]}


@given(before=snapshots, data=st.data())
def test_what_differs_is_exactly_what_is_told(before: dict[str, Any], data: st.DataObject) -> None:
    """Applying the changes to the snapshot before gives the one after, and no field is told that stayed."""
    after = {name: data.draw(st.just(value) | st.none() | st.integers() | st.text()) for name, value in before.items()}
    was, is_now = changed_fields(before, after)
    assert before | is_now == after
    assert after | was == before
    assert list(was) == list(is_now)
    assert not [name for name in was if was[name] == is_now[name]]
