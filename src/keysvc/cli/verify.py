"""`keysvc verify`: ask whether a key string is good."""

import getpass
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from google.protobuf.empty_pb2 import Empty
from rich.text import Text

from keysvc.cli.command import client_command
from keysvc.cli.contract import Environment, environment_value, environment_word, word
from keysvc.cli.failure import ExitCode, Failure
from keysvc.cli.key_table import metadata_rows
from keysvc.cli.output import Output
from keysvc.v1 import verify_pb2

if TYPE_CHECKING:
    from keysvc.cli.client import Client

# Far above any key string; whoever pipes a file by mistake should not send it.
_KEY_STRING_BYTES_MAX = 64 * 1024

_BASES = {
    verify_pb2.BASIS_MEMORY: ", from memory",
    verify_pb2.BASIS_DATABASE: ", from the database",
    verify_pb2.BASIS_STALE: ", from memory during an outage",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    client_command(app, "verify", quiet="the verdict", epilog=_EPILOG)(verify)


_EPILOG = """\b
Exit code
  0  VALID
  3  refused: the verdict says why
  1, 2, 4  not judged

\b
Example
  keysvc verify --workspace acme-corp/sales --scope pdf.read < key.txt"""


def verify(
    client: "Client",
    output: Output,
    *,
    workspace: Annotated[
        str, typer.Option(metavar="NAME", show_default=False, help="Must be a key of this workspace.")
    ] = "",
    env: Annotated[
        Environment | None, typer.Option("--env", metavar="live|test", help="Must be a key of this environment.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", metavar="SCOPE", help="Must grant this scope. Repeatable.")
    ] = None,
    source_ip: Annotated[
        str, typer.Option(metavar="ADDRESS", show_default=False, help="Where the key's user calls from.")
    ] = "",
    resource: Annotated[
        str, typer.Option(metavar="TEXT", show_default=False, help="What is accessed, for usage reports.")
    ] = "",
    request_id: Annotated[
        str, typer.Option(metavar="TEXT", show_default=False, help="Your trace id, for usage reports.")
    ] = "",
    strong: Annotated[bool, typer.Option("--strong", help="Read the database for this answer.")] = False,
    at_least: Annotated[
        str, typer.Option(metavar="REVISION", show_default=False, help="Include the change with this revision.")
    ] = "",
) -> None:
    """Ask whether a key string is good, and for what.

    The key string is read from standard input, on a terminal from a hidden prompt; never from an argument, where
    every process could see it.
    """
    if strong and at_least:
        raise Failure.usage("--strong includes every change: leave out --at-least.")
    consistency = None
    if strong:
        consistency = verify_pb2.Consistency(strong=Empty())
    elif at_least:
        consistency = verify_pb2.Consistency(at_least=at_least)
    request = verify_pb2.VerifyRequest(
        key_string=_read_key_string(),
        workspace=workspace,
        environment=environment_value(env),
        required_scopes=scope or (),
        source_ip=source_ip,
        resource=resource,
        request_id=request_id,
        consistency=consistency,
    )
    response = client.call(client.keys.Verify, request)
    if output.as_json:
        output.document(response)
    elif output.quiet:
        output.line(_verdict_word(response))
    else:
        _show(response, output)
    if response.verdict != verify_pb2.VERDICT_VALID:
        raise typer.Exit(ExitCode.NOT_VALID)


def _read_key_string() -> str:
    """The key string from standard input, without the line break at its end."""
    if sys.stdin is None:
        raise Failure.input("Standard input is closed: there is no key string to read.")
    try:
        if sys.stdin.isatty():
            text = getpass.getpass("Key string: ")
        else:
            raw = sys.stdin.buffer.read(_KEY_STRING_BYTES_MAX + 1)
            if len(raw) > _KEY_STRING_BYTES_MAX:
                raise Failure.input("What standard input holds is far too long for a key string.")
            text = raw.decode().removesuffix("\n").removesuffix("\r")
    except EOFError:
        text = ""
    except UnicodeError:
        raise Failure.input("What standard input holds is no text, so no key string either.") from None
    if not text:
        raise Failure.input("No key string was given: pipe one in, or type it at the prompt.")
    return text


def _verdict_word(response: verify_pb2.VerifyResponse) -> str:
    """The verdict, such as `VALID`."""
    return word(verify_pb2.Verdict.DESCRIPTOR, response.verdict)


def _show(response: verify_pb2.VerifyResponse, output: Output) -> None:
    """Print an answer for people."""
    valid = response.verdict == verify_pb2.VERDICT_VALID
    verdict = Text(_verdict_word(response), style="bold green" if valid else "bold red")
    environment = f", {environment_word(response.environment)}" if response.environment else ""
    output.show(
        verdict,
        output.details(
            [
                ("why", "" if valid else response.message),
                ("missing", ", ".join(response.missing_scopes)),
                ("key", response.key_id),
                ("secret", response.secret_id),
                ("workspace", response.workspace + environment),
                ("owner", response.owner),
                ("role", response.role),
                ("scopes", ", ".join(response.scopes)),
                *metadata_rows(response.metadata),
                ("expires", output.time(response.expire_time) if response.HasField("expire_time") else ""),
                ("retires", output.time(response.retire_time) if response.HasField("retire_time") else ""),
                ("revision", response.revision + _BASES.get(response.basis, "") if response.revision else ""),
            ]
        ),
    )
