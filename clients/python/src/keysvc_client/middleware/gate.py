"""Decides about requests, whatever framework they come through: what to ask keysvc, and what its answer means.

It waits for nothing. Who has asked keysvc, with asyncio or without, brings the answer back.
"""

import logging
import re
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from keysvc.core.address import parse_address
from keysvc.core.keystring import is_key_string_in
from keysvc_client.errors import KeysvcError, ResourceExhausted, Unavailable
from keysvc_client.middleware.policy import Policy, checked_scopes
from keysvc_client.middleware.principal import Principal
from keysvc_client.middleware.refusals import FORBIDDEN, Refusal, Refusals
from keysvc_client.values import EnvironmentWord, new_request_id
from keysvc_client.verification import Verdict, Verification

_TOKEN: Final = re.compile(r"[!-~]+")
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
_PORT: Final = re.compile(r"\[(?P<ipv6>[^]]*)\](?::[0-9]+)?|(?P<ipv4>[0-9.]+):[0-9]+")
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})

TOLD_SECONDS: Final = 1.0
"""The log tells of one request in so long that nobody judged: during an outage there are many, for one reason."""

_log = logging.getLogger("keysvc_client")


class Question(NamedTuple):
    """What keysvc is asked about a request: the arguments of `verify`."""

    key_string: str
    workspace: str | None
    environment: EnvironmentWord | None
    required_scopes: tuple[str, ...]
    source_ip: str | None
    request_id: str


class Headers(NamedTuple):
    """Those of a request that matter here, each as often as it came."""

    keys: Sequence[str]
    request_ids: Sequence[str]
    forwarded: Sequence[str]


class Gate:
    """Decides about requests, by a policy."""

    def __init__(self, policy: Policy) -> None:
        self._tells_at = 0.0
        self._is_bearer = policy.header == "authorization"
        self._proxies = policy.trusted_proxies
        self._refusals = Refusals(policy.header, policy.realm)
        self.public: Final = frozenset(policy.public)
        self._workspace = policy.workspace
        self._environment = policy.environment
        always = tuple(policy.required_scopes)
        self._always = self._reading = self._writing = self._both = checked_scopes(always)
        if policy.read_scope is not None and policy.write_scope is not None:
            self._reading = checked_scopes((*always, policy.read_scope))
            self._writing = checked_scopes((*always, policy.write_scope))
            self._both = checked_scopes((*always, policy.read_scope, policy.write_scope))

    def scopes_of(self, method: str | None) -> tuple[str, ...]:
        """What every request with an HTTP method needs; None: what goes both ways, such as a WebSocket."""
        if method is None:
            return self._both
        return self._reading if method in _SAFE_METHODS else self._writing

    def scopes_with(self, scopes: Iterable[str]) -> tuple[str, ...]:
        """What a method of gRPC needs, besides what all need."""
        return checked_scopes((*self._always, *scopes))

    def question(
        self, headers: Headers, required_scopes: tuple[str, ...], peer: str | None, request_id: str
    ) -> Question | Refusal:
        """What to ask about a request; a refusal if there is no key to ask about.

        Parameters:
            peer: the address that it comes from.
        """
        if len(headers.keys) != 1:
            return self._refuse_unidentified(request_id)
        token = headers.keys[0]
        if self._is_bearer:
            scheme, _, rest = token.partition(" ")
            token = rest.strip(" ") if scheme.lower() == "bearer" else ""
        if not token:
            return self._refuse_unidentified(request_id)
        if not _TOKEN.fullmatch(token):
            return self._refuse(Verification(Verdict.MALFORMED), request_id)
        source_ip = self._source_ip(peer, headers.forwarded)
        return Question(token, self._workspace, self._environment, required_scopes, source_ip, request_id)

    def judged(self, verification: Verification, request_id: str) -> Principal | Refusal:
        """Whom a request is from, or how it is refused."""
        if verification.verdict is Verdict.VALID:
            return Principal(verification, request_id, self._refusals.by_status[FORBIDDEN])
        return self._refuse(verification, request_id)

    def unjudged(self, error: KeysvcError, request_id: str) -> Refusal:
        """How a request is refused that nobody has judged: not as if its key were bad."""
        now = time.monotonic()
        if now >= self._tells_at:
            self._tells_at = now + TOLD_SECONDS
            _log.log(
                logging.WARNING if isinstance(error, Unavailable | ResourceExhausted) else logging.ERROR,
                "no judgement for request %s and perhaps others: %s", request_id, error,
            )  # fmt: skip
        return self._refusals.unavailable(error.retry_after_seconds)

    def _refuse_unidentified(self, request_id: str) -> Refusal:
        _log.info("request %s refused: it has no key, or several", request_id)
        return self._refusals.unidentified

    def _refuse(self, verification: Verification, request_id: str) -> Refusal:
        _log.info(
            "request %s refused: key %s is %s", request_id, verification.key_id or "(unknown)",
            " ".join((verification.verdict, ", ".join(verification.missing_scopes))).strip(),
        )  # fmt: skip
        return self._refusals.of(verification.verdict)

    def _source_ip(self, peer: str | None, forwarded: Sequence[str]) -> str | None:
        """The address of the end user, as far as somebody trusted has told it."""
        if not self._proxies:
            return None if peer is None else _address(peer)
        hops = ",".join(forwarded).split(",")
        return _address(hops[-self._proxies].strip()) if len(hops) >= self._proxies else None


def refusal_by_route(principal: Principal, scopes: Iterable[str]) -> Refusal | None:
    """How a request is refused whose key does not have the scopes of its route; None: it has them."""
    missing = [scope for scope in scopes if not principal.grants(scope)]
    if not missing:
        return None
    _log.info(
        "request %s refused: key %s does not grant %s", principal.request_id, principal.key_id, ", ".join(missing)
    )
    return principal.forbidden


@lru_cache(maxsize=4096)
def _address(text: str) -> str | None:
    """An address as keysvc takes it, also from one with a port; None: it is none."""
    if match := _PORT.fullmatch(text):
        text = match["ipv6"] or match["ipv4"]
    try:
        return str(parse_address(text.partition("%")[0]))
    except ValueError:
        return None


def request_id_of(sent: Sequence[str]) -> str:
    """The id of a request: the one that came with it, if it is one."""
    if len(sent) == 1 and _REQUEST_ID.fullmatch(sent[0]) and not is_key_string_in(sent[0]):
        return sent[0]
    return new_request_id()
