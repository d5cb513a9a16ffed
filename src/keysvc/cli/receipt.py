"""The receipt of a change: since when, and how surely, it is true everywhere."""

from typing import Annotated

import typer
from rich.text import Text

from keysvc.cli.contract import Wait, word
from keysvc.cli.output import Output, coloured
from keysvc.cli.values import format_wait
from keysvc.v1.receipt_pb2 import Receipt

ReasonOption = Annotated[str, typer.Option(metavar="TEXT", show_default=False, help="Why, for the audit log.")]
WaitOption = Annotated[
    Wait | None,
    typer.Option(
        metavar="barrier|commit",
        help="Return when it is true everywhere (barrier, the default), or as soon as it is durable (commit).",
    ),
]

RequestIdOption = Annotated[
    str,
    typer.Option(
        metavar="UUID",
        show_default=False,
        help="Of a call to repeat: within 10 minutes it shows the same key string. Default: a new one.",
    ),
]

REPEAT = "Nobody knows whether the change was made. Repeat the command: that is safe, and settles it."
"""What to do when a change was not answered."""


def repeat_as(request_id: str) -> str:
    """What to do when a call that mints a secret was not answered."""
    return (
        "Nobody knows whether a secret was minted. Within 10 minutes repeat the command with "
        f"--request-id {request_id}: that shows it, and mints no second one."
    )


def receipt_state(receipt: Receipt) -> str:
    """COMPLETE or PENDING."""
    return word(Receipt.State.DESCRIPTOR, receipt.state)


def receipt_rows(receipt: Receipt, output: Output) -> list[tuple[str, str | Text]]:
    """What a receipt says, for `Output.details`."""
    waited = f", waited {format_wait(receipt.waited.ToTimedelta())}" if receipt.HasField("waited") else ""
    after_leases = ", leases ran out" if receipt.path == Receipt.PATH_TIMER else ""
    rows: list[tuple[str, str | Text]] = [
        ("receipt", Text.assemble(coloured(receipt_state(receipt)), waited, after_leases)),
    ]
    if receipt.HasField("effective_by"):
        rows.append(("true everywhere", f"by {output.time(receipt.effective_by)}"))
    rows.append(("no answer from", ", ".join(receipt.unacknowledged)))
    rows.append(("revision", receipt.revision))
    return rows
