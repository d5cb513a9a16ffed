"""Reads for people and tools: what a caller may see, page by page."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Generic, TypeVar
from uuid import UUID

from keysvc.core.audit import AuditEvent
from keysvc.core.errors import InvalidArgument, Violation
from keysvc.core.key import Key, State
from keysvc.core.listing import PAGE_SIZE_MAX, AuditFilter, KeyFilter, Position, UsageFilter
from keysvc.core.page import PageTokens
from keysvc.core.revision import Revision
from keysvc.core.usage import Counter, Tally
from keysvc.core.workspace import SYSTEM_WORKSPACE, Workspace
from keysvc.service.callers import Call, is_usable_operator, key_not_found, workspace_not_found
from keysvc.service.ports import Listings, UsageTotals

T = TypeVar("T")

PAGE_BYTES_MAX: Final = 3 << 20
ITEM_BYTES: Final = 2048
"""More than all of a key, workspace or event that is not counted one by one: ids, names, times, two secrets."""

VALUE_BYTES: Final = 16
"""More than a number, and than what surrounds each value."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of a list.

    Parameters:
        size: items at most.
        token: ``next_page_token`` of the page before; empty: the first page.
        listing: what makes the list this list and no other (workspace and filter); a token is good for it alone.
    """

    size: int
    token: str
    listing: bytes


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list, and the token of what follows; empty: nothing does."""

    items: Sequence[T]
    next_token: str


class Reading:
    """Gets and lists.

    Parameters:
        listings: where from.
        totals: of usage.
        tokens: writes and reads page tokens.
    """

    def __init__(self, listings: Listings, totals: UsageTotals, tokens: PageTokens) -> None:
        self._listings = listings
        self._totals = totals
        self._tokens = tokens

    async def get_key(self, call: Call, key_id: UUID) -> Key:
        """One key.

        Raises:
            NotFound: no such key.
        """
        key = await self._listings.find_key(key_id)
        if key is None or not call.caller.sees(key.workspace):
            raise key_not_found(key_id)
        return key

    async def has_operator(self) -> bool:
        """Whether anybody can administer everything."""
        callers = KeyFilter(workspaces=(SYSTEM_WORKSPACE,), state=State.ACTIVE)
        listed = await self._listings.list_keys(callers, None, PAGE_SIZE_MAX)
        while not any(map(is_usable_operator, listed.keys)):
            if listed.more_after is None:
                return False
            listed = await self._listings.list_keys(callers, listed.more_after, PAGE_SIZE_MAX)
        return True

    async def list_keys(self, call: Call, workspace: str | None, asked: KeyFilter, page: PageRequest) -> Page[Key]:
        """Keys, newest first.

        Parameters:
            workspace: only of this one; None: of all that the caller may see.

        Raises:
            NotFound: no such workspace.
            InvalidArgument: the page token is not one of this list.
        """
        after = self._position(call, page, Position.parse)
        asked = replace(asked, workspaces=await self._visible(call, workspace))
        listed = await self._listings.list_keys(asked, after, page.size)
        keys = _within_bytes(listed.keys, _key_bytes)
        end = listed.more_after
        if len(keys) < len(listed.keys):
            end = Position(keys[-1].create_time, keys[-1].id)
        return self._page(call, page, keys, end)

    async def get_workspace(self, call: Call, name: str) -> Workspace:
        """One workspace.

        Raises:
            NotFound: no such workspace.
        """
        call.caller.check_sees(name)
        workspace = await self._listings.find_workspace(name)
        if workspace is None:
            raise workspace_not_found(name)
        return workspace

    async def list_workspaces(self, call: Call, organization: str | None, page: PageRequest) -> Page[Workspace]:
        """Workspaces by name.

        Raises:
            InvalidArgument: the page token is not one of this list.
        """
        after = self._position(call, page, str)
        names = call.caller.workspaces or None
        read = await self._listings.list_workspaces(names, organization, after, page.size + 1)
        workspaces = _within_bytes(read[: page.size], _workspace_bytes)
        end = workspaces[-1].name if len(workspaces) < len(read) else None
        return self._page(call, page, workspaces, end)

    async def list_audit_events(
        self, call: Call, workspace: str | None, asked: AuditFilter, page: PageRequest
    ) -> Page[tuple[AuditEvent, Revision | None]]:
        """Audit events, newest first, each with its revision.

        Raises:
            NotFound: no such workspace.
            InvalidArgument: the page token is not one of this list.
        """
        after = self._position(call, page, Position.parse)
        asked = replace(asked, workspaces=await self._visible(call, workspace))
        read = await self._listings.list_audit_events(asked, after, page.size + 1)
        events = _within_bytes(read[: page.size], _event_bytes)
        end = None
        if len(events) < len(read):
            last, _ = events[-1]
            end = Position(last.time, last.stamp.event_id)
        return self._page(call, page, events, end)

    async def list_usage(
        self, call: Call, workspace: str | None, asked: UsageFilter, page: PageRequest
    ) -> tuple[Page[tuple[Counter, Tally]], datetime | None]:
        """Totals of usage by workspace and group, and how fresh they are.

        Raises:
            NotFound: no such workspace or key.
            InvalidArgument: the page token is not one of this list.
        """
        after = self._position(call, page, Counter.parse)
        asked = replace(asked, workspaces=await self._visible(call, workspace))
        if asked.key_id is not None:
            key = await self.get_key(call, asked.key_id)
            if workspace not in {None, key.workspace}:
                raise key_not_found(key.id)
        read, usage_time = await self._totals.list_totals(asked, after, page.size + 1)
        totals = read[: page.size]
        end = totals[-1][0] if len(totals) < len(read) else None
        return self._page(call, page, totals, end), usage_time

    async def _visible(self, call: Call, workspace: str | None) -> tuple[str, ...] | None:
        """The workspaces that a list is about; None: all."""
        if workspace is None:
            return call.caller.workspaces or None
        return ((await self.get_workspace(call, workspace)).name,)

    def _position(self, call: Call, page: PageRequest, parse: Callable[[str], T]) -> T | None:
        """Where the page begins; None: at the beginning of the list."""
        if not page.token:
            return None
        try:
            return parse(self._tokens.read(page.token, _identity(call, page)))
        except ValueError as error:
            raise InvalidArgument([Violation("page_token", str(error))]) from error

    def _page(self, call: Call, page: PageRequest, items: Sequence[T], end: object | None) -> Page[T]:
        """A page.

        Parameters:
            end: where the list goes on; None: it has ended.
        """
        return Page(items, "" if end is None else self._tokens.write(str(end), _identity(call, page)))


def _within_bytes(items: Sequence[T], size: Callable[[T], int]) -> Sequence[T]:
    """The first items that together fit into an answer: gRPC clients take 4 MiB unless told otherwise."""
    total = 0
    for index, item in enumerate(items):
        total += size(item)
        if total > PAGE_BYTES_MAX and index:
            return items[:index]
    return items


def _key_bytes(key: Key) -> int:
    """No less than a key has in an answer."""
    texts = (*key.metadata, *key.metadata.values(), *key.scopes, *key.ip_allowlist, *key.tags, *key.workspaces)
    revocations = (key.revocation, *(secret.revocation for secret in key.secrets))
    reasons = (revocation.reason for revocation in revocations if revocation)
    return ITEM_BYTES + _text_bytes((*texts, *reasons))


def _workspace_bytes(workspace: Workspace) -> int:
    """No less than a workspace has in an answer."""
    grants = (grant for role in workspace.roles.values() for grant in role)
    return ITEM_BYTES + _text_bytes((*workspace.allowed_scopes, *workspace.roles, *grants))


def _event_bytes(event: tuple[AuditEvent, Revision | None]) -> int:
    """No less than an audit event has in an answer."""
    said = event[0]
    return ITEM_BYTES + _text_bytes([said.stamp.reason]) + _value_bytes(said.before) + _value_bytes(said.after)


def _text_bytes(texts: Iterable[str]) -> int:
    return sum(4 * len(text) + 4 for text in texts)


def _value_bytes(value: object) -> int:
    """No less than a JSON value has as a ``google.protobuf.Value``, with the lengths of all that it is in."""
    if isinstance(value, Mapping):
        return VALUE_BYTES + sum(VALUE_BYTES + 4 * len(name) + _value_bytes(each) for name, each in value.items())
    if isinstance(value, list):
        return VALUE_BYTES + sum(map(_value_bytes, value))
    return VALUE_BYTES + (4 * len(value) if isinstance(value, str) else 0)


def _identity(call: Call, page: PageRequest) -> bytes:
    """All that a page token is bound to."""
    return f"{call.caller.name}\0{call.method}\0".encode() + page.listing
