"""Workspaces: the tenants that keys are bound to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from keysvc.core.revision import Revision
from keysvc.core.scope import BUILT_IN_ROLES, SCOPE_CHARACTERS_MAX, parse_scope

SYSTEM_WORKSPACE: Final = "keysvc/system"
"""The reserved workspace whose keys are the callers of keysvc itself."""

ROLES_MAX: Final = 100
KEY_LIMIT_MAX: Final = 1_000_000
TTL_MAX: Final = timedelta(days=36_500)

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ALLOWED = "two words of 1 to 63 lower-case letters, digits and inner hyphens"


def parse_workspace_name(text: str) -> str:
    """Return ``text`` if it is ``organization/workspace``, else raise ``ValueError`` saying what is allowed."""
    words = text.split("/")
    if len(words) != 2 or not all(map(_NAME.fullmatch, words)):  # noqa: PLR2004 (two words, as it says)
        raise ValueError(f"must be organization/workspace such as acme-corp/sales: {_ALLOWED}")
    return text


def parse_organization(text: str) -> str:
    """Return ``text`` if it can be the first word of a workspace name, else raise ``ValueError``."""
    if not _NAME.fullmatch(text):
        raise ValueError("must be 1 to 63 lower-case letters, digits and inner hyphens")
    return text


def parse_new_workspace_name(text: str) -> str:
    """As ``parse_workspace_name``, for a workspace to be created: the organization ``keysvc`` is reserved."""
    if parse_workspace_name(text).startswith("keysvc/"):
        raise ValueError("must not be of the organization keysvc, which is reserved")
    return text


def parse_role(text: str) -> str:
    """Return ``text`` if it can be the name of a role, else raise ``ValueError`` saying what is allowed."""
    try:
        return parse_scope(text)
    except ValueError:
        raise ValueError(f"must be a lower-case word, at most {SCOPE_CHARACTERS_MAX} characters") from None


def parse_new_role(text: str) -> str:
    """As ``parse_role``, for a workspace's own role: the names of built-in roles are taken."""
    if text in BUILT_IN_ROLES:
        raise ValueError(f"must not be one of the built-in roles {', '.join(BUILT_IN_ROLES)}")
    return parse_role(text)


@dataclass(frozen=True, slots=True)
class Workspace:
    """A tenant, as it stands at one revision.

    Parameters:
        allowed_scopes: the cap of all its keys; empty: everything.
        roles: its own roles, besides the built-in ones.
        default_ttl, max_ttl: lifetime of keys created without expiry, and the longest one; None: unlimited.
        key_limit: how many keys that are not revoked it may have; None: unlimited.
        version: counts changes; the etag.
        revision: of the last change that Verify's answers depend on; that with seq 0: none since creation.
    """

    id: UUID
    name: str
    create_time: datetime
    update_time: datetime
    revision: Revision
    display_name: str = ""
    suspended: bool = False
    allowed_scopes: tuple[str, ...] = ()
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default_ttl: timedelta | None = None
    max_ttl: timedelta | None = None
    key_limit: int | None = None
    version: int = 1

    @property
    def is_system(self) -> bool:
        """Whether its keys are the callers of keysvc itself."""
        return self.name == SYSTEM_WORKSPACE

    def expiry(self, expire_time: datetime | None, ttl: timedelta | None, at: datetime) -> datetime | None:
        """When a key created at ``at`` ends; raise ``ValueError`` saying what is allowed.

        Parameters:
            expire_time, ttl: what was asked for, at most one of them.
            at: time of creation, by the database's clock.
        """
        if expire_time is None:
            lifetime = ttl or self.default_ttl or self.max_ttl
            if lifetime is None:
                return None
            expire_time = at + lifetime
        self.check_expiry(expire_time, at)
        return expire_time

    def check_expiry(self, expire_time: datetime | None, at: datetime) -> None:
        """Raise ``ValueError``, saying what is allowed, unless a key may be given this end at ``at``."""
        if expire_time is not None and expire_time <= at:
            raise ValueError("must be in the future")
        if self.max_ttl and (expire_time is None or expire_time > at + self.max_ttl):
            raise ValueError(f"must be at most {span_text(self.max_ttl)} from now: the workspace's max_ttl")


def span_text(span: timedelta) -> str:
    """A span of time for people, such as ``90 days`` or ``3600 seconds``."""
    seconds = span.total_seconds()
    return f"{span.days} days" if span == timedelta(days=span.days) else f"{seconds:.15g} seconds"


VERIFY_DEPENDS_ON: Final = ("suspended", "allowed_scopes", "roles")
"""Fields that Verify judges or answers: a change of one goes through the log of changes."""
