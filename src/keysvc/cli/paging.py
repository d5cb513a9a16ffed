"""Lists, which come in pages."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, TypeVar

import typer

from keysvc.cli.output import Output
from keysvc.cli.values import parse_count
from keysvc.v1.audit_service_pb2 import ListAuditEventsResponse
from keysvc.v1.key_service_pb2 import ListResponse
from keysvc.v1.workspace_service_pb2 import ListWorkspacesResponse

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

Page = TypeVar("Page", ListResponse, ListWorkspacesResponse, ListAuditEventsResponse)
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

    @property
    def page_size(self) -> int:
        """What to ask for; 0: the service's default."""
        if self.size is not None:
            return self.size
        return _FOLLOWED_PAGE_SIZE if self.follow else 0

    def pages(self, fetch: Callable[[str], Page]) -> Iterator[Page]:
        """Fetch one page after the other by their tokens."""
        token = self.token
        while True:
            page = fetch(token)
            yield page
            token = page.next_page_token
            if not self.follow or not token:
                return


def print_pages(
    pages: Iterator[Page],
    output: Output,
    *,
    items: Callable[[Page], Iterable[Item]],
    essential: Callable[[Item], str],
    show: Callable[[list[Item]], None],
) -> None:
    """Print a list: one document, one table, or with `--quiet` line by line as the pages come.

    Parameters:
        pages: at least one.
        output: how to print.
        items: what is on a page.
        essential: one item in one word.
        show: prints all items for people.
    """
    if output.quiet and not output.as_json:
        token = _print_essentials(pages, output, items, essential)
    else:
        whole = _join(pages)
        token = whole.next_page_token
        if output.as_json:
            output.document(whole)
            return  # the document holds the token
        found = list(items(whole))
        if found:
            show(found)
        else:
            output.note("Nothing found.")
    if token:
        output.note(f"There are more: --all, or --page-token {token}")


def _print_essentials(
    pages: Iterator[Page], output: Output, items: Callable[[Page], Iterable[Item]], essential: Callable[[Item], str]
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


def _join(pages: Iterator[Page]) -> Page:
    """One page that holds everything."""
    whole = next(pages)
    for page in pages:
        whole.MergeFrom(page)
        whole.next_page_token = page.next_page_token  # an empty one would not be merged
    return whole
