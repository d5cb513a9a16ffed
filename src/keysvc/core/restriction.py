"""Which changes are restrictive: those after which something may be refused that was accepted before.

A restrictive change must be known to everybody who answers before it may be called done. So a change counts as
restrictive unless it can be seen that it only adds. What is answered and not judged (owner, role, metadata) counts too:
services decide by it.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from keysvc.core.address import Network, parse_range
from keysvc.core.key import Key, Secret
from keysvc.core.scope import grants_cover
from keysvc.core.workspace import Workspace


def is_key_restricted(before: Key, after: Key) -> bool:
    """Whether a change of a key is restrictive."""
    return (
        _is_lost(before.owner, after.owner)
        or _is_lost(before.role, after.role)
        or not before.metadata.items() <= after.metadata.items()
        or not all(grants_cover(after.scopes, scope) for scope in before.scopes)
        or _is_narrowed(_ranges(before), _ranges(after))
        or _is_fewer(before.workspaces, after.workspaces)
        or _ends_earlier(before.expire_time, after.expire_time)
        or after.suspended > before.suspended
        or (before.revocation is None and after.revocation is not None)
        or any(_is_secret_restricted(secret, after.secret(secret.id)) for secret in before.secrets)
    )


def is_workspace_restricted(before: Workspace, after: Workspace) -> bool:
    """Whether a change of a workspace is restrictive for its keys."""
    return (
        after.suspended > before.suspended
        or _is_capped(before.allowed_scopes, after.allowed_scopes)
        or not all(_is_role_kept(after.roles, role, grants) for role, grants in before.roles.items())
    )


def _is_lost(before: str, after: str) -> bool:
    """Whether a text that was answered is no longer."""
    return bool(before) and after != before


def _is_secret_restricted(before: Secret, after: Secret | None) -> bool:
    """Whether a secret is gone, revoked or retires earlier."""
    return (
        after is None
        or (before.revocation is None and after.revocation is not None)
        or _ends_earlier(before.retire_time, after.retire_time)
    )


def _ends_earlier(before: datetime | None, after: datetime | None) -> bool:
    """Whether an end has come nearer; absent means never."""
    return after is not None and (before is None or after < before)


def _is_fewer(before: Collection[str], after: Collection[str]) -> bool:
    """Whether a list of what is admitted has lost something; an empty one admits all."""
    return bool(after) and (not before or not set(before) <= set(after))


def _is_capped(before: tuple[str, ...], after: tuple[str, ...]) -> bool:
    """Whether a cap allows less; an empty one allows all."""
    return bool(after) and (not before or not all(grants_cover(after, grant) for grant in before))


def _is_role_kept(roles: Mapping[str, tuple[str, ...]], role: str, grants: tuple[str, ...]) -> bool:
    """Whether a role still grants what it did."""
    return all(grants_cover(roles.get(role, ()), grant) for grant in grants)


def _ranges(key: Key) -> tuple[Network, ...]:
    return tuple(map(parse_range, key.ip_allowlist))


def _is_narrowed(before: tuple[Network, ...], after: tuple[Network, ...]) -> bool:
    """Whether a list of ranges admits fewer addresses; an empty one admits all."""
    if not after or after == before:
        return False
    return not before or not all(any(_is_within(narrow, wide) for wide in after) for narrow in before)


def _is_within(narrow: Network, wide: Network) -> bool:
    return narrow.version == wide.version and narrow.subnet_of(wide)  # type: ignore[arg-type] # of one version
