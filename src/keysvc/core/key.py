"""Keys and their secrets: where they are in their life and what may happen next."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from keysvc.core.keystring import Environment
from keysvc.core.revision import Revision
from keysvc.core.workspace import SYSTEM_WORKSPACE

DISPLAY_NAME_CHARACTERS_MAX: Final = 128
OWNER_CHARACTERS_MAX: Final = 128
REASON_CHARACTERS_MAX: Final = 512
TAG_CHARACTERS_MAX: Final = 64
TAGS_MAX: Final = 32
METADATA_BYTES_MAX: Final = 4096
WORKSPACES_MAX: Final = 100


class State(StrEnum):
    """Where a key or one secret is in its life; the first that applies is shown. EXPIRED is derived, never stored."""

    REVOKED = "revoked"
    REVOKING = "revoking"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Revocation:
    """When and why something was revoked.

    Parameters:
        final: nobody can still answer as if it were not; until then the state is REVOKING. Both are for ever.
        revision: of the revocation; None: it is being made.
    """

    time: datetime
    reason: str
    final: bool = True
    revision: Revision | None = None

    @property
    def state(self) -> State:
        """REVOKED, or REVOKING."""
        return State.REVOKED if self.final else State.REVOKING

    def with_final(self, revision: Revision) -> "Revocation":
        """The revocation after everybody knows the change with this revision."""
        return replace(self, final=True) if self.revision == revision else self


@dataclass(frozen=True, slots=True)
class SealedCopy:
    """A key string that only a request id opens, together with a pepper: that with the fingerprint ``pepper``."""

    pepper: bytes
    text: bytes


@dataclass(frozen=True, slots=True)
class MintedFor:
    """Which secret a request id made.

    Parameters:
        body_digest: of everything else that was asked for.
        sealed: its key string; None when the time of repeats is over.
    """

    key_id: UUID
    secret_id: str
    body_digest: bytes
    sealed: SealedCopy | None


@dataclass(frozen=True, slots=True)
class Secret:
    """One credential of a key, without anything that proves it.

    Parameters:
        revision: of its last change; that with seq 0: none since creation.
        predecessor_retire_time: when the secret that it was rotated in for would have retired without it.
        usage_total: how often Verify judged it.
        last_used_time: when Verify last accepted it.
    """

    id: str
    hint: str
    create_time: datetime
    revision: Revision
    retire_time: datetime | None = None
    revocation: Revocation | None = None
    predecessor_retire_time: datetime | None = None
    usage_total: int = 0
    last_used_time: datetime | None = None

    def state(self, at: datetime) -> State:
        """Its state at a time of the database's clock."""
        if self.revocation:
            return self.revocation.state
        if self.retire_time and self.retire_time <= at:
            return State.EXPIRED
        return State.ACTIVE


@dataclass(frozen=True, slots=True)
class Key:
    """A standing permission of one workspace.

    Parameters:
        at: the database's clock when the key was read: its state is that of this time.
        ip_allowlist: addresses and ranges in canonical text; empty: from everywhere.
        workspaces: of a caller key, the workspaces it may work in; empty: all.
        creator: the caller that created it: its key id, ``tls:`` and the name of its certificate, or ``bootstrap``.
        version: counts changes; the etag.
        revision: of the last change that Verify's answers depend on; that with seq 0: none since creation.
        secrets: oldest first.
        usage_time: every Verify answered before it is in the counts; None: no server is counting.
    """

    id: UUID
    workspace: str
    display_name: str
    environment: Environment
    creator: str
    create_time: datetime
    update_time: datetime
    at: datetime
    revision: Revision
    owner: str = ""
    scopes: tuple[str, ...] = ()
    role: str = ""
    ip_allowlist: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    workspaces: tuple[str, ...] = ()
    expire_time: datetime | None = None
    suspended: bool = False
    revocation: Revocation | None = None
    version: int = 1
    secrets: tuple[Secret, ...] = ()
    usage_time: datetime | None = None

    @property
    def is_caller(self) -> bool:
        """Whether it authenticates callers of keysvc itself."""
        return self.workspace == SYSTEM_WORKSPACE

    @property
    def state(self) -> State:
        """The first state that applies."""
        if self.revocation:
            return self.revocation.state
        if self.suspended:
            return State.SUSPENDED
        if self.expire_time and self.expire_time <= self.at:
            return State.EXPIRED
        return State.ACTIVE

    @property
    def usage_total(self) -> int:
        """How often Verify judged it, with whichever secret."""
        return sum(secret.usage_total for secret in self.secrets)

    @property
    def last_used_time(self) -> datetime | None:
        """When Verify last accepted it; None: never."""
        return max((secret.last_used_time for secret in self.secrets if secret.last_used_time), default=None)

    @property
    def living_secrets(self) -> tuple[Secret, ...]:
        """The secrets that are neither revoked nor retired, oldest first."""
        return tuple(secret for secret in self.secrets if secret.state(self.at) is State.ACTIVE)

    def with_final(self, revision: Revision) -> "Key":
        """The key after everybody knows the change with this revision: if that was a revocation, it is final."""
        return replace(
            self,
            revocation=self.revocation and self.revocation.with_final(revision),
            secrets=tuple(
                replace(secret, revocation=secret.revocation and secret.revocation.with_final(revision))
                for secret in self.secrets
            ),
        )

    def secret(self, secret_id: str) -> Secret | None:
        """The secret with this id, if it is one of the key's."""
        return next((secret for secret in self.secrets if secret.id == secret_id), None)


VERIFY_DEPENDS_ON: Final = (
    "owner",
    "scopes",
    "role",
    "ip_allowlist",
    "metadata",
    "workspaces",
    "expire_time",
    "suspended",
    "revocation",
    "secrets",
)
"""Fields that Verify judges or answers: a change of one goes through the log of changes."""
