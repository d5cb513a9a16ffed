"""Settings of the server commands, from options and ``KEYSVC_…`` variables, checked before anything starts."""

import contextlib
import ipaddress
import os
import re
import secrets
import ssl
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from keysvc.capacity import CONNECTIONS_ENOUGH
from keysvc.core.certificate_callers import CertificateCallers
from keysvc.core.pepper import Peppers
from keysvc.lease.memory import BYTES_MAX
from keysvc.lease.terms import Terms

SERVER_VARIABLES: Final = (
    "KEYSVC_LISTEN",
    "KEYSVC_DATA_DIR",
    "KEYSVC_DATABASE_URL",
    "KEYSVC_PEPPERS",
    "KEYSVC_PEPPERS_FILE",
    "KEYSVC_TLS_CERT",
    "KEYSVC_TLS_KEY",
    "KEYSVC_TLS_CLIENT_CA",
    "KEYSVC_TLS_CALLERS",
    "KEYSVC_ALLOW_PLAINTEXT",
    "KEYSVC_LEASE_SECONDS",
    "KEYSVC_RENEW_SECONDS",
    "KEYSVC_STALE_SECONDS",
    "KEYSVC_CLOCK_RATE",
    "KEYSVC_LEASE_MARGIN_SECONDS",
    "KEYSVC_MEMORY_MIB",
    "KEYSVC_WORKERS",
    "KEYSVC_CONNECTIONS",
)
"""Every environment variable that a server command reads."""

TEST_VARIABLES: Final = ("KEYSVC_TEST_DATABASE_URL",)
"""Every environment variable that the tests read."""

_KUBERNETES_PREFIXES: Final = ("KEYSVC_SERVICE_", "KEYSVC_PORT")
"""What Kubernetes sets in every pod beside a Service called keysvc."""

_PORT_MAX: Final = 65535
_LISTEN: Final = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")
_DATABASE_URL: Final = re.compile(
    r"postgres(?:ql)?://"
    r"(?:[^@:/?#\s]+(?::[^@:/?#\s]*)?@)?"  # user:password@
    r"(?:(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._%-]*)(?::[0-9]*)?(?:,|(?=[/?]|$)))*"  # host:port, several with commas
    r"(?:/[^/?#\s]*)?(?:\?\S*)?"
)


class SettingError(ValueError):
    """A setting has a bad value; the text names it and says what is allowed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked settings.

    Parameters:
        listen: ``host:port``; port 0 takes a free one.
        data_dir: folder of the embedded database; None: ``.keysvc``. Not together with ``database_url``.
        database_url: ``postgresql://…``; not shown, it may hold a password.
        peppers: given ones; None: those of the embedded database's folder.
        needs_peppers: the command handles keys.
        tls_cert, tls_key, tls_client_ca: PEM files.
        tls_callers: TOML file of certificate names that are callers.
        allow_plaintext: bind beyond loopback without TLS.
        terms: of the leases.
        memory_mib: what remembered keys may take, in each worker.
        workers: how many processes serve.
        connections: how many connections to the database each of them may have.

    Raises:
        SettingError: a value is bad.
    """

    listen: str = "127.0.0.1:50051"
    data_dir: Path | None = None
    database_url: str | None = field(default=None, repr=False)
    peppers: Peppers | None = None
    needs_peppers: bool = True
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tls_callers: Path | None = None
    allow_plaintext: bool = False
    terms: Terms = field(default_factory=Terms)
    memory_mib: int = BYTES_MAX >> 20
    workers: int = 1
    connections: int = CONNECTIONS_ENOUGH

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
        if self.tls_callers is not None and self.tls_client_ca is None:
            raise SettingError(
                "--tls-callers (KEYSVC_TLS_CALLERS) needs --tls-client-ca, which says who signs the names"
            )
        self.check_tls()
        if self.tls_callers is not None:
            read_certificate_callers(self.tls_callers)
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

    def check_tls(self) -> None:
        """Raise ``SettingError`` naming the file of TLS that cannot be used."""
        if self.tls_cert is not None and self.tls_key is not None:
            _check_tls(self.tls_cert, self.tls_key, self.tls_client_ca)


def check_variables(environment: Mapping[str, str], client_variables: tuple[str, ...]) -> None:
    """Raise ``SettingError`` for a ``KEYSVC_…`` variable that nothing reads: most likely a typing error."""
    known = {*SERVER_VARIABLES, *TEST_VARIABLES, *client_variables}
    for name in sorted(environment):
        if name.startswith("KEYSVC_") and name not in known and not name.startswith(_KUBERNETES_PREFIXES):
            raise SettingError(f"{name} is not a variable of keysvc; known are {', '.join(sorted(known))}")


def read_terms(values: Mapping[str, float]) -> Terms:
    """The terms of leases.

    Parameters:
        values: by name of the parameter.

    Raises:
        SettingError: they do not fit.
    """
    try:
        return Terms(**values)
    except ValueError as error:
        name, _, allowed = str(error).partition(" ")
        name = name.replace("margin", "lease_margin")
        raise SettingError(f"--{name.replace('_', '-')} (KEYSVC_{name.upper()}) {allowed}") from None


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


def read_certificate_callers(path: Path) -> CertificateCallers:
    """The callers without a key, from a file in TOML.

    Raises:
        SettingError: it cannot be used; the text names the entry and says what is allowed.
    """
    option = "--tls-callers (KEYSVC_TLS_CALLERS)"
    try:
        return CertificateCallers.parse(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingError(f"{option}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingError(f"{option}: {path} is not in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{option}: {path} is no TOML: {error}") from None
    except ValueError as error:
        raise SettingError(f"{option}: {path} {error}") from None


def own_peppers(data_dir: Path, *, is_new: bool) -> Peppers:
    """The peppers beside an embedded database, readable by their owner alone.

    Parameters:
        is_new: no key has been made yet, so that missing peppers are made now; later they are missed.
    """
    path = data_dir / "peppers"
    if is_new and not path.exists():
        key = secrets.token_bytes(32)
        # Whole or not at all, and whoever comes first wins: keys made under a lost pepper would be lost too.
        with tempfile.NamedTemporaryFile("w", dir=data_dir, prefix="peppers-", encoding="ascii") as file:
            file.write(key.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
        folder = os.open(data_dir, os.O_RDONLY)
        os.fsync(folder)  # or a power cut could undo the link
        os.close(folder)
    try:
        return Peppers.parse(path.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        raise SettingError(f"cannot read the peppers of the embedded database in {path}: its keys need them") from None
    except ValueError as error:
        raise SettingError(f"{path} {error}") from None


def _check_tls(cert: Path, key: Path, client_ca: Path | None) -> None:
    """Raise ``SettingError`` naming the file that is no such PEM: gRPC would only say that it cannot listen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    checks: list[tuple[str, Path | None, Callable[[], object]]] = [
        ("--tls-cert (KEYSVC_TLS_CERT)", cert, lambda: context.load_verify_locations(cert)),
        ("--tls-key (KEYSVC_TLS_KEY)", key, lambda: context.load_cert_chain(cert, key, password=b"")),
        ("--tls-client-ca (KEYSVC_TLS_CLIENT_CA)", client_ca, lambda: context.load_verify_locations(client_ca)),
    ]
    for option, path, check in checks:
        if path is None:
            continue
        try:
            path.read_bytes()
            check()
        except ssl.SSLError:
            what = "the private key of --tls-cert" if path is key else "a certificate"
            raise SettingError(f"{option}: {path} is not {what} in PEM") from None
        except OSError as error:
            raise SettingError(f"{option}: cannot read {path}: {error.strerror}") from None


def _host(listen: str) -> str:
    """The host of ``host:port``."""
    match = _LISTEN.fullmatch(listen)
    if match is None or int(match["port"]) > _PORT_MAX:
        raise SettingError("--listen (KEYSVC_LISTEN) must be host:port such as 127.0.0.1:50051 or [::1]:50051")
    return match["ipv6"] or match["host"]


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_database_url(url: str) -> None:
    """Raise ``SettingError`` that does not repeat the URL, which may hold a password.

    libpq takes almost any text for a URL, and then names as host what was meant as a password.
    """
    try:
        parts = conninfo_to_dict(url) if _DATABASE_URL.fullmatch(url) else None
    except ProgrammingError:
        parts = None
    if parts is None:
        raise SettingError(
            "--database-url (KEYSVC_DATABASE_URL) must be postgresql://user:password@host:5432/database, "
            "with other characters than letters, digits and -._~ of a password written as %XX"
        )
