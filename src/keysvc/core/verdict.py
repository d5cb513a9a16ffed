"""The verdict: what keysvc says to one presentation of a key string.

``judge`` decides everything after the proof of the secret; a refusal is a value, never an exception.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from keysvc.core.address import Address, Network
from keysvc.core.keystring import Environment, KeyString
from keysvc.core.revision import Revision
from keysvc.core.scope import EFFECTIVE_SCOPES_MAX, capped, granted, grants_cover


class Verdict(StrEnum):
    """The answer to one presentation, in the order of judgement."""

    VALID = "valid"
    MALFORMED = "malformed"
    NOT_FOUND = "not found"
    WORKSPACE_MISMATCH = "workspace mismatch"
    ENVIRONMENT_MISMATCH = "environment mismatch"
    REVOKING = "revoking"
    REVOKED = "revoked"
    SUSPENDED = "suspended"
    WORKSPACE_SUSPENDED = "workspace suspended"
    EXPIRED = "expired"
    IP_NOT_ALLOWED = "ip not allowed"
    INSUFFICIENT_SCOPE = "insufficient scope"


@dataclass(frozen=True, slots=True)
class Presentation:
    """A presented key string, and what the caller wants to know of it.

    Parameters:
        workspace, environment: what the request is for; None: whatever the key's is.
        required_scopes: plain scopes, all of them needed.
        source_ip: from where the key was presented; None: not told.
        at_least: the answer must include the change with this revision.
        strong: the answer must come from the database, asked after the call began.
    """

    key_string: KeyString
    workspace: str | None = None
    environment: Environment | None = None
    required_scopes: tuple[str, ...] = ()
    source_ip: Address | None = None
    at_least: Revision | None = None
    strong: bool = False


@dataclass(frozen=True, slots=True)
class WorkspaceRecord:
    """What Verify judges about a workspace; all records of its keys share it.

    Parameters:
        caps: the scopes that it allows; empty: all.
        changed_seq: of the last change of any of this.
    """

    id: UUID
    name: str
    suspended: bool
    caps: tuple[str, ...]
    roles: Mapping[str, tuple[str, ...]]
    changed_seq: int


@dataclass(frozen=True, slots=True)
class Record:
    """All that Verify judges or answers about one secret: of the secret, its key and its workspace.

    Parameters:
        home: the key's workspace.
        workspaces: of a caller key, the workspaces it may work in; empty: all.
        revoking, revoked: the key or the secret is revoked, which perhaps not everybody knows yet, or everybody does.
        changed_seq: of the last change of the key or one of its secrets.
        grants: role and scopes, in this workspace.
    """

    key_id: UUID
    secret_id: str
    home: WorkspaceRecord
    environment: Environment
    owner: str
    role: str
    scopes: tuple[str, ...]
    ip_allowlist: tuple[Network, ...]
    metadata: Mapping[str, str]
    workspaces: tuple[str, ...]
    expire_time: datetime | None
    retire_time: datetime | None
    revoking: bool
    revoked: bool
    suspended: bool
    changed_seq: int
    grants: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Look up the role."""
        object.__setattr__(self, "grants", granted(self.role, self.scopes, self.home.roles))

    @property
    def workspace(self) -> str:
        """The name of the key's workspace."""
        return self.home.name

    def within(self, home: WorkspaceRecord) -> "Record":
        """The record with another state of its workspace."""
        return replace(self, home=home)

    def may(self, scope: str) -> bool:
        """Whether a plain scope is granted and allowed: quicker than to look for it in ``effective_scopes``."""
        return grants_cover(self.grants, scope) and (not self.home.caps or grants_cover(self.home.caps, scope))

    @property
    def effective_scopes(self) -> tuple[str, ...]:
        """What is granted in effect, for answers."""
        return capped(self.grants, self.home.caps)[:EFFECTIVE_SCOPES_MAX]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one snapshot of the database says about a secret id.

    Parameters:
        revision: of the snapshot.
        at: the database's clock.
        record: None if there is no such secret.
        digest, pepper: what proves it, and the fingerprint of the pepper it was made under.
    """

    revision: Revision
    at: datetime
    record: Record | None = None
    digest: bytes = b""
    pepper: bytes = b""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and with INSUFFICIENT_SCOPE the required scopes that are not granted."""

    verdict: Verdict
    missing_scopes: tuple[str, ...] = ()


def judge(record: Record, presentation: Presentation, at: datetime) -> Judgement:
    """Judge a presentation whose secret is proved.

    Parameters:
        record: the key, its secret and its workspace.
        presentation: what is asked for.
        at: now, by the database's clock.
    """
    verdict = _refusal(record, presentation, at)
    if verdict is not None:
        return Judgement(verdict)
    missing = tuple(scope for scope in presentation.required_scopes if not record.may(scope))
    if missing:
        return Judgement(Verdict.INSUFFICIENT_SCOPE, missing)
    return Judgement(Verdict.VALID)


def _refusal(record: Record, asked: Presentation, at: datetime) -> Verdict | None:  # noqa: PLR0911
    """The first reason to refuse, but for scopes: one line for each check, in the documented order."""
    if asked.workspace is not None and asked.workspace != record.home.name:
        return Verdict.WORKSPACE_MISMATCH
    if asked.environment is not None and asked.environment is not record.environment:
        return Verdict.ENVIRONMENT_MISMATCH
    if record.revoking:
        return Verdict.REVOKING
    if record.revoked:
        return Verdict.REVOKED
    if record.suspended:
        return Verdict.SUSPENDED
    if record.home.suspended:
        return Verdict.WORKSPACE_SUSPENDED
    if _ended(record.expire_time, at) or _ended(record.retire_time, at):
        return Verdict.EXPIRED
    if record.ip_allowlist and not _admits(record.ip_allowlist, asked.source_ip):
        return Verdict.IP_NOT_ALLOWED
    return None


def _ended(end: datetime | None, at: datetime) -> bool:
    """Whether a time has come; absent means never."""
    return end is not None and end <= at


def _admits(allowlist: tuple[Network, ...], address: Address | None) -> bool:
    """Whether an address is in one of the ranges; an unknown address is in none."""
    return address is not None and any(address in network for network in allowlist)
