"""The command `keysvc`: all its commands, and how each of them ends."""

import importlib.metadata
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from keysvc.cli.audit import app as audit
from keysvc.cli.failure import ExitCode, Failure
from keysvc.cli.keys import app as keys
from keysvc.cli.report import report
from keysvc.cli.server import register as register_server
from keysvc.cli.text import find_key_string_hint, write
from keysvc.cli.upkeep import register as register_upkeep
from keysvc.cli.usage import register as register_usage
from keysvc.cli.verify import register as register_verify
from keysvc.cli.workspaces import app as workspaces

_EPILOG = """\b
The client commands read
  KEYSVC_ADDRESS          where keysvc is, 127.0.0.1:50051 if not set
  KEYSVC_API_KEY          the caller's key, or
  KEYSVC_API_KEY_FILE     a file that holds it; never an argument
  KEYSVC_TLS, KEYSVC_TLS_CA, KEYSVC_TLS_CLIENT_CERT, KEYSVC_TLS_CLIENT_KEY,
  KEYSVC_ALLOW_PLAINTEXT  as the options of these names

\b
Exit codes
  0  done; verify: the key is valid
  1  refused by the service, or bad input
  2  wrong usage
  3  verify: the key is refused
  4  the service is not available, or did not answer in time"""

_ORDER = ("workspaces", "keys", "verify", "usage", "audit")


class RootGroup(TyperGroup):
    """The commands in the order of use: those of the client, then those of the server."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 (typer keeps this type to itself)
        """The names of all commands."""
        return [*_ORDER, *(name for name in super().list_commands(ctx) if name not in _ORDER)]


app = typer.Typer(
    name="keysvc",
    cls=RootGroup,
    help="Issue API keys, verify them, and revoke them for good.",
    epilog=_EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
register_server(app)
app.add_typer(workspaces, name="workspaces")
app.add_typer(keys, name="keys")
register_verify(app)
register_usage(app)
register_upkeep(app)
app.add_typer(audit, name="audit")


def _open_streams() -> None:
    """Make standard output and error safe to write to: closed ones take everything, and no character is too strange."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuse arguments that are no text, and key strings: an argument is seen by everybody on the machine."""
    for argument in arguments:
        if any("\ud800" <= each <= "\udfff" for each in argument):  # how Python keeps bytes that are no text
            raise Failure.usage(f"{argument.encode(errors='backslashreplace').decode()} is not UTF-8.")
        hint = find_key_string_hint(argument)
        if hint is not None:
            raise Failure.usage(
                f"One argument is a key string ({hint}…). Every process on this machine can see it there, and the "
                "shell remembers it, so keysvc takes key strings from standard input only: see keysvc verify --help. "
                f"The key it belongs to: keysvc keys list --hint-prefix {hint}"
            )


def _usage(error: typer.TyperException, *, as_json: bool) -> ExitCode:
    """Say what is wrong with a command line."""
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help; typer keeps the type to itself
        write(sys.stderr, error.format_message() + "\n")
        return ExitCode.USAGE
    message = " ".join(error.format_message().replace("Value error, ", "").split())
    failure = Failure.usage(message)
    context = getattr(error, "ctx", None)
    if context is not None:
        failure.advice = f"Help: {context.command_path} --help"
    report(failure, as_json=as_json)
    return ExitCode.USAGE


def _mistake(error: Exception) -> Failure:
    """Where keysvc itself is wrong. The error's own text stays hidden: it might hold key material."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return Failure("INTERNAL", f"this is a mistake in keysvc: {type(error).__name__}{place}. Please report it.")


def _version(wanted: bool) -> None:  # noqa: FBT001 (typer calls it)
    """Print the version and end."""
    if wanted:
        try:
            version = importlib.metadata.version("keysvc")
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed)"
        write(sys.stdout, f"keysvc {version}\n")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of `keysvc` itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; nothing but a sentence reaches the person at the terminal.

    Parameters:
        arguments: without the name of the program; None: those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _open_streams()
    try:
        _check_arguments(arguments)
        result = typer.main.get_command(app).main(arguments, prog_name="keysvc", standalone_mode=False)
    except Failure as failure:
        report(failure, as_json="--json" in arguments)
        return failure.exit_code
    except typer.TyperException as error:
        return _usage(error, as_json="--json" in arguments)
    except (typer.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except OSError as error:
        report(Failure("OUTPUT", f"the answer cannot be written: {error.strerror or error}."), as_json=False)
        return ExitCode.REFUSED
    except Exception as error:
        if sys.flags.dev_mode:  # python -X dev: for those who write keysvc
            raise
        report(_mistake(error), as_json="--json" in arguments)
        return ExitCode.REFUSED
    return result if isinstance(result, int) else ExitCode.DONE
