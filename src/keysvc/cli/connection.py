"""Where the client commands find keysvc, whom they trust there, and as whom they call."""

import ipaddress
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from keysvc.cli.failure import Failure

CLIENT_VARIABLES: tuple[str, ...] = (
    "KEYSVC_ADDRESS",
    "KEYSVC_API_KEY",
    "KEYSVC_API_KEY_FILE",
    "KEYSVC_TLS",
    "KEYSVC_TLS_CA",
    "KEYSVC_TLS_CLIENT_CERT",
    "KEYSVC_TLS_CLIENT_KEY",
    "KEYSVC_ALLOW_PLAINTEXT",
)
"""Every environment variable that a client command reads."""

DEFAULT_ADDRESS = "127.0.0.1:50051"

_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")
_SOCKET = "unix:"
_API_KEY = re.compile(r"[!-~]+")
_YES, _NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """What was said on the command line; None and False: nothing, so the environment is asked."""

    address: str | None
    api_key_file: Path | None
    timeout: timedelta
    tls: bool
    tls_ca: Path | None
    tls_client_cert: Path | None
    tls_client_key: Path | None
    allow_plaintext: bool


@dataclass(frozen=True, slots=True)
class Tls:
    """How to speak TLS, as PEM.

    Parameters:
        roots: the authorities to trust; None: those that gRPC brings along.
        certificate, key: who the client is; None: it has no certificate.
    """

    roots: bytes | None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """A checked way to a server.

    Parameters:
        address: `host:port` or `unix:path`.
        loopback: the address is one of this machine.
        api_key: key string of the caller; None: its certificate says who it is.
        tls: None: in clear.
        timeout_seconds: deadline of each call.
    """

    address: str
    loopback: bool
    api_key: str | None
    tls: Tls | None
    timeout_seconds: float

    def __repr__(self) -> str:
        """All but the key string."""
        return f"Connection({self.address!r})"

    @classmethod
    def from_options(cls, options: ConnectionOptions, environment: Mapping[str, str]) -> "Connection":
        """Join options and environment, options first; raise ``Failure`` where they make no safe connection."""
        address = options.address or environment.get("KEYSVC_ADDRESS") or DEFAULT_ADDRESS
        loopback = _is_loopback(address)
        tls = _read_tls(options, environment)
        allow_plaintext = options.allow_plaintext or _flag(environment, "KEYSVC_ALLOW_PLAINTEXT")
        if tls is None and not loopback and not allow_plaintext:
            raise Failure.usage(
                f"{address} is not on this machine, and without TLS the caller's key would cross the network in clear. "
                "Use --tls-ca or --tls; or --allow-plaintext, if nobody else can listen."
            )
        api_key = _read_api_key(options.api_key_file, environment)
        if api_key is None and (tls is None or tls.certificate is None):
            raise Failure.usage(
                "Who is calling? Set KEYSVC_API_KEY to the caller's key, or name a file: --api-key-file."
            )
        timeout_seconds = options.timeout.total_seconds()
        if timeout_seconds <= 0:
            raise Failure.usage("--timeout must be more than 0.")
        return cls(address, loopback, api_key, tls, timeout_seconds)


def _is_loopback(address: str) -> bool:
    """Whether an address is of this machine; raises ``Failure`` if it is none at all.

    Names are not resolved, since the answer could be another one a moment later; only `localhost` is known.
    """
    if address.startswith(_SOCKET) and len(address) > len(_SOCKET):
        return True
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) <= 0xFFFF:  # noqa: PLR2004 (the largest port)
        raise Failure.usage(f"{address} is no address: give host:port, [IPv6 address]:port or unix:path.")
    host = match["ipv6"] or match["host"]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _read_api_key(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The caller's key string: from the file that the command line names, else from the environment."""
    in_environment = environment.get("KEYSVC_API_KEY")
    file_in_environment = environment.get("KEYSVC_API_KEY_FILE")
    if file is None:
        if in_environment and file_in_environment:
            raise Failure.usage("KEYSVC_API_KEY and KEYSVC_API_KEY_FILE are both set: unset one of them.")
        file = Path(file_in_environment) if file_in_environment else None
    if file is not None:
        origin, text = str(file), _read(file).decode("ascii", "replace")
    elif in_environment:
        origin, text = "KEYSVC_API_KEY", in_environment
    else:
        return None
    text = text.strip()
    if not _API_KEY.fullmatch(text):
        raise Failure.usage(f"What {origin} holds is no key string: it must be one word of ASCII characters.")
    return text


def _read_tls(options: ConnectionOptions, environment: Mapping[str, str]) -> Tls | None:
    """How to speak TLS; None if nothing asks for it."""
    ca = options.tls_ca or _path(environment, "KEYSVC_TLS_CA")
    certificate = options.tls_client_cert or _path(environment, "KEYSVC_TLS_CLIENT_CERT")
    key = options.tls_client_key or _path(environment, "KEYSVC_TLS_CLIENT_KEY")
    if not (options.tls or _flag(environment, "KEYSVC_TLS") or ca or certificate or key):
        return None
    roots = _read_authorities(ca) if ca else _system_roots()
    if certificate is None and key is None:
        return Tls(roots)
    if certificate is None or key is None:
        raise Failure.usage("--tls-client-cert and --tls-client-key belong together: give both.")
    pair = Tls(roots, _read(certificate), _read(key))
    try:  # gRPC would say nothing but that it cannot connect
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError):
        raise Failure.usage(f"{certificate} and {key} are no certificate and its key in PEM.") from None
    return pair


def _read_authorities(file: Path) -> bytes:
    """The certificates of a PEM file."""
    pem = _read(file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):
        raise Failure.usage(f"{file} holds no certificates in PEM.") from None
    return pem


def _system_roots() -> bytes | None:
    """The authorities that the system trusts. gRPC itself would look at its own list only.

    None where they are not in one file that OpenSSL knows of.
    """
    context = ssl.create_default_context()
    return "".join(map(ssl.DER_cert_to_PEM_cert, context.get_ca_certs(binary_form=True))).encode() or None


def _read(file: Path) -> bytes:
    """A file's bytes, or a ``Failure`` that names it."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failure.usage(f"{file} cannot be read: {error.strerror}.") from None


def _path(environment: Mapping[str, str], variable: str) -> Path | None:
    """A path from the environment; empty is the same as absent."""
    text = environment.get(variable)
    return Path(text) if text else None


def _flag(environment: Mapping[str, str], variable: str) -> bool:
    """A yes or no from the environment; empty is the same as absent."""
    text = environment.get(variable, "").lower()
    if text in _YES:
        return True
    if not text or text in _NO:
        return False
    raise Failure.usage(f"{variable} must be true or false, not {text}.")
