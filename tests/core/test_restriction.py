"""Restrictive or not: whoever was accepted before, and is told it only adds, is accepted afterwards."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keysvc.core.address import parse_address, parse_range
from keysvc.core.key import Key, Revocation, Secret
from keysvc.core.keystring import Environment, KeyString
from keysvc.core.restriction import is_key_restricted, is_workspace_restricted
from keysvc.core.revision import Revision
from keysvc.core.verdict import Presentation, Record, Verdict, judge
from keysvc.core.workspace import Workspace
from tests.records import record

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SOON, LATER = NOW + timedelta(hours=1), NOW + timedelta(days=1)
START = Revision(UUID(int=1), 0)
REVOCATION = Revocation(NOW, "lost")
OLD, NEW = Secret("old", "sk_live_1old", NOW, START), Secret("new", "sk_live_1new", NOW, START)
KEY = Key(
    id=UUID(int=2),
    workspace="acme-corp/sales",
    display_name="a key",
    environment=Environment.LIVE,
    creator="bootstrap",
    create_time=NOW,
    update_time=NOW,
    at=NOW,
    revision=START,
    secrets=(OLD,),
)
WORKSPACE = Workspace(UUID(int=3), "acme-corp/sales", NOW, NOW, START)

BOTH = [
    # field, less, more: from less to more only adds, back again is restrictive
    ("owner", {"owner": ""}, {"owner": "team"}),
    ("role", {"role": ""}, {"role": "viewer"}),
    ("metadata", {"metadata": {"a": "1"}}, {"metadata": {"a": "1", "b": "2"}}),
    ("scopes", {"scopes": ("pdf.read",)}, {"scopes": ("pdf.read", "pdf.write")}),
    ("scopes-by-pattern", {"scopes": ("pdf.read", "csv.read")}, {"scopes": ("*.read",)}),
    ("addresses", {"ip_allowlist": ("192.0.2.7",)}, {"ip_allowlist": ("192.0.2.0/24", "2001:db8::/32")}),
    ("all-addresses", {"ip_allowlist": ("192.0.2.7",)}, {"ip_allowlist": ()}),
    ("workspaces", {"workspaces": ("a/b",)}, {"workspaces": ("a/b", "a/c")}),
    ("all-workspaces", {"workspaces": ("a/b",)}, {"workspaces": ()}),
    ("expiry", {"expire_time": SOON}, {"expire_time": LATER}),
    ("no-expiry", {"expire_time": SOON}, {"expire_time": None}),
    ("suspended", {"suspended": True}, {"suspended": False}),
    ("revoked", {"revocation": REVOCATION}, {"revocation": None}),
    ("secrets", {"secrets": (OLD,)}, {"secrets": (OLD, NEW)}),
    ("retirement", {"secrets": (replace(OLD, retire_time=SOON),)}, {"secrets": (replace(OLD, retire_time=LATER),)}),
    ("no-retirement", {"secrets": (replace(OLD, retire_time=SOON),)}, {"secrets": (OLD,)}),
    ("revoked-secret", {"secrets": (replace(OLD, revocation=REVOCATION),)}, {"secrets": (OLD,)}),
]


@pytest.mark.parametrize(("less", "more"), [pytest.param(*each[1:], id=each[0]) for each in BOTH])
def test_less_is_restrictive_and_more_is_not(less: dict[str, Any], more: dict[str, Any]) -> None:
    """Each field that Verify judges or answers, in both directions."""
    narrow, wide = replace(KEY, **less), replace(KEY, **more)
    assert not is_key_restricted(narrow, wide)
    assert is_key_restricted(wide, narrow)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"owner": "a"}, {"owner": "b"}),
        ({"role": "viewer"}, {"role": "admin"}),
        ({"metadata": {"plan": "gold"}}, {"metadata": {"plan": "free"}}),
        ({"scopes": ("pdf.read",)}, {"scopes": ("csv.read",)}),
        ({"scopes": ("pdf.read",), "ip_allowlist": ()}, {"scopes": ("*",), "ip_allowlist": ("192.0.2.7",)}),
        ({"ip_allowlist": ("192.0.2.0/24",)}, {"ip_allowlist": ("2001:db8::/32",)}),
        ({"secrets": (OLD,)}, {"secrets": (replace(OLD, retire_time=SOON), NEW)}),
    ],
)
def test_to_narrow_and_widen_at_once_is_restrictive(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Also where something is only replaced: a service may go by what is gone."""
    assert is_key_restricted(replace(KEY, **before), replace(KEY, **after))


@pytest.mark.parametrize("field", ["display_name", "tags", "version"])
def test_what_verify_does_not_know_of_is_never_restrictive(field: str) -> None:
    """Names and tags restrict nobody."""
    values = {"display_name": "other", "tags": ("new",), "version": 9}
    changed = replace(KEY, **{field: values[field]})
    assert not is_key_restricted(KEY, changed)
    assert not is_key_restricted(changed, KEY)


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"suspended": True}, {"suspended": False}),
        ({"allowed_scopes": ("pdf.read",)}, {"allowed_scopes": ("pdf.*",)}),
        ({"allowed_scopes": ("pdf.read",)}, {"allowed_scopes": ()}),
        ({"roles": {}}, {"roles": {"clerk": ("pdf.read",)}}),
        ({"roles": {"clerk": ("pdf.read",)}}, {"roles": {"clerk": ("pdf.*",)}}),
    ],
)
def test_workspaces_in_both_directions(less: dict[str, Any], more: dict[str, Any]) -> None:
    """Suspension, cap and roles."""
    narrow, wide = replace(WORKSPACE, **less), replace(WORKSPACE, **more)
    assert not is_workspace_restricted(narrow, wide)
    assert is_workspace_restricted(wide, narrow)


def record_of(key: Key, secret: Secret) -> Record:
    """What Verify would know of a key."""
    return record(
        key_id=key.id,
        secret_id=secret.id,
        environment=key.environment,
        role=key.role,
        scopes=key.scopes,
        ip_allowlist=tuple(map(parse_range, key.ip_allowlist)),
        workspaces=key.workspaces,
        expire_time=key.expire_time,
        retire_time=secret.retire_time,
        revoked=bool(key.revocation or secret.revocation),
        suspended=key.suspended,
    )


times = st.sampled_from([None, NOW - timedelta(hours=1), SOON, LATER])
secrets = st.builds(
    lambda retire_time, revocation: replace(OLD, retire_time=retire_time, revocation=revocation),
    times,
    st.sampled_from([None, REVOCATION]),
)
keys = st.builds(
    lambda secret, **fields: replace(KEY, secrets=(secret,), **fields),
    secrets,
    owner=st.sampled_from(["", "a", "b"]),
    role=st.sampled_from(["", "viewer", "editor"]),
    metadata=st.dictionaries(st.sampled_from("ab"), st.sampled_from("12")),
    scopes=st.lists(st.sampled_from(["pdf.read", "pdf.*", "*.read", "*", "csv.write"]), max_size=2).map(tuple),
    ip_allowlist=st.lists(
        st.sampled_from(["192.0.2.7", "192.0.2.0/24", "2001:db8::1", "2001:db8::/32"]), max_size=2
    ).map(tuple),
    expire_time=times,
    suspended=st.booleans(),
    revocation=st.sampled_from([None, None, REVOCATION]),
)
presentations = st.builds(
    Presentation,
    key_string=st.just(KeyString("")),
    required_scopes=st.lists(st.sampled_from(["pdf.read", "csv.write", "read"]), max_size=2).map(tuple),
    source_ip=st.sampled_from([None, *map(parse_address, ("192.0.2.7", "192.0.2.8", "2001:db8::1", "203.0.113.1"))]),
)


changed = st.sets(
    st.sampled_from(["owner", "metadata", "scopes", "ip_allowlist", "expire_time", "secrets"]), max_size=2
)


@given(keys, keys, changed, presentations, st.sampled_from([NOW, SOON, LATER]))
def test_after_a_change_that_only_adds_nothing_is_refused_anew(
    before: Key, other: Key, changed: set[str], presentation: Presentation, at: datetime
) -> None:
    """If a change is not restrictive, whatever was VALID before is VALID after, with all that it said."""
    after = replace(before, **{name: getattr(other, name) for name in changed})
    assume(not is_key_restricted(before, after))
    was = record_of(before, before.secrets[0])
    is_now = record_of(after, after.secrets[0])
    if judge(was, presentation, at).verdict is Verdict.VALID:
        assert judge(is_now, presentation, at).verdict is Verdict.VALID
    assert before.owner in {"", after.owner}
    assert before.role in {"", after.role}
    assert before.metadata.items() <= after.metadata.items()
