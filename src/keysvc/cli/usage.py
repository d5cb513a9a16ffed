"""`keysvc usage`: what keys are used for."""

from typing import TYPE_CHECKING, Annotated

import typer

from keysvc.cli.command import client_command
from keysvc.cli.contract import UsageGroup, usage_group_value
from keysvc.cli.failure import Failure
from keysvc.cli.output import Output
from keysvc.cli.paging import AllOption, PageSizeOption, PageTokenOption, Paging, print_pages
from keysvc.cli.usage_table import NOT_COUNTED, freshness, group_words, usage_list
from keysvc.v1 import usage_service_pb2

if TYPE_CHECKING:
    from keysvc.cli.client import Client

_EPILOG = """\b
Example: has the traffic of a key moved to its new secret?
  keysvc usage --key-id 0198a6c2-7b3e-7c4d-9a1e-0123456789ab --by secret"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    quiet = "what --by asks for and the number of verifications, a line each"
    client_command(app, "usage", quiet=quiet, epilog=_EPILOG)(usage)


def usage(
    client: "Client",
    output: Output,
    *,
    workspace: Annotated[
        str, typer.Option(metavar="NAME", show_default=False, help="Only of this workspace and its keys.")
    ] = "",
    key: Annotated[str, typer.Option("--key-id", metavar="KEY_ID", show_default=False, help="Only of this key.")] = "",
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="WHAT", help="Keep apart what differs in key, secret or verdict: key,verdict. Repeatable."
        ),
    ] = None,
    page_size: PageSizeOption = None,
    page_token: PageTokenOption = "",
    all_pages: AllOption = False,
) -> None:
    """Count what keys are used for, since they were created.

    Verified: how often the service was asked, refusals included. Succeeded, Failed, Units: the work that services have
    recorded afterwards, if they do.
    """
    groups = _groups(by or [])
    request = usage_service_pb2.QueryUsageRequest(
        workspace=workspace, key_id=key, groups=[usage_group_value(each) for each in groups]
    )
    print_pages(
        Paging(page_size, page_token, follow=all_pages).pages(client, client.usage.QueryUsage, request),
        output,
        items=lambda page: page.buckets,
        essential=lambda bucket: " ".join(
            [*(each or "-" for each in group_words(bucket, groups)), str(bucket.verify_count)]
        ),
        show=lambda buckets: output.show(usage_list(buckets, output, groups)),
        remark=lambda page: freshness(page.usage_time, output) if page.HasField("usage_time") else NOT_COUNTED,
    )


def _groups(by: list[str]) -> list[UsageGroup]:
    """What to keep apart, each once, in the order of the answer; words may be separated by commas."""
    words = {each for text in by for each in text.split(",")}
    if unknown := sorted(words - set(UsageGroup)):
        raise Failure.usage(f"--by: {unknown[0]!r} is not one of {', '.join(UsageGroup)}.")
    return [group for group in UsageGroup if group in words]
