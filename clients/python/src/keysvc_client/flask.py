"""Flask: the middleware for WSGI, and the scopes that a view needs.

protect(app, KeysvcClient(lease=True), Policy(public=["/health"]))

@app.get("/pdf")
@requires_scopes("pdf.read")
def read():
    print(g.principal.workspace)
"""

from flask import Flask, Response, g, request

from keysvc_client._sync.client import KeysvcClient
from keysvc_client.middleware.gate import refusal_by_route
from keysvc_client.middleware.policy import Policy
from keysvc_client.middleware.principal import Principal, current_principal
from keysvc_client.middleware.views import deciding
from keysvc_client.wsgi import PRINCIPAL, KeysvcMiddleware

__all__ = ["Policy", "Principal", "current_principal", "protect", "requires_scopes"]


def protect(app: Flask, client: KeysvcClient, policy: Policy | None = None) -> KeysvcMiddleware:
    """Protect all of an application. Whom a request is from is `g.principal`; None: the path is public.

    Returns:
        The middleware, which may be closed in the end.
    """
    middleware = KeysvcMiddleware(app.wsgi_app, client, policy)
    app.wsgi_app = middleware  # type: ignore[method-assign]
    app.before_request(_identify)
    return middleware


def _identify() -> None:
    g.principal = request.environ.get(PRINCIPAL)


def _refuse(scopes: tuple[str, ...]) -> Response | None:
    refusal = refusal_by_route(current_principal(), scopes)
    return None if refusal is None else Response(refusal.body, refusal.status, dict(refusal.headers))


requires_scopes = deciding(_refuse)
"""State the scopes that a view needs, all of them; between the route and the view."""
