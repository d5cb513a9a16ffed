"""Lists, which come in pages."""

from collections.abc import Callable, Iterator, MutableSequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from keysvc.cli.output import Output
from keysvc.cli.values import parse_count
from keysvc.v1.audit_service_pb2 import ListAuditEventsRequest, ListAuditEventsResponse
from keysvc.v1.key_service_pb2 import ListRequest, ListResponse
from keysvc.v1.usage_service_pb2 import QueryUsageRequest, QueryUsageResponse
from keysvc.v1.workspace_service_pb2 import ListWorkspacesRequest, ListWorkspacesResponse

if TYPE_CHECKING:
    import grpc

    from keysvc.cli.client import Client

_PANEL = "Pages"
# With --all nobody waits for a first screen: fewer calls, each still far below any limit on messages.
_FOLLOWED_PAGE_SIZE = 500

PageSizeOption = Annotated[
    int | None,
    typer.Option(metavar="N", parser=parse_count, help="At most N, up to 1000. Default: 50", rich_help_panel=_PANEL),
]
PageTokenOption = Annotated[
    str, typer.Option(metavar="TOKEN", show_default=False, help="Go on where a list ended.", rich_help_panel=_PANEL)
]
AllOption = Annotated[bool, typer.Option("--all", help="Follow the pages to the end.", rich_help_panel=_PANEL)]

Request = TypeVar("Request", ListRequest, ListWorkspacesRequest, ListAuditEventsRequest, QueryUsageRequest)
Page = TypeVar("Page", ListResponse, ListWorkspacesResponse, ListAuditEventsResponse, QueryUsageResponse)
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Paging:
    """Which pages of a list to get.

    Parameters:
        size: of a page; None: the command's choice.
        token: of the first page.
        follow: get all that come after it too.
    """

    size: int | None
    token: str
    follow: bool

    def pages(
        self, client: "Client", method: "grpc.UnaryUnaryMultiCallable[Request, Page]", request: Request
    ) -> Iterator[Page]:
        """Fetch one page after the other; size and token of the request are set here."""
        if self.size is not None:
            request.page_size = self.size
        elif self.follow:
            request.page_size = _FOLLOWED_PAGE_SIZE
        request.page_token = self.token
        while True:
            page = client.call(method, request)
            yield page
            request.page_token = page.next_page_token
            if not self.follow or not request.page_token:
                return


def print_pages(
    pages: Iterator[Page],
    output: Output,
    *,
    items: Callable[[Page], MutableSequence[Item]],
    essential: Callable[[Item], str],
    show: Callable[[MutableSequence[Item]], None],
    remark: Callable[[Page], str] = lambda _: "",
) -> None:
    """Print a list: one document, one table, or with `--quiet` line by line as the pages come.

    Parameters:
        pages: at least one.
        output: how to print.
        items: what is on a page.
        essential: one item in one word.
        show: prints all items for people.
        remark: what people should know about the whole list; may be empty.
    """
    if output.quiet and not output.as_json:
        token = _print_essentials(pages, output, items, essential)
    else:
        whole = _join(pages, items)
        token = whole.next_page_token
        if output.as_json:
            output.document(whole)
            return  # the document holds the token
        if items(whole):
            show(items(whole))
        else:
            output.note("Nothing found.")
        if about := remark(whole):
            output.note(about)
    if token:
        output.note(f"There are more: --all, or --page-token {token}")


def _print_essentials(
    pages: Iterator[Page],
    output: Output,
    items: Callable[[Page], MutableSequence[Item]],
    essential: Callable[[Item], str],
) -> str:
    """Print a line for each item, and return the token of what is left."""
    token = ""
    for page in pages:
        for item in items(page):
            output.line(essential(item))
        if output.reader_gone:
            return ""
        token = page.next_page_token
    return token


def _join(pages: Iterator[Page], items: Callable[[Page], MutableSequence[Item]]) -> Page:
    """One page that holds everything; what else it says is that of the first page, which is as old as any of it."""
    whole = next(pages)
    for page in pages:
        items(whole).extend(items(page))
        whole.next_page_token = page.next_page_token
    return whole
