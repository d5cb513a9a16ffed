"""What all client commands have in common: options for connection and output, and an end in words."""

import inspect
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer
from typer.core import TyperArgument, TyperCommand

from keysvc.cli.connection import DEFAULT_ADDRESS, Connection, ConnectionOptions
from keysvc.cli.failure import Failure
from keysvc.cli.output import Output
from keysvc.cli.values import parse_duration

if TYPE_CHECKING:
    from keysvc.cli.client import Client

P = ParamSpec("P")

_CONNECTION = "Connection (for variables see keysvc --help)"
_OUTPUT = "Output"
_TIMEOUT = timedelta(seconds=10)


class SectionedCommand(TyperCommand):
    """A command whose help groups its options by their panel, without boxes."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401 (as below)
        """The arguments by their bare names."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 (typer keeps these types to itself)
        """Write a section for each panel, in the order of the parameters."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if isinstance(parameter, TyperArgument):
                sections["Arguments"].append((parameter.metavar or record[0], record[1]))
            else:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _connection_options(
    *,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help=f"Where keysvc is. Default: {DEFAULT_ADDRESS}", rich_help_panel=_CONNECTION
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Holds the caller's key, if KEYSVC_API_KEY does not.", rich_help_panel=_CONNECTION
        ),
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Use TLS, trusting what the system trusts.", rich_help_panel=_CONNECTION)
    ] = False,
    tls_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Use TLS, trusting the authorities in FILE.", rich_help_panel=_CONNECTION),
    ] = None,
    tls_client_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate of the caller.", rich_help_panel=_CONNECTION)
    ] = None,
    tls_client_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its private key.", rich_help_panel=_CONNECTION)
    ] = None,
    allow_plaintext: Annotated[
        bool,
        typer.Option(
            "--allow-plaintext",
            help="Call other machines without TLS: keys cross the net in clear.",
            rich_help_panel=_CONNECTION,
        ),
    ] = False,
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            metavar="DURATION",
            parser=parse_duration,
            help="How long to wait for an answer. Default: 10s",
            rich_help_panel=_CONNECTION,
        ),
    ] = None,
) -> ConnectionOptions:
    """The options for the connection, as typer reads them."""
    return ConnectionOptions(
        address=address,
        api_key_file=api_key_file,
        timeout=_TIMEOUT if timeout is None else timeout,
        tls=tls,
        tls_ca=tls_ca,
        tls_client_cert=tls_client_cert,
        tls_client_key=tls_client_key,
        allow_plaintext=allow_plaintext,
    )


def _output_options(quiet: str) -> tuple[inspect.Parameter, ...]:
    """The options for the output; ``quiet`` says what the command prints at least."""
    as_json = typer.Option("--json", help="Print the service's answer as JSON.", rich_help_panel=_OUTPUT)
    only = typer.Option("--quiet", "-q", help=f"Print only {quiet}.", rich_help_panel=_OUTPUT)
    return (_parameter("as_json", Annotated[bool, as_json]), _parameter("quiet", Annotated[bool, only]))


def _parameter(name: str, annotation: object) -> inspect.Parameter:
    """A flag of a command."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)


def client_command(
    app: typer.Typer, name: str, *, quiet: str, epilog: str | None = None
) -> Callable[[Callable[Concatenate["Client", Output, P], None]], Callable[Concatenate["Client", Output, P], None]]:
    """Make a function a command that calls keysvc.

    The function is given a client and an output, then its own options. The command has these and the options for
    connection and output; what goes wrong becomes a sentence and an exit code.

    Parameters:
        app: to which the command belongs.
        name: of the command.
        quiet: what it prints with `--quiet`, as in "Print only the id."
        epilog: ends its help.
    """

    def register(
        function: Callable[Concatenate["Client", Output, P], None],
    ) -> Callable[Concatenate["Client", Output, P], None]:
        shared = tuple(inspect.signature(_connection_options).parameters.values())
        command: Callable[..., None] = function
        own = tuple(inspect.signature(function).parameters.values())[2:]

        def run(*, as_json: bool, quiet: bool, **arguments: Any) -> None:  # noqa: ANN401 (as the function wants them)
            options = _connection_options(**{each.name: arguments.pop(each.name) for each in shared})
            output = Output(as_json=as_json, quiet=quiet, now=datetime.now(UTC))
            try:
                client = _connect(Connection.from_options(options, os.environ))
                try:
                    command(client, output, **arguments)
                finally:
                    client.close()
            except Failure as failure:
                output.failure(failure)
                raise typer.Exit(failure.exit_code) from None

        signature = inspect.Signature((*own, *_output_options(quiet), *shared))
        # typer reads the options from the signature; **arguments alone would tell it nothing.
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
        run.__doc__ = function.__doc__
        app.command(name, cls=SectionedCommand, epilog=epilog)(run)
        return function

    return register


def _connect(connection: Connection) -> "Client":
    """Load gRPC, silenced: what it has to say about a connection, the error of the call says better."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read once, when gRPC is loaded
    from keysvc.cli.client import Client  # noqa: PLC0415 (see there)

    return Client(connection)
