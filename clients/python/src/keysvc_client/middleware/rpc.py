"""What the interceptors for both kinds of gRPC server have in common."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import unquote

import grpc

from keysvc_client.details import TRAILER, retry_details
from keysvc_client.errors import ConfigurationError
from keysvc_client.middleware.gate import Gate, Headers
from keysvc_client.middleware.policy import Policy, checked_scopes
from keysvc_client.middleware.refusals import Refusal

ALL_OTHERS: Final = "*"
REQUEST_ID: Final = "x-request-id"

BEHAVIORS: Final = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
"""What a handler calls what it does, by what comes and goes: one message or several."""

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]
Method = TypeVar("Method", bound=Callable[..., Any])

_ATTRIBUTE: Final = "__keysvc_scopes__"
_METHODS_MAX: Final = 10_000

_log = logging.getLogger("keysvc_client")


def requires_scopes(*scopes: str) -> Callable[[Method], Method]:
    """State, at a method of a servicer, the scopes that a key needs for it; none: any valid key will do."""
    checked = checked_scopes(scopes)

    def state(method: Method) -> Method:
        setattr(method, _ATTRIBUTE, checked)
        return method

    return state


class Methods:
    """What each method needs, and its handler behind the gate.

    Parameters:
        stated: scopes by the full name of a method, such as `/pdf.v1.Pdf/Read`; `*`: of all that nothing is stated for.
        guard: puts a handler behind the gate.
    """

    def __init__(
        self,
        gate: Gate,
        stated: Mapping[str, Iterable[str]],
        guard: Callable[[Any, str, tuple[str, ...]], "grpc.RpcMethodHandler[Any, Any]"],
    ) -> None:
        if bad := [name for name in stated if name != ALL_OTHERS and not name.startswith("/")]:
            raise ConfigurationError(f"{bad[0]} is no full name of a method, such as /pdf.v1.Pdf/Read")
        self._gate = gate
        self._guard = guard
        self._stated = {name: gate.scopes_with(checked_scopes(scopes)) for name, scopes in stated.items()}
        self._guarded: dict[str, tuple[Any, grpc.RpcMethodHandler[Any, Any]]] = {}

    def behind_the_gate(self, name: str, handler: Any) -> "grpc.RpcMethodHandler[Any, Any] | None":  # noqa: ANN401
        """What serves a method; None: nothing does, since nobody has stated what it needs."""
        if handler is None or name in self._gate.public:
            return handler  # type: ignore[no-any-return]
        known = self._guarded.get(name)
        if known is not None and known[0] is handler:
            return known[1]
        kind = next(each for each in BEHAVIORS if getattr(handler, each) is not None)
        scopes = self._scopes_of(name, getattr(handler, kind))
        if scopes is None:
            _log.error("%s is not served: state its scopes, by @requires_scopes or to the interceptor", name)
            return None
        if len(self._guarded) >= _METHODS_MAX:
            self._guarded.clear()
        guarded = self._guard(handler, kind, scopes)
        self._guarded[name] = handler, guarded
        return guarded

    def _scopes_of(self, name: str, behavior: Any) -> tuple[str, ...] | None:  # noqa: ANN401
        if name in self._stated:
            return self._stated[name]
        scopes = getattr(behavior, _ATTRIBUTE, None)
        return self._stated.get(ALL_OTHERS) if scopes is None else self._gate.scopes_with(scopes)


def headers_of(policy: Policy) -> Callable[[Metadata | None], Headers]:
    """What finds the headers in the metadata of a call."""
    key_header, proxy_header = policy.header, policy.proxy_header

    def find(metadata: Metadata | None) -> Headers:
        keys, request_ids, forwarded = list[str](), list[str](), list[str]()
        for name, value in metadata or ():
            if not isinstance(value, str):
                continue
            if name == key_header:
                keys.append(value)
            elif name == REQUEST_ID:
                request_ids.append(value)
            elif name == proxy_header:
                forwarded.append(value)
        return Headers(keys, request_ids, forwarded)

    return find


def peer_address(peer: str) -> str | None:
    """The address in gRPC's name of a peer, `ipv4:203.0.113.7:1234` or `ipv6:%5B2001:db8::1%5D:1234`."""
    kind, _, address = peer.partition(":")
    return unquote(address).rpartition(":")[0].strip("[]") if kind in {"ipv4", "ipv6"} else None


def trailers_of(refusal: Refusal, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
    """What goes with a refusal: the request id, and when to try again if that helps."""
    if refusal.retry_after_seconds is None:
        return ((REQUEST_ID, request_id),)
    details = retry_details(refusal.code, refusal.message, refusal.retry_after_seconds)
    return ((REQUEST_ID, request_id), (TRAILER, details))


def trailers_with(request_id: str, own: Metadata | None) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata that a method has set itself, with the request id."""
    kept = tuple(own or ())
    return kept if any(name == REQUEST_ID for name, _ in kept) else (*kept, (REQUEST_ID, request_id))


def status_of(code: Any, *, is_done: bool) -> int:  # noqa: ANN401 (a status or its number; None: OK)
    """The status that a call has ended with, as a number."""
    status = code.value[0] if isinstance(code, grpc.StatusCode) else int(code or 0)
    unknown: int = grpc.StatusCode.UNKNOWN.value[0]
    return status if is_done or status else unknown
