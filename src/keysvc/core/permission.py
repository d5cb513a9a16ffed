"""Permissions: what a caller of keysvc may do. A caller key carries them as its scopes."""

from enum import StrEnum


class Permission(StrEnum):
    """One permission; ``operator`` includes all others."""

    KEYS_READ = "keys.read"
    KEYS_WRITE = "keys.write"
    KEYS_REVOKE = "keys.revoke"
    VERIFY = "verify"
    USAGE_WRITE = "usage.write"
    USAGE_READ = "usage.read"
    AUDIT_READ = "audit.read"
    WORKSPACES_WRITE = "workspaces.write"
    OPERATOR = "operator"
