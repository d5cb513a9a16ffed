"""Starlette: the middleware for ASGI, and the scopes that an endpoint needs.

@requires_scopes("pdf.write")
async def write(request):
    print(request.state.principal.workspace)

app = Starlette(routes=[…], middleware=[Middleware(KeysvcMiddleware, client=AsyncKeysvcClient(lease=True))])
"""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket

from keysvc_client.asgi import DENIAL, POLICY_VIOLATION, KeysvcMiddleware
from keysvc_client.middleware.gate import refusal_by_route
from keysvc_client.middleware.policy import Policy, checked_scopes
from keysvc_client.middleware.principal import UNIDENTIFIED, Principal, current_principal

__all__ = ["KeysvcMiddleware", "Policy", "Principal", "current_principal", "principal_of", "requires_scopes"]

Endpoint = Callable[..., Any]


def principal_of(connection: HTTPConnection) -> Principal:
    """Whom a request or WebSocket is from.

    Raises:
        LookupError: nobody, since no middleware has verified a key for it.
    """
    principal = connection.scope.get("state", {}).get("principal")
    if isinstance(principal, Principal):
        return principal
    raise LookupError(UNIDENTIFIED)


def requires_scopes(*scopes: str) -> Callable[[Endpoint], Endpoint]:
    """State the scopes that an endpoint needs, all of them: a function, or a method of an `HTTPEndpoint`."""
    checked = checked_scopes(scopes)

    def decorate(endpoint: Endpoint) -> Endpoint:
        @wraps(endpoint)
        def guarded(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            refused = _refuse(_connection(arguments, named), checked)
            return endpoint(*arguments, **named) if refused is None else refused

        @wraps(endpoint)
        async def guarded_async(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            connection = _connection(arguments, named)
            refused = _refuse(connection, checked)
            if refused is None:
                return await endpoint(*arguments, **named)
            if not isinstance(connection, WebSocket):
                return refused
            if DENIAL in connection.scope.get("extensions", {}):
                await connection.send_denial_response(refused)
            else:
                await connection.close(POLICY_VIOLATION)
            return None

        return guarded_async if iscoroutinefunction(endpoint) else guarded

    return decorate


def _connection(arguments: tuple[Any, ...], named: dict[str, Any]) -> HTTPConnection:
    """The request or WebSocket among the arguments of an endpoint."""
    for argument in (*arguments, *named.values()):
        if isinstance(argument, HTTPConnection):
            return argument
    raise TypeError("an endpoint with @requires_scopes needs the request or the WebSocket as its argument")


def _refuse(connection: HTTPConnection, scopes: tuple[str, ...]) -> Response | None:
    refusal = refusal_by_route(principal_of(connection), scopes)
    return None if refusal is None else Response(refusal.body, refusal.status, dict(refusal.headers))
