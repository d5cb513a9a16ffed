"""ASGI: every request and WebSocket of an application needs a key.

    app = KeysvcMiddleware(app, AsyncKeysvcClient(lease=True), Policy(public=["/health"]))

With FastAPI: `app.add_middleware(KeysvcMiddleware, client=…, policy=…)`. Whom a request is from is
`request.state.principal` and `request.user` then, and `current_principal()` anywhere.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from keysvc_client._async.client import AsyncKeysvcClient
from keysvc_client.errors import KeysvcError
from keysvc_client.middleware.gate import Gate, Headers, request_id_of
from keysvc_client.middleware.outcomes import Outcomes
from keysvc_client.middleware.policy import Policy
from keysvc_client.middleware.principal import Principal, principal_of_this_request
from keysvc_client.middleware.refusals import UNAVAILABLE, Refusal

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID: Final = b"x-request-id"
SUCCESS_MAX: Final = 399
"""What is answered with more has not been done."""

DENIAL: Final = "websocket.http.response"
"""The extension by which a server lets a WebSocket be refused with an answer. Without it servers answer 403."""

POLICY_VIOLATION: Final = 1008
"""Why a WebSocket is closed."""

_TRY_AGAIN_LATER: Final = 1013
_SWITCHING_PROTOCOLS: Final = 101
_FAILED: Final = 500


class KeysvcMiddleware:
    """Lets requests through to an application if keysvc says that their key is valid, and has the scopes they need.

    Parameters:
        app: the application.
        client: asks keysvc. It is not closed here.
        policy: what requests need; None: a valid key.
    """

    def __init__(self, app: App, client: AsyncKeysvcClient, policy: Policy | None = None) -> None:
        policy = policy or Policy()
        self._app = app
        self._client = client
        self._gate = Gate(policy)
        spool_dir = client._spool_dir  # noqa: SLF001 (of the same library)
        self._outcomes = Outcomes(client._connection, spool_dir) if policy.report_outcomes else None  # noqa: SLF001
        self._allow_preflight = policy.allow_preflight
        self._key_header = policy.header.encode()
        self._proxy_header = policy.proxy_header.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, a WebSocket, or the life of the application."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(scope, receive, send)
        elif kind not in {"http", "websocket"}:
            raise ValueError(f"the middleware cannot protect what ASGI calls {kind}")
        elif scope["path"] in self._gate.public or (self._allow_preflight and _is_preflight(scope)):
            await self._app(scope, receive, send)
        else:
            await self._protect(scope, receive, send)

    async def close(self) -> None:
        """Report the last outcomes. The end of the application's life does so too, and the end of the process."""
        if self._outcomes is not None:
            await asyncio.to_thread(self._outcomes.close)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Go through the life of the application: the lease begins with it, and its end reports the last outcomes."""
        self._client._begin()  # noqa: SLF001 (of the same library)

        async def telling(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await self.close()
            await send(message)

        await self._app(scope, receive, telling)

    async def _protect(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = self._headers(scope)
        request_id = request_id_of(headers.request_ids)
        judged = await self._judge(scope, headers, request_id)
        if isinstance(judged, Refusal):
            await _refuse(judged, request_id, scope, receive, send)
            return
        scope.setdefault("state", {})["principal"] = judged
        scope["user"] = scope["auth"] = judged
        principal_of_this_request.set(judged)
        await self._serve(judged, scope, receive, send)

    def _headers(self, scope: Scope) -> Headers:
        keys, request_ids, forwarded = list[str](), list[str](), list[str]()
        for name, value in scope["headers"]:
            if name == self._key_header:
                keys.append(value.decode("latin-1"))
            elif name == REQUEST_ID:
                request_ids.append(value.decode("latin-1"))
            elif name == self._proxy_header:
                forwarded.append(value.decode("latin-1"))
        return Headers(keys, request_ids, forwarded)

    async def _judge(self, scope: Scope, headers: Headers, request_id: str) -> Principal | Refusal:
        gate, peer = self._gate, scope.get("client")
        scopes = gate.scopes_of(scope.get("method"))
        question = gate.question(headers, scopes, peer and peer[0], request_id)
        if isinstance(question, Refusal):
            return question
        try:
            verification = await self._client.verify(**question._asdict())
        except KeysvcError as error:
            return gate.unjudged(error, request_id)
        return gate.judged(verification, request_id)

    async def _serve(self, principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application serve a request; what became of it is counted."""
        status = _FAILED
        sent_id = (REQUEST_ID, principal.request_id.encode())

        async def answering(message: Message) -> None:
            nonlocal status
            if message["type"] in {"http.response.start", f"{DENIAL}.start", "websocket.accept"}:
                status = message.get("status", _SWITCHING_PROTOCOLS)
                headers = list(message.get("headers") or ())
                if all(name.lower() != REQUEST_ID for name, _ in headers):
                    message = {**message, "headers": [*headers, sent_id]}
            await send(message)

        is_done = False
        try:
            await self._app(scope, receive, answering)
            is_done = True
        finally:
            principal_of_this_request.set(None)
            if self._outcomes is not None:
                is_success = is_done and status <= SUCCESS_MAX
                self._outcomes.add(principal.verification, status, is_success=is_success)


def _is_preflight(scope: Scope) -> bool:
    """Whether a request is one with which a browser asks whether it may send another one."""
    if scope.get("method") != "OPTIONS":
        return False
    names = {name for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names


async def _refuse(refusal: Refusal, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that is not served; a WebSocket before it is accepted."""
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()
        kind = DENIAL
        if DENIAL not in scope.get("extensions", {}):
            code = _TRY_AGAIN_LATER if refusal.status == UNAVAILABLE else POLICY_VIOLATION
            await send({"type": "websocket.close", "code": code, "reason": refusal.phrase})
            return
    headers = [(name.encode(), value.encode()) for name, value in refusal.headers]
    headers.append((REQUEST_ID, request_id.encode()))
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": refusal.body})
