"""The verdict: what keysvc says to one presentation of a key string.

``judge`` decides everything after the proof of the secret; a refusal is a value, never an exception.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from keysvc.core.address import Address, is_within
from keysvc.core.keystring import Environment, KeyString
from keysvc.core.revision import Revision
from keysvc.core.scope import EFFECTIVE_SCOPES_MAX, capped, granted, grants_cover

NEVER: Final = datetime.max.replace(tzinfo=UTC)


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


class Presentation(NamedTuple):
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


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What keys of one workspace share that may do the same: a workspace has few, however many keys it has.

    Parameters:
        home: the workspace.
        workspaces: of caller keys, the workspaces they may work in; empty: all.
        grants: role and scopes, in this workspace.
    """

    home: WorkspaceRecord
    environment: Environment
    role: str
    scopes: tuple[str, ...]
    workspaces: tuple[str, ...]
    grants: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Look up the role."""
        object.__setattr__(self, "grants", granted(self.role, self.scopes, self.home.roles))

    def within(self, home: WorkspaceRecord) -> "Profile":
        """The profile with another state of its workspace."""
        return replace(self, home=home)

    @lru_cache(maxsize=16_384)  # noqa: B019 (profiles are few and small; those that were replaced soon leave)
    def may(self, scope: str) -> bool:
        """Whether a plain scope is granted and allowed. Remembered: services ask for few scopes, again and again."""
        return grants_cover(self.grants, scope) and (not self.home.caps or grants_cover(self.home.caps, scope))

    @property
    def effective_scopes(self) -> tuple[str, ...]:
        """What is granted in effect, for answers."""
        return capped(self.grants, self.home.caps)[:EFFECTIVE_SCOPES_MAX]


class About(NamedTuple):
    """What answers tell of a key and a secret, whatever the verdict, besides the scopes."""

    key_id: str
    secret_id: str
    workspace: str
    environment: Environment
    owner: str
    role: str
    metadata: Mapping[str, str]
    expire_time: datetime | None
    retire_time: datetime | None


class Record(NamedTuple):
    """All that Verify judges or answers about one secret: of the secret, its key and its workspace.

    There may be very many. But for the profile, everything here is a plain value, so that a tuple of them is small and
    no concern of the garbage collector.

    Parameters:
        key_id: as a number.
        about: what answers tell of the key beside its profile's scopes, in the form of the wire.
        ip_ranges: the allow-list as ``pack_ranges`` packs it; empty: every address is allowed.
        refusal: the verdict that the state of key and secret alone gives: revoking, revoked, suspended; empty: none.
        changed_seq: of the last change of the key or one of its secrets.
    """

    profile: Profile
    key_id: int
    secret_id: str
    about: bytes = b""
    ip_ranges: bytes = b""
    expire_time: datetime | None = None
    retire_time: datetime | None = None
    refusal: str = ""
    changed_seq: int = 0

    @property
    def home(self) -> WorkspaceRecord:
        """The key's workspace."""
        return self.profile.home

    @property
    def ends_at(self) -> datetime:
        """When it will be refused for its age; the end of time: never."""
        return min((end for end in (self.expire_time, self.retire_time) if end is not None), default=NEVER)


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


def refusal_of(*, revoking: bool, revoked: bool, suspended: bool) -> str:
    """The ``refusal`` of a record, of a key or secret that is all this: the first in the order of judgement."""
    reasons = ((revoking, Verdict.REVOKING), (revoked, Verdict.REVOKED), (suspended, Verdict.SUSPENDED))
    return next((verdict.value for holds, verdict in reasons if holds), "")


class Judgement(NamedTuple):
    """A verdict, and with INSUFFICIENT_SCOPE the required scopes that are not granted."""

    verdict: Verdict
    missing_scopes: tuple[str, ...] = ()


_VALID = Judgement(Verdict.VALID)


def judge(record: Record, presentation: Presentation, at: datetime) -> Judgement:
    """Judge a presentation whose secret is proved.

    Parameters:
        record: the key, its secret and its workspace.
        presentation: what is asked for.
        at: now, by the database's clock.
    """
    refusal = _refusal(record, presentation, at)
    if refusal is not None:
        return Judgement(refusal)
    if presentation.required_scopes:
        may = record.profile.may
        missing = tuple(scope for scope in presentation.required_scopes if not may(scope))
        if missing:
            return Judgement(Verdict.INSUFFICIENT_SCOPE, missing)
    return _VALID


def _refusal(record: Record, presentation: Presentation, at: datetime) -> Verdict | None:  # noqa: PLR0911
    """The first reason to refuse, but for scopes: one line for each check, in the documented order."""
    profile, _, _, _, ip_ranges, expire_time, retire_time, refusal, _ = record
    _, workspace, environment, _, source_ip, _, _ = presentation
    home = profile.home
    if workspace is not None and workspace != home.name:
        return Verdict.WORKSPACE_MISMATCH
    if environment is not None and environment is not profile.environment:
        return Verdict.ENVIRONMENT_MISMATCH
    if refusal:
        return Verdict(refusal)
    if home.suspended:
        return Verdict.WORKSPACE_SUSPENDED
    # Absent means never.
    if (expire_time is not None and expire_time <= at) or (retire_time is not None and retire_time <= at):
        return Verdict.EXPIRED
    if ip_ranges and (source_ip is None or not is_within(ip_ranges, source_ip)):
        return Verdict.IP_NOT_ALLOWED
    return None
