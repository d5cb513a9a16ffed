"""What Verify knows of keys, made up by tests."""

from typing import Any
from uuid import UUID

from keysvc.core.address import pack_ranges
from keysvc.core.keystring import Environment
from keysvc.core.verdict import Profile, Record, WorkspaceRecord, refusal_of

KEY_ID = UUID(int=1)
HOME = WorkspaceRecord(UUID(int=2), "acme-corp/sales", suspended=False, caps=(), roles={}, changed_seq=0)


def record(**values: Any) -> Record:
    """A key that nothing speaks against, but for ``values``: of the record, or of its profile."""
    of_profile = {"home": HOME, "environment": Environment.LIVE, "role": "", "scopes": (), "workspaces": ()}
    profile = Profile(**{name: values.pop(name, value) for name, value in of_profile.items()})
    key_id = values.pop("key_id", KEY_ID).int
    state = {name: values.pop(name, False) for name in ("revoking", "revoked", "suspended")}
    ip_ranges = pack_ranges(values.pop("ip_allowlist", ()))
    return Record(
        profile,
        key_id,
        **({"secret_id": "065eoDiDgza8qaZ", "ip_ranges": ip_ranges, "refusal": refusal_of(**state)} | values),
    )
