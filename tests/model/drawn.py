"""What the calls of the machine are made of: everything that matters, and little that does not."""

from typing import Final

from hypothesis import strategies as st

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


numbers = st.integers(0, 11)
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
changed_key_fields = st.fixed_dictionaries(
    {}, optional=key_fields | {"expire_time": st.sampled_from((None, FAR, 30 * DAY))}
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
