"""What Verify knows of keys, made up by tests."""

from typing import Any
from uuid import UUID

from keysvc.core.keystring import Environment
from keysvc.core.verdict import Record, WorkspaceRecord

KEY_ID = UUID(int=1)
HOME = WorkspaceRecord(UUID(int=2), "acme-corp/sales", suspended=False, caps=(), roles={}, changed_seq=0)


def record(**values: Any) -> Record:
    """A key that nothing speaks against, but for ``values``."""
    defaults: dict[str, Any] = {
        "key_id": KEY_ID,
        "secret_id": "065eoDiDgza8qaZ",
        "home": HOME,
        "environment": Environment.LIVE,
        "owner": "",
        "role": "",
        "scopes": (),
        "ip_allowlist": (),
        "metadata": {},
        "workspaces": (),
        "expire_time": None,
        "retire_time": None,
        "revoking": False,
        "revoked": False,
        "suspended": False,
        "changed_seq": 0,
    }
    return Record(**(defaults | values))
