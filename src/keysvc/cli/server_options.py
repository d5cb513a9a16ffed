"""The options of the commands that run where the database is; each is a variable too."""

from pathlib import Path
from typing import Annotated

import typer

from keysvc.capacity import CONNECTIONS_LEAST, CONNECTIONS_MAX, WORKERS_MAX

ListenOption = Annotated[
    str, typer.Option(envvar="KEYSVC_LISTEN", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.")
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        envvar="KEYSVC_DATA_DIR", metavar="DIR", help="Folder of an embedded PostgreSQL of its own. Default: .keysvc"
    ),
]
DatabaseUrlOption = Annotated[
    str | None,
    typer.Option(
        envvar="KEYSVC_DATABASE_URL",
        metavar="URL",
        help="PostgreSQL 14 or newer instead: postgresql://user@host/database",
    ),
]
PeppersFileOption = Annotated[
    Path | None,
    typer.Option(
        envvar="KEYSVC_PEPPERS_FILE",
        metavar="FILE",
        help="Peppers, comma-separated, newest first, if KEYSVC_PEPPERS does not hold them. Must be given with an "
        "external database; beside an embedded one they are made.",
    ),
]
TlsCertOption = Annotated[
    Path | None, typer.Option(envvar="KEYSVC_TLS_CERT", metavar="FILE", help="Certificate chain of the server, PEM.")
]
TlsKeyOption = Annotated[
    Path | None, typer.Option(envvar="KEYSVC_TLS_KEY", metavar="FILE", help="Its private key, PEM.")
]
TlsClientCaOption = Annotated[
    Path | None,
    typer.Option(
        envvar="KEYSVC_TLS_CLIENT_CA",
        metavar="FILE",
        help="Clients must have a certificate signed by one of these, PEM.",
    ),
]
TlsCallersOption = Annotated[
    Path | None,
    typer.Option(
        envvar="KEYSVC_TLS_CALLERS",
        metavar="FILE",
        help="Names of clients' certificates that need no key, and their permissions, TOML.",
    ),
]
AllowPlaintextOption = Annotated[
    bool,
    typer.Option(
        "--allow-plaintext",
        envvar="KEYSVC_ALLOW_PLAINTEXT",
        help="Listen beyond this machine without TLS: keys cross the network in clear.",
    ),
]
LeaseSecondsOption = Annotated[
    float,
    typer.Option(
        envvar="KEYSVC_LEASE_SECONDS",
        metavar="SECONDS",
        help="How long answers come from memory without word from the database.",
    ),
]
RenewSecondsOption = Annotated[
    float | None,
    typer.Option(
        envvar="KEYSVC_RENEW_SECONDS",
        metavar="SECONDS",
        help="How often that is renewed. Default: a sixth of the lease.",
    ),
]
StaleSecondsOption = Annotated[
    float,
    typer.Option(
        envvar="KEYSVC_STALE_SECONDS",
        metavar="SECONDS",
        help="How long to go on from memory while the database is away; a revocation may have to wait so much longer.",
    ),
]
ClockRateOption = Annotated[
    float,
    typer.Option(
        envvar="KEYSVC_CLOCK_RATE",
        metavar="FACTOR",
        help="How much faster one machine's clock may go than another's; the same everywhere.",
    ),
]
LeaseMarginSecondsOption = Annotated[
    float,
    typer.Option(
        envvar="KEYSVC_LEASE_MARGIN_SECONDS",
        metavar="SECONDS",
        help="Added to every wait for leases to end; the same everywhere.",
    ),
]
MemoryOption = Annotated[
    int,
    typer.Option(
        envvar="KEYSVC_MEMORY_MIB",
        metavar="MIB",
        min=1,
        help="What remembered keys may take in each worker; most take under 1 KB.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        envvar="KEYSVC_WORKERS",
        metavar="COUNT",
        min=1,
        max=WORKERS_MAX,
        help="How many processes serve. Default: one for each processor that it may use, up to 16.",
    ),
]
ConnectionsOption = Annotated[
    int | None,
    typer.Option(
        envvar="KEYSVC_CONNECTIONS",
        metavar="COUNT",
        min=CONNECTIONS_LEAST,
        max=CONNECTIONS_MAX,
        help="How many connections to the database each worker may have. Default: 12, but all together 91.",
    ),
]

CLOCK_RATE = 1.2
LEASE_MARGIN_SECONDS = 0.05
LISTEN_DEFAULT = "127.0.0.1:50051"
