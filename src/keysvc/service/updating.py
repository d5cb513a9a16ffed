"""Changes what a key is: its name, owner, grants, addresses, end."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Any
from uuid import UUID

from keysvc.core.errors import EtagMismatch, FailedPrecondition, Violations
from keysvc.core.key import Key
from keysvc.core.receipt import Receipt
from keysvc.core.scope import granted, grants_cover
from keysvc.core.workspace import Workspace
from keysvc.service.callers import Call
from keysvc.service.confirming import NOTHING_SAID, ChangeRequest, Confirming
from keysvc.service.issuing import check_belongs, places_of
from keysvc.service.lifecycle import check_operator_remains, find_key, lock_key
from keysvc.service.ports import Transaction


@dataclass(frozen=True, slots=True)
class KeyUpdate:
    """What of a key shall change.

    Parameters:
        values: new values by field of ``Key``, for the fields that the caller named. They have passed their own checks,
            or are named in ``violations`` and stand empty.
        etag: only if the key is still at this version; empty: in any case.
        asked_scopes: see ``NewKey``.
        violations: what is wrong so far. What depends on the workspace is checked when it is known, and added.
    """

    key_id: UUID
    values: Mapping[str, Any]
    etag: str = ""
    asked: ChangeRequest = NOTHING_SAID
    asked_scopes: tuple[str, ...] = ()
    violations: Violations = field(default_factory=Violations)


class Updating:
    """Updates keys."""

    def __init__(self, confirming: Confirming) -> None:
        self._confirming = confirming

    async def update(self, call: Call, wanted: KeyUpdate) -> tuple[Key, Receipt]:
        """Change what ``wanted`` names.

        Raises:
            InvalidArgument: bad fields, all of them.
            NotFound: no such key.
            EtagMismatch: it has changed since the caller read it.
            PermissionDenied: the caller grants what it does not hold.
            FailedPrecondition: the key is revoked, or would no longer be the operator key that is needed.
        """

        async def work(transaction: Transaction) -> Key:
            before = await lock_key(call, wanted.key_id, transaction)
            workspace = await transaction.find_workspace(before.workspace)
            after = replace(before, **wanted.values)
            _check(wanted, after, workspace)
            if wanted.etag and wanted.etag != str(before.version):
                raise EtagMismatch(f"key {before.id} has changed since: read it again", key_id=str(before.id))
            if before.revocation:
                raise FailedPrecondition(f"key {before.id} is revoked, which is for ever", key_id=str(before.id))
            if after == before:
                return before
            _check_holds(call, before, after, workspace)
            await check_operator_remains(before, after, transaction)
            return await transaction.save_key(before, after)

        recall = partial(find_key, wanted.key_id)
        return await self._confirming.make(call, wanted.asked, work, recall, attrgetter("revision"))


def _check(wanted: KeyUpdate, after: Key, workspace: Workspace) -> None:
    """Raise ``InvalidArgument`` with all bad fields. Only named fields are checked: the workspace may have narrowed."""
    violations = Violations(wanted.violations)
    values = wanted.values
    check_belongs(
        violations,
        workspace,
        prefix="key.",
        role=values.get("role", ""),
        scopes=places_of(values.get("scopes", ()), wanted.asked_scopes),
        workspaces=values.get("workspaces", ()),
    )
    if "expire_time" in values and "key.expire_time" not in {each.field for each in violations}:
        try:
            workspace.check_expiry(after.expire_time, after.at)
        except ValueError as error:
            violations.add("key.expire_time", str(error))
    violations.raise_if_any()


def _check_holds(call: Call, before: Key, after: Key, workspace: Workspace) -> None:
    """Raise ``PermissionDenied`` for what the change grants anew and its caller does not hold."""
    had = granted(before.role, before.scopes, workspace.roles)
    has = granted(after.role, after.scopes, workspace.roles)
    call.caller.check_holds(grant for grant in has if not grants_cover(had, grant))
