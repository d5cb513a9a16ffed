"""Issues keys: checks what may be granted, mints the key string, and shows it to its creator alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from keysvc.core.errors import LimitReached, Violations
from keysvc.core.key import Key
from keysvc.core.keystring import Environment, KeyString
from keysvc.core.permission import Permission
from keysvc.core.scope import granted, grants_cover, role_grants
from keysvc.core.workspace import SYSTEM_WORKSPACE, Workspace
from keysvc.service.callers import Call, is_usable_operator, workspace_not_found
from keysvc.service.minting import Minted, Minting, RequestClaim
from keysvc.service.ports import Changes, Transaction


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key shall be. Fields have passed their own checks, or are named in ``violations`` and stand empty.

    Parameters:
        expire_time, ttl: when it ends, at most one of them; neither: as the workspace has it.
        asked_scopes: the scopes as they were asked for, repeated and bad ones too: by its place there one is named.
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
    asked_scopes: tuple[str, ...] = ()
    violations: Violations = field(default_factory=Violations)


class Issuing:
    """Creates keys.

    Parameters:
        minting: makes their secrets.
    """

    def __init__(self, changes: Changes, minting: Minting) -> None:
        self._changes = changes
        self._minting = minting

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
        minted = self._minting.mint(new.environment)

        async def work(transaction: Transaction) -> tuple[Key, KeyString]:
            workspace = await _lock_workspace(call, new, transaction)
            if not new.violations:
                call.caller.check_operator(workspace.name)
                call.caller.check_holds(granted(new.role, new.scopes, workspace.roles))
                # Before whatever time can change: a repeat shall get the answer of the first call.
                if repeated := await self._minting.claim(call, new.claim, key_id, minted, transaction):
                    return await transaction.find_key(repeated.key_id), repeated.key_string
            expire_time = _check(new, workspace, transaction.at)
            await _check_key_limit(workspace, transaction)
            key = _key(call, new, key_id, expire_time, minted, transaction)
            return await transaction.insert_key(key, within=workspace, proof=minted.proof), minted.key_string

        async def recall(transaction: Transaction) -> tuple[Key, KeyString]:
            return await transaction.find_key(key_id), minted.key_string

        return await self._changes.run(call.stamp(new.reason), work, recall)

    async def create_operator(self, call: Call, *, another: bool) -> KeyString | None:
        """Create an operator key; None if there is a usable one already and not ``another`` is wanted."""
        key_id = uuid4()
        new = NewKey(SYSTEM_WORKSPACE, "operator", Environment.LIVE, scopes=(Permission.OPERATOR,))
        minted = self._minting.mint(new.environment)

        async def work(transaction: Transaction) -> Key | None:
            workspace = await _lock_workspace(call, new, transaction)
            if not another and any(map(is_usable_operator, await transaction.lock_callers())):
                return None
            key = _key(call, new, key_id, None, minted, transaction)
            return await transaction.insert_key(key, within=workspace, proof=minted.proof)

        key = await self._changes.run(call.stamp(), work, lambda again: again.find_key(key_id))
        return minted.key_string if key else None


async def _lock_workspace(call: Call, new: NewKey, transaction: Transaction) -> Workspace:
    """The locked workspace; a bad name is told together with all other bad fields."""
    if any(each.field == "workspace" for each in new.violations):
        new.violations.raise_if_any()
    workspace = None
    if call.caller.sees(new.workspace):
        workspace = await transaction.lock_workspace_for_key(new.workspace)
    if workspace is None:
        new.violations.raise_if_any()
        raise workspace_not_found(new.workspace)
    return workspace


def _check(new: NewKey, workspace: Workspace, at: datetime) -> datetime | None:
    """Raise ``InvalidArgument`` with all bad fields, else return when the key ends."""
    violations = Violations(new.violations)
    known = {each.field for each in violations}
    scopes = places_of(new.scopes, new.asked_scopes)
    check_belongs(violations, workspace, role=new.role, scopes=scopes, workspaces=new.workspaces)
    expire_time = None
    expiry = "ttl" if new.ttl is not None else "expire_time"
    if expiry not in known:
        try:
            expire_time = workspace.expiry(new.expire_time, new.ttl, at)
        except ValueError as error:
            violations.add(expiry, str(error))
    violations.raise_if_any()
    return expire_time


def places_of(scopes: Sequence[str], asked: Sequence[str]) -> list[tuple[int, str]]:
    """Where some scopes stand in what was asked for: repeated ones at each of their places."""
    return [(place, scope) for place, scope in enumerate(asked) if scope in scopes]


def check_belongs(  # noqa: PLR0913 (what belongs to a workspace)
    violations: Violations,
    workspace: Workspace,
    *,
    role: str,
    scopes: Sequence[tuple[int, str]],
    workspaces: Sequence[str],
    prefix: str = "",
) -> None:
    """Add what does not fit a key's workspace: unknown roles, scopes beyond its cap, workspaces of a caller elsewhere.

    Parameters:
        scopes: with their places in the request.
        prefix: path of the fields within the request.
    """
    if role and role_grants(role, workspace.roles) is None:
        violations.add(f"{prefix}role", f"must be a built-in role or one of {workspace.name}")
    for index, scope in scopes:
        if workspace.allowed_scopes and not grants_cover(workspace.allowed_scopes, scope):
            violations.add(f"{prefix}scopes[{index}]", f"{scope} is outside the allowed scopes of {workspace.name}")
    if workspaces and not workspace.is_system:
        violations.add(f"{prefix}workspaces", f"must be empty but for keys of {SYSTEM_WORKSPACE}")


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
    minted: Minted,
    transaction: Transaction,
) -> Key:
    """The key as it is created."""
    at = transaction.at
    return Key(
        id=key_id,
        workspace=new.workspace,
        display_name=new.display_name,
        environment=new.environment,
        creator=call.caller.name,
        create_time=at,
        update_time=at,
        at=at,
        revision=transaction.start,
        owner=new.owner,
        scopes=new.scopes,
        role=new.role,
        ip_allowlist=new.ip_allowlist,
        metadata=new.metadata,
        tags=new.tags,
        workspaces=new.workspaces,
        expire_time=expire_time,
        secrets=(minted.secret(transaction),),
    )
