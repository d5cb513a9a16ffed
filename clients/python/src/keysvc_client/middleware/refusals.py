"""How requests are refused: one answer for each status, which says nothing about why.

What each verdict means is `Verdict.http_status`; here is what such a status looks like.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

import grpc

from keysvc_client.verification import Verdict

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
TOO_MANY_REQUESTS: Final = 429
UNAVAILABLE: Final = 503

RETRY_SECONDS: Final = 1.0
"""After how long to try again, where keysvc has not said it."""

RETRY_SECONDS_MAX: Final = 3600.0

_CODES: Final[Mapping[int, tuple[grpc.StatusCode, str, str]]] = {
    UNAUTHORIZED: (grpc.StatusCode.UNAUTHENTICATED, "Unauthorized", "a valid API key is needed"),
    FORBIDDEN: (grpc.StatusCode.PERMISSION_DENIED, "Forbidden", "the API key does not allow this"),
    TOO_MANY_REQUESTS: (grpc.StatusCode.RESOURCE_EXHAUSTED, "Too Many Requests", "too many requests, try again later"),
    UNAVAILABLE: (grpc.StatusCode.UNAVAILABLE, "Service Unavailable", "try again later"),
}
"""Of each status: that of gRPC, the phrase of HTTP, and the message."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer to a request that is not served.

    Parameters:
        status, phrase: of HTTP.
        code: of gRPC.
        message: all that is said to the client.
        headers: of HTTP, without the request id.
        body: of HTTP.
        retry_after_seconds: None: to try again does not help.
    """

    status: int
    phrase: str
    code: grpc.StatusCode
    message: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    retry_after_seconds: float | None


class Refusals:
    """All answers to requests that are not served, made once.

    Parameters:
        header: that keys come in, in small letters.
        realm: what the keys are for, as `WWW-Authenticate` names it.
    """

    def __init__(self, header: str, realm: str) -> None:
        bearer = header == "authorization"
        challenge = f'Bearer realm="{realm}"' if bearer else f'ApiKey realm="{realm}", header="{header}"'
        self.unidentified: Final = _refusal(UNAUTHORIZED, challenge)
        """There was no key: RFC 6750 says nothing of errors then."""
        invalid, denied = (f'{challenge}, error="{word}"' for word in ("invalid_token", "insufficient_scope"))
        self.by_status: Final[Mapping[int, Refusal]] = {
            UNAUTHORIZED: _refusal(UNAUTHORIZED, invalid),
            FORBIDDEN: _refusal(FORBIDDEN, denied),
            TOO_MANY_REQUESTS: _refusal(TOO_MANY_REQUESTS, retry_after_seconds=RETRY_SECONDS),
            UNAVAILABLE: _refusal(UNAVAILABLE, retry_after_seconds=RETRY_SECONDS),
        }

    def of(self, verdict: Verdict) -> Refusal:
        """The answer to a request whose key has this verdict, which is not that it is valid."""
        return self.by_status[verdict.http_status]

    def unavailable(self, retry_after_seconds: float | None) -> Refusal:
        """The answer to a request whose key nobody has judged."""
        if retry_after_seconds is None:
            return self.by_status[UNAVAILABLE]
        return _refusal(UNAVAILABLE, retry_after_seconds=min(retry_after_seconds, RETRY_SECONDS_MAX))


def _refusal(status: int, challenge: str = "", retry_after_seconds: float | None = None) -> Refusal:
    code, phrase, message = _CODES[status]
    body = json.dumps({"detail": phrase}).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
    if challenge:
        headers.append(("www-authenticate", challenge))
    if retry_after_seconds is not None:
        headers.append(("retry-after", str(max(1, ceil(retry_after_seconds)))))
    return Refusal(status, phrase, code, message, tuple(headers), body, retry_after_seconds)
