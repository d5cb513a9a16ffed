"""Settings of the server commands, from options and ``KEYSVC_…`` variables, checked before anything starts."""

import ipaddress
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from keysvc.core.pepper import Peppers

SERVER_VARIABLES: Final = (
    "KEYSVC_LISTEN",
    "KEYSVC_DATA_DIR",
    "KEYSVC_DATABASE_URL",
    "KEYSVC_PEPPERS",
    "KEYSVC_PEPPERS_FILE",
    "KEYSVC_TLS_CERT",
    "KEYSVC_TLS_KEY",
    "KEYSVC_TLS_CLIENT_CA",
    "KEYSVC_ALLOW_PLAINTEXT",
)
"""Every environment variable that a server command reads."""

TEST_VARIABLES: Final = ("KEYSVC_TEST_DATABASE_URL",)
"""Every environment variable that the tests read."""

_KUBERNETES_PREFIXES: Final = ("KEYSVC_SERVICE_", "KEYSVC_PORT")
"""What Kubernetes sets in every pod beside a Service called keysvc."""

_PORT_MAX = 65535


class SettingError(ValueError):
    """A setting has a bad value; the text names it and says what is allowed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked settings.

    Parameters:
        listen: ``host:port``; port 0 takes a free one.
        data_dir: folder of the embedded database; None: ``.keysvc``. Not together with ``database_url``.
        database_url: whatever libpq takes.
        peppers: given ones; None: those of the embedded database's folder.
        needs_peppers: the command handles keys.
        tls_cert, tls_key, tls_client_ca: PEM files.
        allow_plaintext: bind beyond loopback without TLS.

    Raises:
        SettingError: a value is bad.
    """

    listen: str = "127.0.0.1:50051"
    data_dir: Path | None = None
    database_url: str | None = None
    peppers: Peppers | None = None
    needs_peppers: bool = True
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    allow_plaintext: bool = False

    @property
    def folder(self) -> Path:
        """The folder of the embedded database."""
        return self.data_dir or Path(".keysvc")

    def __post_init__(self) -> None:
        """Check everything that can be checked before something starts."""
        host = _host(self.listen)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SettingError("--tls-cert and --tls-key (KEYSVC_TLS_CERT, KEYSVC_TLS_KEY) must be given together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise SettingError("--tls-client-ca (KEYSVC_TLS_CLIENT_CA) needs --tls-cert and --tls-key")
        for option, path in (
            ("--tls-cert", self.tls_cert),
            ("--tls-key", self.tls_key),
            ("--tls-client-ca", self.tls_client_ca),
        ):
            if path is not None and not os.access(path, os.R_OK):
                raise SettingError(f"{option} (KEYSVC_{option[2:].upper().replace('-', '_')}): cannot read {path}")
        if self.tls_cert is None and not self.allow_plaintext and not _is_loopback(host):
            raise SettingError(
                f"--listen (KEYSVC_LISTEN): {self.listen} is not a loopback address: keys would cross the network in "
                "clear. Give --tls-cert and --tls-key, or --allow-plaintext if something else encrypts"
            )
        if self.database_url is not None:
            if self.data_dir is not None:
                raise SettingError(
                    "--data-dir (KEYSVC_DATA_DIR) and --database-url (KEYSVC_DATABASE_URL) must not be given both"
                )
            _check_database_url(self.database_url)
            if self.peppers is None and self.needs_peppers:
                raise SettingError(
                    "KEYSVC_PEPPERS or --peppers-file (KEYSVC_PEPPERS_FILE) must be given with an external database: "
                    "one pepper of 64 hex digits, such as `openssl rand -hex 32` prints; keep it, keys die with it"
                )


def check_variables(environment: Mapping[str, str], client_variables: tuple[str, ...]) -> None:
    """Raise ``SettingError`` for a ``KEYSVC_…`` variable that nothing reads: most likely a typing error."""
    known = {*SERVER_VARIABLES, *TEST_VARIABLES, *client_variables}
    for name in sorted(environment):
        if name.startswith("KEYSVC_") and name not in known and not name.startswith(_KUBERNETES_PREFIXES):
            raise SettingError(f"{name} is not a variable of keysvc; known are {', '.join(sorted(known))}")


def read_peppers(text: str | None, path: Path | None) -> Peppers | None:
    """Peppers from ``KEYSVC_PEPPERS`` or a file; None: neither is given.

    Raises:
        SettingError: both are given, or what is given is none.
    """
    if text is not None and path is not None:
        raise SettingError("KEYSVC_PEPPERS and --peppers-file (KEYSVC_PEPPERS_FILE) must not be given both")
    if path is not None:
        try:
            text = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            raise SettingError(f"--peppers-file (KEYSVC_PEPPERS_FILE): cannot read {path}") from None
    if text is None:
        return None
    try:
        return Peppers.parse(text)
    except ValueError as error:
        source = "KEYSVC_PEPPERS" if path is None else f"--peppers-file (KEYSVC_PEPPERS_FILE): {path}"
        raise SettingError(f"{source} {error}") from None


def own_peppers(data_dir: Path) -> Peppers:
    """The peppers beside an embedded database, made on its first start, readable by their owner alone."""
    path = data_dir / "peppers"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        peppers = read_peppers(None, path)
        if peppers is None:
            raise SettingError(f"{path} has no pepper") from None
        return peppers
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        key = secrets.token_bytes(32)
        file.write(key.hex() + "\n")
    return Peppers([key])


def _host(listen: str) -> str:
    """The host of ``host:port``."""
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > _PORT_MAX:
        raise SettingError("--listen (KEYSVC_LISTEN) must be host:port such as 127.0.0.1:50051 or [::1]:50051")
    return host.strip("[]")


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_database_url(url: str) -> None:
    """Raise ``SettingError`` that does not repeat the URL, which may hold a password."""
    try:
        is_url = url.startswith(("postgresql://", "postgres://")) and conninfo_to_dict(url) is not None
    except ProgrammingError:
        is_url = False
    if not is_url:
        raise SettingError("--database-url (KEYSVC_DATABASE_URL) must be postgresql://user:password@host:5432/database")
