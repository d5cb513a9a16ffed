"""Reads for people and tools: what a caller may see, page by page."""

from collections.abc import Callable, Sequence
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
KEY_BYTES: Final = 2048
"""More than all of a key that is not counted one by one: ids, names, times, reasons, two secrets."""


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
        return any(map(is_usable_operator, await self._listings.list_keys(callers, None, PAGE_SIZE_MAX)))

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
        keys = await self._listings.list_keys(asked, after, page.size + 1)
        return self._page(call, page, _within_bytes(keys), lambda key: Position(key.create_time, key.id), len(keys))

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
        workspaces = await self._listings.list_workspaces(names, organization, after, page.size + 1)
        return self._page(call, page, workspaces, lambda workspace: workspace.name)

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
        events = await self._listings.list_audit_events(asked, after, page.size + 1)
        return self._page(call, page, events, lambda event: Position(event[0].time, event[0].stamp.event_id))

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
            await self.get_key(call, asked.key_id)
        totals, usage_time = await self._totals.list_totals(asked, after, page.size + 1)
        return self._page(call, page, totals, lambda total: total[0]), usage_time

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

    def _page(
        self,
        call: Call,
        page: PageRequest,
        items: Sequence[T],
        position: Callable[[T], object],
        read: int | None = None,
    ) -> Page[T]:
        """The page of what was read, one item more than fits telling whether anything follows.

        Parameters:
            read: how many items were read, if not all of them are given.
        """
        if len(items) <= page.size and read in {None, len(items)}:
            return Page(items, "")
        items = items[: page.size]
        return Page(items, self._tokens.write(str(position(items[-1])), _identity(call, page)))


def _within_bytes(keys: list[Key]) -> list[Key]:
    """The first of the keys that together fit into an answer: gRPC clients take 4 MiB unless told otherwise."""
    total = 0
    for index, key in enumerate(keys):
        texts = (*key.metadata, *key.metadata.values(), *key.scopes, *key.ip_allowlist, *key.tags, *key.workspaces)
        total += KEY_BYTES + sum(4 * len(text) + 4 for text in texts)
        if total > PAGE_BYTES_MAX and index:
            return keys[:index]
    return keys


def _identity(call: Call, page: PageRequest) -> bytes:
    """All that a page token is bound to."""
    return f"{call.caller.name}\0{call.method}\0".encode() + page.listing
