"""Creates and changes workspaces."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from operator import attrgetter
from typing import Any, Final
from uuid import uuid4

from keysvc.core.errors import AlreadyExists, EtagMismatch, FailedPrecondition, Violations
from keysvc.core.receipt import Receipt
from keysvc.core.scope import grants_cover
from keysvc.core.workspace import SYSTEM_WORKSPACE, Workspace, span_text
from keysvc.service.callers import Call, workspace_not_found
from keysvc.service.confirming import ChangeRequest, Confirming
from keysvc.service.ports import Changes, Transaction

_FIXED_IN_SYSTEM: Final = ("suspended", "allowed_scopes", "roles")
"""What ``keysvc/system`` may not have changed, lest nobody can administer keysvc."""


@dataclass(frozen=True, slots=True)
class WorkspaceSettings:
    """What of a workspace can be set, named as in ``Workspace``.

    Parameters:
        values: new values by field. They have passed their own checks, or are named in ``violations``.
        etag: only if the workspace is still at this version; empty: in any case.
        violations: what is wrong so far. What the values are together is checked when all are known, and added.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    etag: str = ""
    violations: Violations = field(default_factory=Violations)


class Tenancy:
    """Changes of workspaces."""

    def __init__(self, changes: Changes, confirming: Confirming) -> None:
        self._changes = changes
        self._confirming = confirming

    async def create(self, call: Call, name: str, settings: WorkspaceSettings, reason: str) -> Workspace:
        """Create a workspace.

        Raises:
            InvalidArgument: bad fields, all of them.
            AlreadyExists: the name is taken.
            PermissionDenied: a role grants what the caller does not hold.
            NotFound: the caller is limited to other workspaces.
        """
        call.caller.check_sees(name)
        workspace_id = uuid4()

        async def work(transaction: Transaction) -> Workspace:
            await transaction.read_clock()
            new = Workspace(workspace_id, name, transaction.at, transaction.at, transaction.start, **settings.values)
            _check(settings, new)
            _check_holds(call, {}, new.roles)
            created = await transaction.insert_workspace(new)
            if created is None:
                raise AlreadyExists(f"workspace {name} exists already", workspace=name)
            return created

        return await self._changes.run(call.stamp(reason), work, lambda again: again.find_workspace(name))

    async def update(
        self, call: Call, name: str, settings: WorkspaceSettings, asked: ChangeRequest
    ) -> tuple[Workspace, Receipt]:
        """Change what ``settings`` name.

        Raises:
            InvalidArgument: bad fields, all of them.
            NotFound: no such workspace.
            EtagMismatch: it has changed since the caller read it.
            FailedPrecondition: ``keysvc/system`` may not be changed so.
        """

        def decide(before: Workspace) -> Workspace:
            after = replace(before, **settings.values)
            _check(settings, after)
            if settings.etag and settings.etag != str(before.version):
                raise EtagMismatch(f"workspace {name} has changed since: read it again", workspace=name)
            return after

        return await self._change(call, name, asked, decide)

    async def suspend(self, call: Call, name: str, asked: ChangeRequest) -> tuple[Workspace, Receipt]:
        """Refuse all keys of a workspace until ``resume``. Safe to repeat.

        Raises:
            NotFound: no such workspace.
            FailedPrecondition: it is ``keysvc/system``.
        """
        return await self._change(call, name, asked, lambda before: replace(before, suspended=True))

    async def resume(self, call: Call, name: str, asked: ChangeRequest) -> tuple[Workspace, Receipt]:
        """End a suspension. Safe to repeat.

        Raises:
            NotFound: no such workspace.
        """
        return await self._change(call, name, asked, lambda before: replace(before, suspended=False))

    async def _change(
        self, call: Call, name: str, asked: ChangeRequest, decide: Callable[[Workspace], Workspace]
    ) -> tuple[Workspace, Receipt]:
        """Lock the workspace, decide what becomes of it, and save that if it is anything new."""
        call.caller.check_sees(name)
        call.caller.check_operator(name)

        async def work(transaction: Transaction) -> Workspace:
            before = await transaction.lock_workspace(name)
            if before is None:
                raise workspace_not_found(name)
            after = decide(before)
            if after == before:
                return before
            if before.is_system and any(getattr(before, each) != getattr(after, each) for each in _FIXED_IN_SYSTEM):
                raise FailedPrecondition(f"{SYSTEM_WORKSPACE} cannot be suspended or have scopes or roles of its own")
            _check_holds(call, before.roles, after.roles)
            return await transaction.save_workspace(before, after)

        def recall(transaction: Transaction) -> Awaitable[Workspace]:
            return transaction.find_workspace(name)

        return await self._confirming.make(call, asked, work, recall, attrgetter("revision"))


def _check_holds(call: Call, before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> None:
    """Raise ``PermissionDenied`` for what roles grant anew and the caller does not hold: keys have these roles."""
    call.caller.check_holds(
        grant for role, grants in after.items() for grant in grants if not grants_cover(before.get(role, ()), grant)
    )


def _check(settings: WorkspaceSettings, after: Workspace) -> None:
    """Raise ``InvalidArgument`` with all bad fields, such as a default lifetime that is longer than the longest."""
    violations = Violations(settings.violations)
    longest = after.max_ttl or timedelta.max
    if after.default_ttl and after.default_ttl > longest:
        violations.add("workspace.default_ttl", f"must be at most max_ttl, {span_text(longest)}")
    violations.raise_if_any()
