"""Where a client finds keysvc, whom it trusts there, and as whom it calls.

The environment variables are those of the `keysvc` command, and so are the rules: a key does not cross the network in
clear unless somebody has said so.
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from keysvc_client.credentials import KeyFile, KeySource, fixed_key
from keysvc_client.errors import ConfigurationError

DEFAULT_TARGET: Final = "127.0.0.1:50051"

VARIABLES: Final = (
    "KEYSVC_ADDRESS",
    "KEYSVC_API_KEY",
    "KEYSVC_API_KEY_FILE",
    "KEYSVC_TLS",
    "KEYSVC_TLS_CA",
    "KEYSVC_TLS_CLIENT_CERT",
    "KEYSVC_TLS_CLIENT_KEY",
    "KEYSVC_ALLOW_PLAINTEXT",
)
"""Every environment variable that is read."""

FilePath = str | os.PathLike[str]

_HOST_AND_PORT: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})"
)
_PORT_MAX: Final = 0xFFFF
_YES, _NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What a client was given; None: nothing, so the environment is asked. Its docstring says what each is."""

    target: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_key_file: FilePath | None = None
    tls: bool | None = None
    tls_ca: FilePath | None = None
    tls_client_cert: FilePath | None = None
    tls_client_key: FilePath | None = None
    tls_server_name: str | None = None
    allow_plaintext: bool | None = None


@dataclass(frozen=True, slots=True)
class Tls:
    """How to speak TLS, as PEM.

    Parameters:
        roots: the authorities to trust; None: those that gRPC brings along.
        certificate, key: who the client is; None: it has no certificate.
        server_name: that the servers' certificates must have; None: that of the target.
    """

    roots: bytes | None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """A checked way to keysvc.

    Parameters:
        target: as gRPC names it.
        loopback: all of it is on this machine.
        api_key: gives the caller's key; None: its certificate says who it is.
        tls: None: in clear.
    """

    target: str
    loopback: bool
    api_key: KeySource | None = field(repr=False)
    tls: Tls | None

    @classmethod
    def of(cls, given: Arguments, environment: Mapping[str, str]) -> "Connection":
        """Join arguments and environment, arguments first.

        Raises:
            ConfigurationError: they make no safe connection.
        """
        target, origin = given.target, "target"
        if target is None:
            target, origin = environment.get("KEYSVC_ADDRESS") or DEFAULT_TARGET, "KEYSVC_ADDRESS"
        loopback = _is_loopback(target, origin)
        tls = _read_tls(given, environment)
        if tls is None and not loopback and not _flag(given.allow_plaintext, "KEYSVC_ALLOW_PLAINTEXT", environment):
            raise ConfigurationError(
                f"{target} is not on this machine, and without TLS the caller's key would cross the network in clear: "
                "set tls_ca (KEYSVC_TLS_CA) or tls (KEYSVC_TLS); or allow_plaintext (KEYSVC_ALLOW_PLAINTEXT), "
                "if nobody else can listen"
            )
        if tls is not None and tls.server_name is None and "," in target:
            raise ConfigurationError(
                f"{target} has several addresses: set tls_server_name to the name that all their certificates have"
            )
        api_key = _key_source(given, environment)
        if api_key is None and (tls is None or tls.certificate is None):
            raise ConfigurationError(
                "nobody is calling: set api_key (KEYSVC_API_KEY) to the key of the caller, or api_key_file "
                "(KEYSVC_API_KEY_FILE) to a file that holds it"
            )
        return cls(target, loopback, api_key, tls)

    def metadata(self, request_id: str) -> tuple[tuple[str, str], ...]:
        """What a call says about itself."""
        if self.api_key is None:
            return (("x-request-id", request_id),)
        return (("x-request-id", request_id), ("authorization", f"Bearer {self.api_key().reveal()}"))


def _is_loopback(target: str, origin: str) -> bool:
    """Whether all of a target is on this machine.

    Names are not resolved, since the answer could be another one a moment later; only `localhost` is known.

    Raises:
        ConfigurationError: it is no target.
    """
    scheme, _, rest = target.partition(":")
    if scheme == "unix" and rest:
        return True
    if scheme in {"ipv4", "ipv6"}:
        hosts = [_host(each) for each in rest.split(",")]
        is_target = all(host is not None and _version(host) == scheme[-1] for host in hosts)
    else:
        hosts = [_host(target.removeprefix("dns:///"))]
        is_target = None not in hosts
    if not is_target:
        raise ConfigurationError(
            f"{origin} is no target: give host:port, [IPv6 address]:port, dns:///host:port, "
            f"ipv4:address:port,address:port or unix:path, not {target}"
        )
    return all(_is_here(host) for host in hosts if host is not None)


def _host(text: str) -> str | None:
    """The host of `host:port`; None if it is something else."""
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None or not 0 < int(match["port"]) <= _PORT_MAX:
        return None
    return match["ipv6"] or match["host"]


def _version(host: str) -> str:
    """The version of the protocol whose address this is; empty: it is a name."""
    try:
        return str(ipaddress.ip_address(host).version)
    except ValueError:
        return ""


def _is_here(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback if _version(host) else host.lower() == "localhost"


def _key_source(given: Arguments, environment: Mapping[str, str]) -> KeySource | None:
    """Where the caller's key comes from: argument, else variable, text before file; None: from nowhere."""
    if given.api_key is not None and given.api_key_file is not None:
        raise ConfigurationError("api_key and api_key_file are both given: leave one of them out")
    if given.api_key is not None:
        return fixed_key(given.api_key, "api_key")
    if given.api_key_file is not None:
        return KeyFile(Path(given.api_key_file), "api_key_file")
    text, file = environment.get("KEYSVC_API_KEY"), environment.get("KEYSVC_API_KEY_FILE")
    if text and file:
        raise ConfigurationError("KEYSVC_API_KEY and KEYSVC_API_KEY_FILE are both set: unset one of them")
    if text:
        return fixed_key(text, "KEYSVC_API_KEY")
    return KeyFile(Path(file), "KEYSVC_API_KEY_FILE") if file else None


def _read_tls(given: Arguments, environment: Mapping[str, str]) -> Tls | None:
    """How to speak TLS; None if nothing asks for it, or `tls` is False."""
    if given.tls is False:
        if given.tls_ca or given.tls_client_cert or given.tls_client_key or given.tls_server_name:
            raise ConfigurationError("tls is False, but more is given for TLS: leave one or the other out")
        return None
    ca = _path(given.tls_ca, "tls_ca", "KEYSVC_TLS_CA", environment)
    certificate = _path(given.tls_client_cert, "tls_client_cert", "KEYSVC_TLS_CLIENT_CERT", environment)
    key = _path(given.tls_client_key, "tls_client_key", "KEYSVC_TLS_CLIENT_KEY", environment)
    if not (_flag(given.tls, "KEYSVC_TLS", environment) or ca or certificate or key):
        return None
    roots = _read_authorities(*ca) if ca else _system_roots()
    if certificate is None and key is None:
        return Tls(roots, server_name=given.tls_server_name)
    if certificate is None or key is None:
        raise ConfigurationError(
            "a certificate and its key belong together: set tls_client_cert (KEYSVC_TLS_CLIENT_CERT) and "
            "tls_client_key (KEYSVC_TLS_CLIENT_KEY), or none of them"
        )
    pair = Tls(roots, _read(*certificate), _read(*key), given.tls_server_name)
    try:  # gRPC would say nothing but that it cannot connect
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate[0], key[0], password=lambda: "")
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(
            f"{certificate[0]} ({certificate[1]}) and {key[0]} ({key[1]}) are no certificate and its key in PEM"
        ) from None
    return pair


def _read_authorities(file: Path, origin: str) -> bytes:
    """The certificates of a PEM file."""
    pem = _read(file, origin)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(f"{file} ({origin}) holds no certificates in PEM") from None
    return pem


def _system_roots() -> bytes | None:
    """The authorities that the system trusts. gRPC itself would look at its own list only.

    None where they are not in one file that OpenSSL knows of.
    """
    context = ssl.create_default_context()
    return "".join(map(ssl.DER_cert_to_PEM_cert, context.get_ca_certs(binary_form=True))).encode() or None


def _read(file: Path, origin: str) -> bytes:
    """A file's bytes."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file} ({origin}) cannot be read: {error.strerror}") from None


def _path(
    argument: FilePath | None, name: str, variable: str, environment: Mapping[str, str]
) -> tuple[Path, str] | None:
    """A path, and what named it; an empty variable is the same as an absent one."""
    if argument is not None:
        return Path(argument), name
    text = environment.get(variable)
    return (Path(text), variable) if text else None


def _flag(argument: bool | None, variable: str, environment: Mapping[str, str]) -> bool:  # noqa: FBT001
    """A yes or no; an empty variable is the same as an absent one."""
    if argument is not None:
        return argument
    text = environment.get(variable, "").lower()
    if text in _YES:
        return True
    if not text or text in _NO:
        return False
    raise ConfigurationError(f"{variable} must be true or false, not {text}")
