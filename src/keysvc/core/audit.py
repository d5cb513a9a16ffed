"""Audit: who changed what, when, from where and why."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from keysvc.core.key import Key, Revocation
from keysvc.core.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an audit event says of the call that made the change; known before the change is tried.

    Parameters:
        event_id: a new UUID. A change that is tried again after a lost connection carries the same one: that is how
            the second try learns that the first was committed.
        actor: the caller: its key id, ``tls:`` and the name of its certificate, or ``bootstrap``.
        method: the RPC, such as ``keysvc.v1.KeyService/Revoke``.
        request_id: the call's ``x-request-id``.
        source_ip: address of the caller; empty: not from the network.
        reason: what the caller gave; may be empty.
    """

    event_id: UUID
    actor: str
    method: str
    request_id: str
    source_ip: str
    reason: str


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One change, written in the same transaction.

    Parameters:
        before, after: the fields that changed, as JSON values; ``before`` is None for a creation.
        seq: the revision of the change; None where Verify's answers do not depend on it.
    """

    stamp: Stamp
    time: datetime
    workspace: str
    key_id: UUID | None
    secret_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any]
    seq: int | None


def set_fields(snapshot: dict[str, Any]) -> dict[str, Any]:
    """What of a snapshot says anything: a creation is told by the fields that were given."""
    return {name: value for name, value in snapshot.items() if value not in (None, "", [], {}) and value is not False}


def changed_fields(before: dict[str, Any], after: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Only what differs between two snapshots with the same fields."""
    names = [name for name in after if before[name] != after[name]]
    return {name: before[name] for name in names}, {name: after[name] for name in names}


def describe_workspace(workspace: Workspace) -> dict[str, Any]:
    """The fields of a workspace that audit events tell, as JSON values."""
    return {
        "display_name": workspace.display_name,
        "suspended": workspace.suspended,
        "allowed_scopes": list(workspace.allowed_scopes),
        "roles": {role: list(grants) for role, grants in workspace.roles.items()},
        "default_ttl_seconds": _seconds(workspace.default_ttl),
        "max_ttl_seconds": _seconds(workspace.max_ttl),
        "key_limit": workspace.key_limit,
    }


def describe_key(key: Key) -> dict[str, Any]:
    """The fields of a key and its secrets that audit events tell, as JSON values. Nothing in it proves a secret."""
    return {
        "display_name": key.display_name,
        "environment": str(key.environment),
        "owner": key.owner,
        "scopes": list(key.scopes),
        "role": key.role,
        "ip_allowlist": list(key.ip_allowlist),
        "metadata": dict(key.metadata),
        "tags": list(key.tags),
        "workspaces": list(key.workspaces),
        "expire_time": _time(key.expire_time),
        "suspended": key.suspended,
        "revocation": _revocation(key.revocation),
        "secrets": [
            {
                "id": secret.id,
                "hint": secret.hint,
                "retire_time": _time(secret.retire_time),
                "revocation": _revocation(secret.revocation),
            }
            for secret in key.secrets
        ],
    }


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _revocation(revocation: Revocation | None) -> dict[str, Any] | None:
    return None if revocation is None else {"time": _time(revocation.time), "reason": revocation.reason}
