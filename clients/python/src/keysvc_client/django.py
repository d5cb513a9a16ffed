"""Django: the middleware for WSGI or ASGI, and the scopes that a view needs.

    application = KeysvcMiddleware(get_wsgi_application(), KeysvcClient(lease=True))  # in wsgi.py

    @requires_scopes("pdf.read")
    def read(request):
        print(current_principal().workspace)

`KeysvcMiddleware` is that of `keysvc_client.wsgi`, or for `asgi.py` that of `keysvc_client.asgi`.
"""

from typing import Any

from django.http import HttpResponse

from keysvc_client.middleware.gate import refusal_by_route
from keysvc_client.middleware.policy import Policy
from keysvc_client.middleware.principal import Principal, current_principal
from keysvc_client.middleware.views import deciding

__all__ = ["Policy", "Principal", "current_principal", "requires_scopes"]


def _refuse(scopes: tuple[str, ...]) -> Any:  # noqa: ANN401 (Django ships no annotations)
    refusal = refusal_by_route(current_principal(), scopes)
    if refusal is None:
        return None
    return HttpResponse(refusal.body, status=refusal.status, headers=dict(refusal.headers))


requires_scopes = deciding(_refuse)
"""State the scopes that a view needs, all of them."""
