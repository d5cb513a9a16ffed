"""Issues keys: checks what may be granted, mints the key string, and shows it to its creator alone."""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import UUID, uuid4

from keysvc.core.errors import FailedPrecondition, InvalidArgument, LimitReached, Unavailable, Violation, Violations
from keysvc.core.key import Key, Secret
from keysvc.core.keystring import Environment, KeyString, MintedSecret, mint
from keysvc.core.pepper import Peppers
from keysvc.core.permission import Permission
from keysvc.core.scope import grants_cover, role_grants
from keysvc.core.workspace import SYSTEM_WORKSPACE, Workspace
from keysvc.service.callers import Call, is_usable_operator, workspace_not_found
from keysvc.service.ports import Changes, Transaction


@dataclass(frozen=True, slots=True)
class RequestClaim:
    """What makes a Create safe to repeat.

    Parameters:
        request_id: the caller's UUID; only a digest of it is kept.
        body: everything else that was asked for; a repeat must ask for the same.
    """

    request_id: UUID
    body: bytes


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key shall be. Fields have passed their own checks, or are named in ``violations`` and stand empty.

    Parameters:
        expire_time, ttl: when it ends, at most one of them; neither: as the workspace has it.
        violations: what is wrong so far. What depends on the workspace is checked when it is known, and added.
    """

    workspace: str
    display_name: str
    environment: Environment
    owner: str = ""
    scopes: tuple[str, ...] = ()
    role: str = ""
    ip_allowlist: tuple[str, ...] = ()
    expire_time: datetime | None = None
    ttl: timedelta | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    workspaces: tuple[str, ...] = ()
    claim: RequestClaim | None = None
    reason: str = ""
    violations: Violations = field(default_factory=Violations)


class Issuing:
    """Creates keys.

    Parameters:
        peppers: of this server.
        signing: fingerprint of the pepper that new digests are made under.
        tag_key: the deployment's tag key.
        entropy: gives so many unpredictable bytes.
    """

    def __init__(
        self,
        changes: Changes,
        peppers: Peppers,
        *,
        signing: bytes,
        tag_key: bytes,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._changes = changes
        self._peppers = peppers
        self._signing = signing
        self._tag_key = tag_key
        self._entropy = entropy

    async def create(self, call: Call, new: NewKey) -> tuple[Key, KeyString]:
        """Create a key with its first secret. The key string is nowhere but in this answer.

        Raises:
            InvalidArgument: bad fields, all of them.
            NotFound: no such workspace.
            PermissionDenied: the caller grants what it does not hold.
            LimitReached: the workspace has as many keys as it may.
            FailedPrecondition: the request id has been used before.
        """
        key_id = uuid4()
        minted = mint(new.environment, self._tag_key, self._entropy)

        async def work(transaction: Transaction) -> Key:
            workspace = await _lock_workspace(call, new, transaction)
            expire_time = _check(new, workspace, transaction.at)
            call.caller.check_operator(workspace.name)
            call.caller.check_holds((role_grants(new.role, workspace.roles) or ()) + new.scopes)
            await self._claim(call, new, key_id, transaction)
            await _check_key_limit(workspace, transaction)
            key = _key(call, new, key_id, expire_time, minted, transaction)
            return await self._insert(key, workspace, minted, transaction)

        key = await self._changes.run(call.stamp(new.reason), work, lambda again: again.find_key(key_id))
        return key, minted.key_string

    async def create_operator(self, call: Call, *, another: bool) -> KeyString | None:
        """Create an operator key; None if there is a usable one already and not ``another`` is wanted."""
        key_id = uuid4()
        new = NewKey(SYSTEM_WORKSPACE, "operator", Environment.LIVE, scopes=(Permission.OPERATOR,))
        minted = mint(new.environment, self._tag_key, self._entropy)

        async def work(transaction: Transaction) -> Key | None:
            workspace = await _lock_workspace(call, new, transaction)
            if not another and any(map(is_usable_operator, await transaction.lock_callers())):
                return None
            key = _key(call, new, key_id, None, minted, transaction)
            return await self._insert(key, workspace, minted, transaction)

        key = await self._changes.run(call.stamp(), work, lambda again: again.find_key(key_id))
        return minted.key_string if key else None

    async def _insert(self, key: Key, workspace: Workspace, minted: MintedSecret, transaction: Transaction) -> Key:
        """Insert the key with its first secret."""
        digest = self._peppers.digest(minted.key_string, self._signing)
        if digest is None:
            raise Unavailable("this server lacks the pepper that signs")
        return await transaction.insert_key(key, owner=workspace, digest=digest, pepper=self._signing)

    async def _claim(self, call: Call, new: NewKey, key_id: UUID, transaction: Transaction) -> None:
        """Claim the request id for this key; raise if it made another one."""
        if new.claim is None:
            return
        # Keyed with the tag key, so that ids cannot be tried out against a dump alone.
        scope = f"{call.caller.name}\0{call.method}\0{new.claim.request_id}".encode()
        digest = hmac.digest(self._tag_key, scope, "sha256")
        body_digest = sha256(new.claim.body).digest()
        owner, first_body_digest = await transaction.claim_request(digest, body_digest, key_id)
        if first_body_digest != body_digest:
            raise InvalidArgument([Violation("request_id", "was used before, for a request with another body")])
        if owner != key_id:
            raise FailedPrecondition(f"request_id was used before: it made key {owner}", key_id=str(owner))


async def _lock_workspace(call: Call, new: NewKey, transaction: Transaction) -> Workspace:
    """The locked workspace; a bad name is told together with all other bad fields."""
    if any(each.field == "workspace" for each in new.violations):
        new.violations.raise_if_any()
    workspace = None
    if not call.caller.workspaces or new.workspace in call.caller.workspaces:
        workspace = await transaction.lock_workspace_for_key(new.workspace)
    if workspace is None:
        new.violations.raise_if_any()
        raise workspace_not_found(new.workspace)
    return workspace


def _check(new: NewKey, workspace: Workspace, at: datetime) -> datetime | None:
    """Raise ``InvalidArgument`` with all bad fields, else return when the key ends."""
    violations = Violations(new.violations)
    known = {each.field for each in violations}
    if new.role and role_grants(new.role, workspace.roles) is None:
        violations.add("role", f"must be a built-in role or one of {workspace.name}")
    for index, scope in enumerate(new.scopes):
        if workspace.allowed_scopes and not grants_cover(workspace.allowed_scopes, scope):
            violations.add(f"scopes[{index}]", f"{scope} is outside the allowed scopes of {workspace.name}")
    if new.workspaces and not workspace.is_system:
        violations.add("workspaces", f"must be empty but for keys of {SYSTEM_WORKSPACE}")
    expire_time = None
    expiry = "ttl" if new.ttl is not None else "expire_time"
    if expiry not in known:
        try:
            expire_time = workspace.expiry(new.expire_time, new.ttl, at)
        except ValueError as error:
            violations.add(expiry, str(error))
    violations.raise_if_any()
    return expire_time


async def _check_key_limit(workspace: Workspace, transaction: Transaction) -> None:
    """Raise ``LimitReached`` if the locked workspace has as many keys as it may."""
    if workspace.key_limit is None:
        return
    if await transaction.count_keys(workspace, workspace.key_limit) >= workspace.key_limit:
        raise LimitReached(
            f"workspace {workspace.name} has {workspace.key_limit} keys that are not revoked, which is its limit",
            workspace=workspace.name,
            key_limit=str(workspace.key_limit),
        )


def _key(  # noqa: PLR0913, PLR0917 (all that a key is made of)
    call: Call,
    new: NewKey,
    key_id: UUID,
    expire_time: datetime | None,
    minted: MintedSecret,
    transaction: Transaction,
) -> Key:
    """The key as it is created."""
    at, revision = transaction.at, transaction.start
    return Key(
        id=key_id,
        workspace=new.workspace,
        display_name=new.display_name,
        environment=new.environment,
        creator=call.caller.name,
        create_time=at,
        update_time=at,
        at=at,
        revision=revision,
        owner=new.owner,
        scopes=new.scopes,
        role=new.role,
        ip_allowlist=new.ip_allowlist,
        metadata=new.metadata,
        tags=new.tags,
        workspaces=new.workspaces,
        expire_time=expire_time,
        secrets=(Secret(minted.id, minted.hint, at, revision),),
    )
