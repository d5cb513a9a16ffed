"""FastAPI: the middleware for ASGI, and the scopes that a route needs, as a dependency that OpenAPI shows.

app.add_middleware(KeysvcMiddleware, client=AsyncKeysvcClient(lease=True))

@app.get("/pdf")
async def read(principal: Annotated[Principal, requires_scopes("pdf.read")]): ...
"""

from functools import lru_cache
from typing import Any

from fastapi import HTTPException, Security, WebSocketException
from fastapi.security import APIKeyHeader, HTTPBearer, SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from keysvc_client.asgi import DENIAL, POLICY_VIOLATION, KeysvcMiddleware
from keysvc_client.middleware.gate import refusal_by_route
from keysvc_client.middleware.policy import Policy, checked_scopes
from keysvc_client.middleware.principal import Principal, current_principal
from keysvc_client.starlette import principal_of

__all__ = ["KeysvcMiddleware", "Policy", "Principal", "current_principal", "principal_of", "requires_scopes"]


class _Key(SecurityBase):
    """The key of a request, as OpenAPI describes it. The middleware has verified it; scopes are checked here."""

    def __init__(self, header: str) -> None:
        self.scheme_name = "API key" if header == "authorization" else header
        self.model = HTTPBearer().model if header == "authorization" else APIKeyHeader(name=header).model

    async def __call__(self, connection: HTTPConnection, required: SecurityScopes) -> Principal:
        """Whom the request is from, if its key has the scopes of the route."""
        principal = principal_of(connection)
        refusal = refusal_by_route(principal, required.scopes)
        if refusal is None:
            return principal
        if connection.scope["type"] == "websocket" and DENIAL not in connection.scope.get("extensions", {}):
            raise WebSocketException(POLICY_VIOLATION)
        headers = {name: value for name, value in refusal.headers if not name.startswith("content-")}
        raise HTTPException(refusal.status, refusal.phrase, headers)


_key_in = lru_cache(_Key)


def requires_scopes(*scopes: str, header: str = "authorization") -> Any:  # noqa: ANN401 (as FastAPI's own Security)
    """State the scopes that a route needs, all of them; it gives the `Principal`.

    Parameters:
        header: that keys come in, as the policy of the middleware says.
    """
    return Security(_key_in(header.lower()), scopes=checked_scopes(scopes))
