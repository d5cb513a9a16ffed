"""`keysvc serve`, `bootstrap` and `migrate`: the commands that run where the database is."""

import asyncio
import os
import shlex
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from keysvc.capacity import connections_each, usable_cores
from keysvc.cli.command import SectionedCommand
from keysvc.cli.connection import CLIENT_VARIABLES
from keysvc.cli.failure import ExitCode, Failure
from keysvc.cli.server_options import (
    CLOCK_RATE,
    LEASE_MARGIN_SECONDS,
    LISTEN_DEFAULT,
    AllowPlaintextOption,
    ClockRateOption,
    ConnectionsOption,
    DatabaseUrlOption,
    DataDirOption,
    LeaseMarginSecondsOption,
    LeaseSecondsOption,
    ListenOption,
    MemoryOption,
    PeppersFileOption,
    RenewSecondsOption,
    StaleSecondsOption,
    TlsCallersOption,
    TlsCertOption,
    TlsClientCaOption,
    TlsKeyOption,
    WorkersOption,
)
from keysvc.cli.start_page import show_start_page
from keysvc.stopping import interruptible

if TYPE_CHECKING:
    from keysvc.settings import Settings

T = TypeVar("T")

AnotherOption = Annotated[bool, typer.Option("--another", help="Create one even if there is one already.")]


def register(app: typer.Typer) -> None:
    """Add the server commands."""
    app.command("serve", cls=SectionedCommand)(serve)
    app.command("bootstrap", cls=SectionedCommand)(bootstrap)
    app.command("migrate", cls=SectionedCommand)(migrate)


def serve(
    *,
    listen: ListenOption = LISTEN_DEFAULT,
    data_dir: DataDirOption = None,
    database_url: DatabaseUrlOption = None,
    peppers_file: PeppersFileOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_client_ca: TlsClientCaOption = None,
    tls_callers: TlsCallersOption = None,
    allow_plaintext: AllowPlaintextOption = False,
    lease_seconds: LeaseSecondsOption = 3.0,
    renew_seconds: RenewSecondsOption = None,
    stale_seconds: StaleSecondsOption = 0.0,
    clock_rate: ClockRateOption = CLOCK_RATE,
    lease_margin_seconds: LeaseMarginSecondsOption = LEASE_MARGIN_SECONDS,
    memory_mib: MemoryOption = 256,
    workers: WorkersOption = None,
    connections: ConnectionsOption = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Every option can also be given as the variable beside it. Peppers come from KEYSVC_PEPPERS or a file, never from the
    command line.
    """
    # gRPC would add lines of its own to the log, one for each handshake that fails. It asks once: when it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    workers = workers or usable_cores()
    settings = server_settings(
        listen,
        data_dir,
        database_url,
        peppers_file,
        tls_cert,
        tls_key,
        tls_client_ca,
        tls_callers,
        allow_plaintext=allow_plaintext,
        lease={
            "lease_seconds": lease_seconds,
            "renew_seconds": lease_seconds / 6 if renew_seconds is None else renew_seconds,
            "stale_seconds": stale_seconds,
            "clock_rate": clock_rate,
            "margin_seconds": lease_margin_seconds,
        },
        memory_mib=memory_mib,
        workers=workers,
        connections=connections or connections_each(workers),
    )
    options = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
    if database_url is not None:
        options = " …"  # the URL may hold a password
    announce = partial(show_start_page, bootstrap_options=options)
    # After the settings, and not at the top: it takes its time to load. The client commands do without.
    from keysvc import app, serving  # noqa: PLC0415
    from keysvc import workers as several  # noqa: PLC0415

    if workers == 1:
        run_here(app.serve(settings, announce, show_operator_key=sys.stdout.isatty()), serving.run)
    else:
        run_here(several.serve(settings, announce, show_operator_key=sys.stdout.isatty()))


def bootstrap(
    *,
    another: AnotherOption = False,
    listen: ListenOption = LISTEN_DEFAULT,
    data_dir: DataDirOption = None,
    database_url: DatabaseUrlOption = None,
    peppers_file: PeppersFileOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_client_ca: TlsClientCaOption = None,
    tls_callers: TlsCallersOption = None,
    allow_plaintext: AllowPlaintextOption = False,
) -> None:
    """Create the first operator key and print it, alone, on standard output.

    Migrates the database first. Takes the options of `keysvc serve`, and works beside a running server.
    """
    settings = server_settings(
        listen,
        data_dir,
        database_url,
        peppers_file,
        tls_cert,
        tls_key,
        tls_client_ca,
        tls_callers,
        allow_plaintext=allow_plaintext,
    )
    from keysvc import app  # noqa: PLC0415 (as above)

    is_new = settings.database_url is None and not (settings.folder / "cluster").exists()
    operator_key = run_here(interruptible(app.bootstrap(settings, another=another)))
    if is_new:
        typer.echo(f"There was no database in {settings.folder}: made a new one.", err=True)
    if operator_key is None:
        typer.echo("There is an operator key already; --another creates one more.", err=True)
        raise typer.Exit(ExitCode.REFUSED)
    typer.echo(operator_key.reveal())


def migrate(
    *,
    data_dir: DataDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Bring the database to the schema of this version.

    Safe to run at any time and from several places at once: one after the other does it.
    """
    settings = server_settings(LISTEN_DEFAULT, data_dir, database_url, needs_peppers=False)
    from keysvc import storage  # noqa: PLC0415 (as above)

    before, now = run_here(interruptible(storage.migrate_database(settings)))
    if before == now:
        typer.echo(f"The database has schema {now} already.")
    else:
        typer.echo(f"The database had schema {before or 'none'} and now has {now}.")


def server_settings(  # noqa: PLR0917 (the options of a server, in their order)
    listen: str,
    data_dir: Path | None,
    database_url: str | None,
    peppers_file: Path | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    tls_client_ca: Path | None = None,
    tls_callers: Path | None = None,
    *,
    allow_plaintext: bool = False,
    needs_peppers: bool = True,
    lease: dict[str, float] | None = None,
    memory_mib: int = 1,
    workers: int = 1,
    connections: int | None = None,
) -> "Settings":
    """Checked settings; a bad one ends the command with a sentence that names it."""
    from keysvc import logs  # noqa: PLC0415 (as above)
    from keysvc.settings import SettingError, Settings, check_variables, read_peppers, read_terms  # noqa: PLC0415 (as above)

    logs.configure()
    try:
        check_variables(os.environ, CLIENT_VARIABLES)
        return Settings(
            listen=listen,
            data_dir=data_dir,
            database_url=database_url,
            peppers=read_peppers(os.environ.get("KEYSVC_PEPPERS"), peppers_file) if needs_peppers else None,
            needs_peppers=needs_peppers,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
            tls_callers=tls_callers,
            allow_plaintext=allow_plaintext,
            terms=read_terms(lease or {}),
            memory_mib=memory_mib,
            workers=workers,
            **({} if connections is None else {"connections": connections}),
        )
    except SettingError as error:
        raise _refused(error) from None


def run_here(work: Coroutine[Any, Any, T], run: Callable[[Coroutine[Any, Any, T]], T] = asyncio.run) -> T:
    """Run the command; a start that fails ends it with a sentence."""
    from keysvc.storage import StartError  # noqa: PLC0415 (as above)

    try:
        return run(work)
    except StartError as error:
        raise _refused(error) from None
    except Failure:
        raise
    except asyncio.CancelledError:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except Exception as error:
        import structlog  # noqa: PLC0415 (as above)

        structlog.get_logger("keysvc").exception("failed")
        raise typer.Exit(ExitCode.REFUSED) from error


def _refused(error: Exception) -> typer.Exit:
    """Log why a start is refused."""
    import structlog  # noqa: PLC0415 (as above)

    structlog.get_logger("keysvc").error("start refused", reason=str(error))
    return typer.Exit(ExitCode.REFUSED)
