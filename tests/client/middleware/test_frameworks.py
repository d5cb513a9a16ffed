"""The scopes of routes in each framework, over a socket and with a real keysvc."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any

import django
import pytest
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.urls import path as django_path
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from flask import Flask, g
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from keysvc_client import AsyncKeysvcClient, KeysvcClient, Policy, Principal, current_principal, wsgi
from keysvc_client import django as keysvc_django
from keysvc_client import fastapi as keysvc_fastapi
from keysvc_client import flask as keysvc_flask
from keysvc_client import starlette as keysvc_starlette
from tests.client.middleware.serving import Answer, asgi_server, ask, wsgi_server
from tests.deployment import Client, Deployment
from tests.guides.guide import free_address

POLICY = Policy(public=["/health"])
FORBIDDEN = b'{"detail": "Forbidden"}'


async def fastapi_application(stack: AsyncExitStack, deployment: Deployment, policy: Policy = POLICY) -> str:
    """FastAPI: dependencies that give the principal, alone or for a router; one that is not asynchronous."""
    app = FastAPI()
    client = await stack.enter_async_context(AsyncKeysvcClient(deployment.address, api_key=deployment.operator_key))
    app.add_middleware(keysvc_fastapi.KeysvcMiddleware, client=client, policy=policy)
    router = APIRouter(dependencies=[keysvc_fastapi.requires_scopes("pdf.read")])

    @app.get("/health")
    async def health() -> str:
        return "good"

    @app.get("/any")
    async def whoever(request: Request) -> str:
        assert request.user is request.state.principal is current_principal()
        assert request.auth.grants("pdf.read")
        return str(request.user.display_name)

    @app.get("/read")
    def read(principal: Annotated[Principal, keysvc_fastapi.requires_scopes("pdf.read")]) -> str:
        assert principal is current_principal()
        return principal.display_name

    @router.post("/write")
    async def write(principal: Annotated[Principal, keysvc_fastapi.requires_scopes("pdf.read", "pdf.write")]) -> str:
        return principal.display_name

    @app.websocket("/socket")
    async def talk(
        socket: WebSocket, principal: Annotated[Principal, keysvc_fastapi.requires_scopes("pdf.read")]
    ) -> None:
        await socket.accept()
        await socket.send_text(principal.display_name)
        await socket.close()

    app.include_router(router)
    return await stack.enter_async_context(asgi_server(app))


async def starlette_application(stack: AsyncExitStack, deployment: Deployment) -> str:
    """Starlette: functions of both kinds, a class, a mounted application, a WebSocket."""

    async def health(request: Any) -> PlainTextResponse:
        return PlainTextResponse("good")

    @keysvc_starlette.requires_scopes("pdf.read")
    def read(request: Any) -> PlainTextResponse:
        assert request.user is request.state.principal is current_principal()
        return PlainTextResponse(keysvc_starlette.principal_of(request).display_name)

    class Write(HTTPEndpoint):
        @keysvc_starlette.requires_scopes("pdf.read", "pdf.write")
        async def post(self, request: Any) -> PlainTextResponse:
            return PlainTextResponse(request.user.display_name)

    @keysvc_starlette.requires_scopes("pdf.read")
    async def talk(socket: Any) -> None:
        await socket.accept()
        await socket.send_text(socket.user.display_name)
        await socket.close()

    client = await stack.enter_async_context(AsyncKeysvcClient(deployment.address, api_key=deployment.operator_key))
    inner = Starlette(routes=[Route("/read", read)])
    routes = [
        Route("/health", health),
        Route("/any", health),
        Route("/read", read),
        Route("/write", Write),
        WebSocketRoute("/socket", talk),
        Mount("/inner", inner),
    ]
    app = Starlette(
        routes=routes, middleware=[Middleware(keysvc_starlette.KeysvcMiddleware, client=client, policy=POLICY)]
    )
    return await stack.enter_async_context(asgi_server(app))


async def flask_application(stack: AsyncExitStack, deployment: Deployment) -> str:
    """Flask: views."""
    app = Flask("application")
    client = stack.enter_context(KeysvcClient(deployment.address, api_key=deployment.operator_key))
    middleware = keysvc_flask.protect(app, client, POLICY)
    stack.push_async_callback(asyncio.to_thread, middleware.close)

    @app.get("/health")
    def health() -> str:
        assert g.principal is None
        return "good"

    @app.get("/any")
    def whoever() -> str:
        return str(g.principal.display_name)

    @app.get("/read")
    @keysvc_flask.requires_scopes("pdf.read")
    def read() -> str:
        assert g.principal is current_principal()
        return str(g.principal.display_name)

    @app.post("/write")
    @keysvc_flask.requires_scopes("pdf.read", "pdf.write")
    def write() -> str:
        return str(g.principal.display_name)

    server = wsgi_server(app)
    stack.push_async_callback(asyncio.to_thread, server.__exit__, None, None, None)
    return server.__enter__()


def _show(request: Any) -> HttpResponse:
    return HttpResponse(request.META["keysvc.principal"].display_name)


@keysvc_django.requires_scopes("pdf.read")
async def _read(request: Any) -> HttpResponse:
    return HttpResponse(current_principal().display_name)


urlpatterns = [
    django_path("health", lambda request: HttpResponse("good")),
    django_path("any", _show),
    django_path("read", _read),
    django_path("write", keysvc_django.requires_scopes("pdf.read", "pdf.write")(_show)),
]
"""Of the Django application, whose settings name this module."""


async def django_application(stack: AsyncExitStack, deployment: Deployment) -> str:
    """Django: views of both kinds."""
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=sys.modules[__name__], SECRET_KEY="of a test")
        django.setup(set_prefix=False)
    client = stack.enter_context(KeysvcClient(deployment.address, api_key=deployment.operator_key))
    middleware = wsgi.KeysvcMiddleware(WSGIHandler(), client, POLICY)
    stack.push_async_callback(asyncio.to_thread, middleware.close)
    server = wsgi_server(middleware)
    stack.push_async_callback(asyncio.to_thread, server.__exit__, None, None, None)
    return server.__enter__()


APPLICATIONS = {
    "fastapi": fastapi_application,
    "starlette": starlette_application,
    "flask": flask_application,
    "django": django_application,
}


@pytest.fixture(params=APPLICATIONS)
async def address(request: pytest.FixtureRequest, deployment: Deployment) -> AsyncIterator[str]:
    """The same application in each framework."""
    async with AsyncExitStack() as stack:
        yield await APPLICATIONS[request.param](stack, deployment)


async def test_routes_state_their_scopes(address: str, operator: Client) -> None:
    """All of them are needed; a pattern grants what it stands for; a route without scopes needs a valid key."""
    keys = {
        name: (await operator.create(scopes=scopes, owner=name)).key_string
        for name, scopes in {"reader": ["pdf.read"], "writer": ["pdf.write"], "both": ["pdf.*"]}.items()
    }
    allowed = {"/any": {"reader", "both"}, "/read": {"reader", "both"}, "/write": {"both"}}
    for path, names in allowed.items():
        for name in names:
            answer = await ask(address, path, key=keys[name], method="POST" if path == "/write" else "GET")
            assert (answer.status, answer.body.decode().strip('"')) in {(200, name), (200, "good")}
    for path, name in (("/read", "writer"), ("/write", "reader"), ("/write", "writer")):
        _assert_forbidden(await ask(address, path, key=keys[name], method="POST" if path == "/write" else "GET"))
    for path in ("/any", "/read", "/nowhere"):
        assert (await ask(address, path)).status == 401
    assert (await ask(address, "/health")).body.strip(b'"') == b"good"


def _assert_forbidden(answer: Answer) -> None:
    assert answer.status == 403
    assert answer.headers["www-authenticate"] == 'Bearer realm="api", error="insufficient_scope"'
    assert answer.body.replace(b":", b": ").replace(b":  ", b": ") == FORBIDDEN
    assert "x-request-id" in answer.headers


async def test_a_mounted_application_is_behind_the_same_middleware(deployment: Deployment, operator: Client) -> None:
    """Starlette's own handling of errors in it changes nothing."""
    reader = (await operator.create(scopes=["pdf.read"])).key_string
    poor = (await operator.create()).key_string
    async with AsyncExitStack() as stack:
        address = await starlette_application(stack, deployment)
        assert (await ask(address, "/inner/read", key=reader)).status == 200
        _assert_forbidden(await ask(address, "/inner/read", key=poor))


@pytest.mark.parametrize("application", [fastapi_application, starlette_application])
async def test_websockets_are_refused_before_they_are_accepted(
    application: Any, deployment: Deployment, operator: Client
) -> None:
    """With the status that a request would have, where the server can."""
    reader = (await operator.create(scopes=["pdf.read"], owner="reader")).key_string
    poor = (await operator.create()).key_string
    async with AsyncExitStack() as stack:
        url = f"ws://{await application(stack, deployment)}/socket"
        async with connect(url, additional_headers={"Authorization": f"Bearer {reader}"}) as socket:
            assert socket.response is not None
            assert socket.response.headers["x-request-id"]
            assert await socket.recv() == "reader"
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        for headers, status in (({}, 401), ({"Authorization": f"Bearer {poor}"}, 403)):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, additional_headers=headers)
            assert refused.value.response.status_code == status


async def test_websockets_need_the_scopes_of_both_ways(deployment: Deployment, operator: Client) -> None:
    """Nobody knows beforehand what will be sent."""
    reader = (await operator.create(scopes=["pdf.read"])).key_string
    both = (await operator.create(scopes=["pdf.read", "pdf.write"])).key_string
    async with AsyncExitStack() as stack:
        policy = Policy(read_scope="pdf.read", write_scope="pdf.write")
        url = f"ws://{await fastapi_application(stack, deployment, policy)}/socket"
        with pytest.raises(InvalidStatus):
            await connect(url, additional_headers={"Authorization": f"Bearer {reader}"})
        async with connect(url, additional_headers={"Authorization": f"Bearer {both}"}):
            pass


async def test_a_server_that_cannot_answer_a_websocket_closes_it() -> None:
    """The close code tells a client whether to come again."""
    async with AsyncKeysvcClient(free_address(), api_key="sk_live_anything") as client:
        middleware = keysvc_fastapi.KeysvcMiddleware(FastAPI(), client)
        for headers, code in (([], 1008), ([(b"authorization", b"Bearer x")], 1013)):
            sent: list[Any] = []

            async def receive() -> Any:
                return {"type": "websocket.connect"}

            async def send(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            await middleware({"type": "websocket", "path": "/", "headers": headers}, receive, send)
            assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", code)]


async def test_openapi_shows_what_routes_need() -> None:
    """The scheme, and the scopes of each route."""
    app = FastAPI()

    @app.get("/read", dependencies=[keysvc_fastapi.requires_scopes("pdf.read", "pdf.more")])
    async def read() -> None:
        pass

    @app.get("/write", dependencies=[keysvc_fastapi.requires_scopes("pdf.write", header="X-API-Key")])
    async def write() -> None:
        pass

    document = app.openapi()
    assert document["paths"]["/read"]["get"]["security"] == [{"API key": ["pdf.more", "pdf.read"]}]
    schemes = document["components"]["securitySchemes"]
    assert {name: scheme["type"] for name, scheme in schemes.items()} == {"API key": "http", "x-api-key": "apiKey"}


async def test_a_route_that_nothing_protects_is_not_served() -> None:
    """Where the middleware was forgotten, scopes are not taken for granted."""
    app = FastAPI()

    @app.get("/read")
    async def read(principal: Annotated[Principal, keysvc_fastapi.requires_scopes("pdf.read")]) -> None:
        pass

    @app.get("/nested", dependencies=[Depends(read)])
    async def nested() -> None:
        pass

    async with asgi_server(app) as address:
        assert (await ask(address, "/read")).status == 500
        assert (await ask(address, "/nested")).status == 500
