"""What the calls of the machine are made of: everything that matters, and little that does not."""

from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.model.model import SECOND

DAY: Final = 86_400 * SECOND
FAR: Final = 4_000_000_000 * SECOND

SCOPES: Final = ("pdf.read", "pdf.write", "pdf.*", "*.read", "csv.read", "*")
PLAIN_SCOPES: Final = [
    ".".join(words)
    for words in (
        *((a,) for a in ("pdf", "csv", "read", "write")),
        *((a, b) for a in ("pdf", "csv", "x") for b in ("read", "write", "x")),
        *(("pdf", "x", "read"), ("x", "pdf", "read"), ("pdf", "read", "x"), ("csv", "x", "write")),
    )
]
"""Enough of them to tell the grants above and what capping makes of them from each other."""


numbers = st.integers(0, 23)
optional_spans = st.sampled_from((None, None, DAY, 100 * DAY))
reasons = st.sampled_from(("", "leaked", "a change"))
etags = st.sampled_from(("none", "none", "right", "wrong"))
role_sets = st.sampled_from(
    ({}, {}, {"clerk": ["pdf.read", "csv.*"]}, {"clerk": ["pdf.write"], "boss": ["*"]}, {"clerk": ["pdf.read"]})
)
caps = st.sampled_from(([], [], ["pdf.*"], ["*.read", "csv.write"], ["pdf.read"], ["PDF"]))
addresses = st.sampled_from(
    ([], [], ["203.0.113.0/24"], ["203.0.113.7", "2001:db8::/32"], ["::ffff:198.51.100.0/120"], ["127.0.0.0/8"])
)
sources = st.sampled_from(
    ("", "203.0.113.7", "203.0.114.1", "2001:db8::1", "::ffff:203.0.113.7", "198.51.100.9", "127.0.0.1")
)
key_fields: Final = {
    "display_name": st.sampled_from(("a key", "another", "a_b%", "a_b%", "")),
    "owner": st.sampled_from(("", "team-a", "team-b")),
    "scopes": st.lists(st.sampled_from((*SCOPES, *SCOPES, "PDF")), max_size=3),
    "role": st.sampled_from(("", "", "viewer", "editor", "admin", "clerk", "boss")),
    "ip_allowlist": addresses,
    "metadata": st.sampled_from(({}, {"plan": "gold"}, {"a": "b", "c": ""})),
    "tags": st.sampled_from(([], ["x"], ["x", "y"], ["y", "x"], [""])),
}
workspace_fields: Final = {
    "display_name": st.sampled_from(("", "Sales")),
    "allowed_scopes": caps,
    "roles": role_sets,
    "default_ttl": optional_spans,
    "max_ttl": optional_spans,
    "key_limit": st.sampled_from((None, None, 0, 2, 4, -1)),
}
good_workspaces = st.fixed_dictionaries(
    workspace_fields
    | {
        "allowed_scopes": st.sampled_from(([], ["pdf.*"], ["*.read", "csv.write"])),
        "key_limit": st.sampled_from((None, None, 3)),
        "default_ttl": st.sampled_from((None, None, 10 * DAY)),
    }
)
good_key_fields: Final = key_fields | {
    "display_name": st.sampled_from(("a key", "a_b%")),
    "scopes": st.sampled_from(([], ["pdf.read"], ["pdf.read", "pdf.*"])),
    "role": st.sampled_from(("", "", "viewer")),
    "tags": st.sampled_from(([], ["x", "y"])),
}
good_keys = st.fixed_dictionaries(good_key_fields)
_ends: Final = {"expire_time": st.sampled_from((None, FAR, 30 * DAY))}
changed_key_fields = st.one_of(
    st.fixed_dictionaries({}, optional=good_key_fields),
    st.fixed_dictionaries({}, optional=good_key_fields | _ends),
    st.fixed_dictionaries({}, optional=key_fields | _ends),
).filter(bool)
changed_workspace_fields = st.fixed_dictionaries({}, optional=workspace_fields).filter(bool)
presentations = st.fixed_dictionaries(
    {
        "secret": numbers,
        "workspace": st.sampled_from(("", "", "own", "own", "other", "no/such")),
        "environment": st.sampled_from((0, 0, 1, 2)),
        "required_scopes": st.lists(st.sampled_from(PLAIN_SCOPES[:13]), max_size=3),
        "source_ip": sources,
    }
)


def a_call(name: str, /, **arguments: SearchStrategy[Any]) -> SearchStrategy[tuple[str, dict[str, Any]]]:
    """A method of the machine, and what it is called with; ``n`` chooses a caller, ``k`` a key."""
    return st.tuples(st.just(name), st.fixed_dictionaries(arguments))


_update_key = a_call("update_key", n=numbers, k=numbers, asked=changed_key_fields, etag=etags, reason=reasons)
_rotate = a_call(
    "rotate",
    n=numbers,
    k=numbers,
    overlap=st.sampled_from((None, None, 0, 7 * DAY, 30 * DAY, 31 * DAY)),
    reason=reasons,
)
_suspend_key = a_call("suspend_or_resume_key", n=numbers, k=numbers, suspended=st.booleans(), reason=reasons)
_revoke = a_call("revoke", n=numbers, k=numbers, s=st.sampled_from((None, None, 0, 1, 2, "foreign")), reason=reasons)
_verify = a_call("verify", n=numbers, drawn=presentations, is_sure=st.booleans())
_CALLS: Final = (
    a_call("get", n=numbers, k=numbers),
    a_call(
        "create_key",
        n=numbers,
        workspace=st.integers(0, 3),
        environment=st.sampled_from((1, 2)),
        fields=st.one_of(good_keys, st.fixed_dictionaries(key_fields)),
        expiry=st.sampled_from(("none", "none", "none", "time", "ttl", "past")),
        has_workspaces=st.sampled_from((False,) * 9 + (True,)),
        reason=reasons,
    ),
    a_call(
        "create_caller",
        n=numbers,
        scopes=st.sampled_from((["operator"], ["operator"], ["*"], ["keys.read", "verify"], ["keys.write", "pdf.*"])),
        workspaces=st.sampled_from(([], [], ["first"])),
        reason=reasons,
    ),
    a_call("repeat_create", n=numbers),
    *[_update_key] * 3,
    *[_rotate] * 2,
    a_call(
        "rotate_twice",
        k=numbers,
        first=st.sampled_from((DAY, 20 * DAY)),
        second=st.sampled_from((10 * DAY, 30 * DAY)),
        is_cancelled=st.booleans(),
    ),
    a_call("cancel_rotation", n=numbers, k=numbers, reason=reasons),
    *[_suspend_key] * 2,
    *[_revoke] * 2,
    *[_verify] * 2,
    a_call("verify_batch", n=numbers, drawn=st.lists(presentations, min_size=1, max_size=5)),
    a_call(
        "create_workspace",
        n=numbers,
        name=st.integers(0, 2),
        asked=st.fixed_dictionaries(workspace_fields),
        reason=reasons,
    ),
    a_call(
        "update_workspace",
        n=numbers,
        name=st.sampled_from((0, 0, 1, 1, 2, 3)),
        asked=changed_workspace_fields,
        etag=etags,
        reason=reasons,
    ),
    a_call(
        "suspend_or_resume_workspace",
        n=numbers,
        name=st.sampled_from((0, 0, 1, 1, 2, 3)),
        suspended=st.booleans(),
        reason=reasons,
    ),
    a_call(
        "list_keys",
        n=numbers,
        workspace=st.integers(0, 3),
        page_size=st.integers(1, 3),
        asked=st.fixed_dictionaries(
            {},
            optional={
                "state": st.sampled_from(("ACTIVE", "SUSPENDED", "REVOKED", "EXPIRED", "REVOKING")),
                "environment": st.sampled_from((1, 2)),
                "owner": st.sampled_from(("team-a", "team-b", "nobody")),
                "tag": st.sampled_from(("x", "y", "z")),
                "role": st.sampled_from(("viewer", "clerk")),
                "hint": numbers,
                "display_name_prefix": st.sampled_from(("a", "a_", "a_b%", "%")),
                "expire_before": st.sampled_from((SECOND, FAR, FAR + SECOND)),
            },
        ),
    ),
    a_call("read_workspaces", n=numbers, name=st.integers(0, 2), page_size=st.integers(1, 2)),
    a_call(
        "list_events",
        n=numbers,
        workspace=st.integers(0, 2),
        by=st.sampled_from(("", "key", "actor", "method")),
        k=numbers,
    ),
)
calls = st.integers(0, len(_CALLS) - 1).flatmap(_CALLS.__getitem__)
"""As often as they stand above; one_of would take each once."""
