"""`keysvc keys rotate`, `cancel-rotation`, `suspend`, `resume` and `revoke`: changes with a receipt."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer
from rich.table import Table
from rich.text import Text

from keysvc.cli.command import client_command
from keysvc.cli.contract import environment_word, key_state_word, to_duration, wait_value
from keysvc.cli.failure import ExitCode, Failure
from keysvc.cli.key_table import secret_list
from keysvc.cli.output import Output, coloured
from keysvc.cli.receipt import REPEAT, ReasonOption, RequestIdOption, WaitOption, receipt_rows, receipt_state, repeat_as
from keysvc.cli.values import parse_duration
from keysvc.v1 import key_pb2, key_service_pb2

if TYPE_CHECKING:
    from keysvc.cli.client import Client

Changed = (
    key_service_pb2.UpdateResponse
    | key_service_pb2.SuspendResponse
    | key_service_pb2.ResumeResponse
    | key_service_pb2.RevokeResponse
)

KeyArgument = Annotated[str, typer.Argument(metavar="KEY_ID", show_default=False, help="Id of the key.")]

KeysArgument = Annotated[
    list[str], typer.Argument(metavar="KEY_ID", show_default=False, help="Ids of the keys, one or more.")
]

_QUIET = "COMPLETE or PENDING, for each key"
_REVOKE_EPILOG = """\b
Find a leaked key by how its key string begins
  keysvc keys list --hint-prefix sk_live_1a1b2c3d"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    client_command(app, "rotate", quiet="the new key string")(rotate)
    client_command(app, "cancel-rotation", quiet="COMPLETE or PENDING")(cancel_rotation)
    client_command(app, "suspend", quiet=_QUIET)(suspend)
    client_command(app, "resume", quiet=_QUIET)(resume)
    client_command(app, "revoke", quiet=_QUIET, epilog=_REVOKE_EPILOG)(revoke)


def rotate(
    client: "Client",
    output: Output,
    key_id: KeyArgument,
    *,
    overlap: Annotated[
        timedelta | None,
        typer.Option(
            metavar="DURATION", parser=parse_duration, help="How long the old secret goes on, 30d at most. Default: 24h"
        ),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="End the old secret at once.")] = False,
    request_id: RequestIdOption = "",
    reason: ReasonOption = "",
    wait: WaitOption = None,
) -> None:
    """Mint a second secret for a key. The old one goes on for a while, then retires."""
    if now and overlap is not None:
        raise Failure.usage("--now and --overlap say when the old secret ends: give one of them.")
    request = key_service_pb2.RotateRequest(
        key_id=key_id,
        overlap=to_duration(timedelta(0) if now else overlap),
        request_id=request_id or str(uuid4()),
        reason=reason,
        wait=wait_value(wait),
    )
    response = client.call(client.keys.Rotate, request, if_unknown=repeat_as(request.request_id))
    if output.as_json:
        output.document(response)
    elif output.quiet:
        output.line(response.key_string)
    else:
        output.show("The new key string, shown only now:", "")
        output.line(f"  {response.key_string}")
        output.show("", secret_list(response.key, output), "", output.details(receipt_rows(response.receipt, output)))


def cancel_rotation(
    client: "Client", output: Output, key_id: KeyArgument, *, reason: ReasonOption = "", wait: WaitOption = None
) -> None:
    """Go back: revoke the newer of two living secrets.

    The older one then does not retire. A key with one living secret stays as it is.
    """
    request = key_service_pb2.CancelRotationRequest(key_id=key_id, reason=reason, wait=wait_value(wait))
    response = client.call(client.keys.CancelRotation, request, if_unknown=REPEAT)
    if output.as_json:
        output.document(response)
    elif output.quiet:
        output.line(receipt_state(response.receipt))
    else:
        output.show(f"Key {key_id} is not being rotated any more", "", secret_list(response.key, output))
        output.show("", output.details(receipt_rows(response.receipt, output)))


def suspend(
    client: "Client",
    output: Output,
    key_ids: KeysArgument,
    *,
    reason: ReasonOption = "",
    wait: WaitOption = None,
) -> None:
    """Suspend keys: they are refused until they are resumed."""

    def change(key_id: str) -> key_service_pb2.SuspendResponse:
        request = key_service_pb2.SuspendRequest(key_id=key_id, reason=reason, wait=wait_value(wait))
        return client.call(client.keys.Suspend, request, if_unknown=REPEAT)

    _change_each(key_ids, change, output, "Suspended")


def resume(
    client: "Client",
    output: Output,
    key_ids: KeysArgument,
    *,
    reason: ReasonOption = "",
    wait: WaitOption = None,
) -> None:
    """Resume suspended keys."""

    def change(key_id: str) -> key_service_pb2.ResumeResponse:
        request = key_service_pb2.ResumeRequest(key_id=key_id, reason=reason, wait=wait_value(wait))
        return client.call(client.keys.Resume, request, if_unknown=REPEAT)

    _change_each(key_ids, change, output, "Resumed")


def revoke(
    client: "Client",
    output: Output,
    key_ids: KeysArgument,
    *,
    secret: Annotated[
        str, typer.Option(metavar="ID", show_default=False, help="Revoke only this secret of the key.")
    ] = "",
    reason: ReasonOption = "",
    wait: WaitOption = None,
) -> None:
    """Revoke keys, for ever. Nothing is asked: the ids are meant.

    With a COMPLETE receipt, no verification that starts afterwards accepts the key. PENDING: it is durable, and true
    everywhere by the time that is printed. Revoking again is safe.
    """
    if secret and len(key_ids) > 1:
        raise Failure.usage("--secret belongs to one key: give only its id.")

    def change(key_id: str) -> key_service_pb2.RevokeResponse:
        request = key_service_pb2.RevokeRequest(key_id=key_id, secret_id=secret, reason=reason, wait=wait_value(wait))
        return client.call(client.keys.Revoke, request, if_unknown=REPEAT)

    _change_each(key_ids, change, output, f"Revoked secret {secret} of" if secret else "Revoked")


def _change_each(key_ids: list[str], change: Callable[[str], Changed], output: Output, done: str) -> None:
    """Change one key after the other, whatever happens to each, and tell every outcome."""
    worst = ExitCode.DONE
    for at, key_id in enumerate(key_ids):
        try:
            response = change(key_id)
        except Failure as failure:
            output.failure(failure, subject=key_id)
            worst = max(worst, failure.exit_code)
            continue
        if output.as_json:
            output.document(response)
        elif output.quiet:
            output.line(receipt_state(response.receipt))
        else:
            output.show(*([""] if at else []), f"{done} key {key_id}", outcome(response, output))
    if worst:
        raise typer.Exit(worst)


def outcome(response: Changed, output: Output, changes: Iterable[tuple[str, str | Text]] = ()) -> Table:
    """A changed key, briefly, with what was changed of it, and the receipt."""
    key = response.key
    usable = any(secret.state == key_pb2.Key.STATE_ACTIVE for secret in key.secrets)
    without_secret = "" if usable or key.state != key_pb2.Key.STATE_ACTIVE else ", but no secret of it is"
    return output.details(
        [
            ("name", key.display_name),
            ("workspace", f"{key.workspace}, {environment_word(key.environment)}"),
            ("state", Text.assemble(coloured(key_state_word(key.state)), without_secret)),
            *changes,
            *receipt_rows(response.receipt, output),
        ]
    )
