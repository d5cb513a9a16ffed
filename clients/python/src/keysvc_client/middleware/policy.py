"""What an operator of a service says about it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from keysvc.core.scope import SCOPES_MAX, parse_scope
from keysvc_client.errors import ConfigurationError
from keysvc_client.values import EnvironmentWord, environment_value

_HEADER: Final = re.compile(r"[a-z0-9-]+")
_REALM: Final = re.compile(r"[ !#-\[\]-~]*")
"""What needs no escape between quotation marks."""

_PROXIES_MAX: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What requests need. Whatever is not stated here or with a route is closed.

    Parameters:
        workspace: that the service is for; keys of others are refused. None: of any that the caller may verify for;
            `Principal.workspace` tells.
        environment: that the service is for; None: keys of both are good.
        required_scopes: that every request needs, whatever its route needs besides.
        read_scope, write_scope: HTTP alone: GET and HEAD need the first, all other methods the second, WebSockets both.
            Both or none.
        public: paths that need no key, each as it is, such as `/health`; for gRPC full names of methods, such as
            `/grpc.health.v1.Health/Check`.
        allow_preflight: CORS preflight requests need no key; browsers send none with them. What answers them must
            be there.
        header: that keys come in: `Authorization: Bearer …`, or the name of a header that holds the key alone.
        trusted_proxies: how many proxies of your own every request comes through. The address of the end user is then
            the one that the first of them has added to `proxy_header`. 0: it is the address of the peer.
        proxy_header: that each proxy adds the address of its own peer to.
        realm: what the keys are for, in `WWW-Authenticate`.
        report_outcomes: tell keysvc, about once a second, how many requests of each key were done and how many failed.
            Needs `usage.write` besides `verify`.

    Raises:
        ConfigurationError: that is no policy.
    """

    workspace: str | None = None
    environment: EnvironmentWord | None = None
    required_scopes: Iterable[str] = ()
    read_scope: str | None = None
    write_scope: str | None = None
    public: Iterable[str] = ()
    allow_preflight: bool = False
    header: str = "authorization"
    trusted_proxies: int = 0
    proxy_header: str = "x-forwarded-for"
    realm: str = "api"
    report_outcomes: bool = True

    def __post_init__(self) -> None:
        """Check it, so that nothing of it fails when a request comes."""
        try:
            environment_value(self.environment)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        if (self.read_scope is None) != (self.write_scope is None):
            raise ConfigurationError("read_scope and write_scope belong together: give both or none")
        for name in ("header", "proxy_header"):
            header = getattr(self, name).lower()
            if not _HEADER.fullmatch(header):
                raise ConfigurationError(f"{name} must be the name of a header")
            object.__setattr__(self, name, header)
        if not 0 <= self.trusted_proxies <= _PROXIES_MAX:
            raise ConfigurationError(f"trusted_proxies must be a number of proxies, 0 to {_PROXIES_MAX}")
        if not _REALM.fullmatch(self.realm):
            raise ConfigurationError('realm must be printable ASCII without " and \\')
        if isinstance(self.public, str):
            raise ConfigurationError("public must be several paths, such as a list, not one")
        object.__setattr__(self, "public", frozenset(self.public))
        stated = [scope for scope in (self.read_scope, self.write_scope) if scope is not None]
        object.__setattr__(self, "required_scopes", checked_scopes(self.required_scopes))
        checked_scopes(stated)


def checked_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Scopes that a route needs, without repetitions, in an order of their own, so that equal questions look equal.

    Raises:
        ConfigurationError: they are none.
    """
    if isinstance(scopes, str):
        raise ConfigurationError("scopes must be several, such as a list, not one text")
    found = tuple(sorted(set(scopes)))
    if len(found) > SCOPES_MAX:
        raise ConfigurationError(f"no request may need more than {SCOPES_MAX} scopes")
    for scope in found:
        try:
            parse_scope(scope)
        except ValueError as error:
            raise ConfigurationError(f"the scope {scope} {error}") from None
    return found
