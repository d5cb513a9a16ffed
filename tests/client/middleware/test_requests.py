"""What both kinds of middleware for HTTP do with a request, over a socket and with a real keysvc."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from keysvc.v1.verify_pb2 import Verdict, VerifyResponse
from keysvc_client import AsyncKeysvcClient, KeysvcClient, Policy, Principal, asgi, current_principal, reporting, wsgi
from tests.cli.peer import Peer
from tests.client.middleware.serving import Answer, asgi_server, ask, wsgi_server
from tests.deployment import WORKSPACE, Client, Deployment, eventually
from tests.guides.guide import free_address

Serve = Callable[..., Awaitable[str]]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Tells whom a request is from; `/fail` fails, `/missing` is not there, and `/public` has nobody."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/fail":
        raise RuntimeError("this fails")
    principal = scope.get("state", {}).get("principal")
    if principal is not None:
        assert scope["user"] is scope["auth"] is principal is current_principal()
    else:
        with pytest.raises(LookupError):
            current_principal()
    status = 404 if scope["path"] == "/missing" else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": told(principal)})


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    """The same."""
    if environ["PATH_INFO"] == "/fail":
        raise RuntimeError("this fails")
    principal = environ.get("keysvc.principal")
    if principal is not None:
        assert principal is current_principal()
    else:
        with pytest.raises(LookupError):
            current_principal()
    status = "404 Not Found" if environ["PATH_INFO"] == "/missing" else "200 OK"
    start_response(status, [("x-own", "1")])
    return [told(principal)]


def told(principal: Principal | None) -> bytes:
    """What an application answers."""
    return b"nobody" if principal is None else f"{principal.key_id} {principal.workspace}".encode()


@pytest.fixture(params=["asgi", "wsgi"])
async def serve(request: pytest.FixtureRequest, deployment: Deployment) -> AsyncIterator[Serve]:
    """Serves an application behind each kind of middleware."""
    async with AsyncExitStack() as stack:

        async def serve(policy: Policy | None = None, address: str = deployment.address, **arguments: Any) -> str:
            given = {"api_key": deployment.operator_key, **arguments}
            if request.param == "asgi":
                client = await stack.enter_async_context(AsyncKeysvcClient(address, **given))
                return await stack.enter_async_context(asgi_server(asgi.KeysvcMiddleware(asgi_app, client, policy)))
            blocking = KeysvcClient(address, **given)
            stack.push_async_callback(asyncio.to_thread, blocking.close)  # it waits for the server, which is ours too
            middleware = wsgi.KeysvcMiddleware(wsgi_app, blocking, policy)
            stack.push_async_callback(asyncio.to_thread, middleware.close)
            server = wsgi_server(middleware)
            stack.push_async_callback(asyncio.to_thread, server.__exit__, None, None, None)
            return server.__enter__()

        yield serve


async def test_a_valid_key_is_served(serve: Serve, operator: Client) -> None:
    """The application is told whom the request is from, and its answer comes as it is."""
    created = await operator.create()
    answer = await ask(await serve(), key=created.key_string)
    assert (answer.status, answer.body) == (200, f"{created.key.id} {WORKSPACE}".encode())
    assert answer.headers["x-own"] == "1"


UNIDENTIFIED = 'Bearer realm="api"'
INVALID = 'Bearer realm="api", error="invalid_token"'


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ([], UNIDENTIFIED),
        ([("Authorization", "Basic dTpw")], UNIDENTIFIED),
        ([("Authorization", "Bearer")], UNIDENTIFIED),
        ([("Authorization", "Bearer   ")], UNIDENTIFIED),
        ([("Authorization", "")], UNIDENTIFIED),
        ([("Authorization", "Bearer nonsense")], INVALID),
        ([("Authorization", "bEARER  nonsense ")], INVALID),
        ([("Authorization", "Bearer two words")], INVALID),
        ([("Authorization", b"Bearer \xff\xfe\x80")], INVALID),
        ([("Authorization", b"\xff\xfe")], UNIDENTIFIED),
        ([("Authorization", "Bearer " + "x" * 20_000)], INVALID),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_no_key_is_401(serve: Serve, headers: list[tuple[str, str | bytes]], challenge: str) -> None:
    """Whatever it is; RFC 6750 says nothing of an error where no key was sent."""
    answer = await ask(await serve(), headers=headers)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, challenge)
    assert answer.body == b'{"detail": "Unauthorized"}'


async def test_two_keys_are_none(serve: Serve, operator: Client) -> None:
    """Nobody can tell which one another part of the application would look at."""
    key = f"Bearer {(await operator.create()).key_string}"
    answer = await ask(await serve(), headers=[("Authorization", key), ("Authorization", key)])
    assert answer.status == 401


async def test_refusals_of_a_status_are_all_the_same(
    serve: Serve, operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """They do not tell why, and the log does; the key string is nowhere."""
    caplog.set_level(logging.INFO, "keysvc_client")
    address = await serve(Policy(environment="live", required_scopes=["pdf.read"]))
    suspended, revoked = await operator.create(scopes=["pdf.read"]), await operator.create(scopes=["pdf.read"])
    await operator.suspend(suspended.key.id)
    await operator.revoke(revoked.key.id)
    elsewhere = await operator.create(scopes=["pdf.read"], ip_allowlist=["192.0.2.1"])
    poor = await operator.create()
    test = await operator.create(environment=2, scopes=["pdf.read"])
    keys = [each.key_string for each in (suspended, revoked, elsewhere, poor, test)]
    answers = [await ask(address, key=key) for key in (*keys, "nonsense")]
    assert [answer.status for answer in answers] == [401, 401, 403, 403, 401, 401]
    assert len({_without_id(answer) for answer in answers}) == 2
    assert answers[2].headers["www-authenticate"] == 'Bearer realm="api", error="insufficient_scope"'
    for verdict in (
        "suspended",
        "revoked",
        "ip_not_allowed",
        "insufficient_scope",
        "environment_mismatch",
        "malformed",
    ):
        assert verdict in caplog.text
    assert not any(key in caplog.text for key in keys)


def _without_id(answer: Answer) -> str:
    kept = {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "date"}}
    return repr((answer.status, kept, answer.body))


@pytest.mark.parametrize("verdict", [Verdict.VERDICT_RATE_LIMITED, Verdict.VERDICT_QUOTA_EXCEEDED])
async def test_too_many_requests_are_429(serve: Serve, peer: Peer, verdict: Verdict.ValueType) -> None:
    """With the time to wait. The server has no such verdicts yet: the peer gives them."""
    peer.answers("Verify", VerifyResponse(verdict=verdict))
    answer = await ask(await serve(address=peer.address), key="sk_live_anything")
    assert (answer.status, answer.body) == (429, b'{"detail": "Too Many Requests"}')
    assert int(answer.headers["retry-after"]) >= 1


async def test_while_keysvc_is_away_it_is_503(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is told that a key is bad, and nobody is served."""
    answer = await ask(await serve(address=free_address()), key="sk_live_anything")
    assert (answer.status, answer.body) == (503, b'{"detail": "Service Unavailable"}')
    assert int(answer.headers["retry-after"]) >= 1
    assert "www-authenticate" not in answer.headers
    assert "no judgement" in caplog.text


async def test_a_service_whose_own_key_is_bad_is_503(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """It is no fault of whoever calls the service; the log tells its operator."""
    answer = await ask(await serve(api_key="sk_live_of_nobody"), key="sk_live_anything")
    assert answer.status == 503
    assert any(record.levelno == logging.ERROR for record in caplog.records)


async def test_http_methods_need_scopes_if_asked(serve: Serve, operator: Client) -> None:
    """GET and HEAD need the one, all others the other, OPTIONS and what nobody knows too."""
    address = await serve(Policy(read_scope="pdf.read", write_scope="pdf.write"))
    reader = (await operator.create(scopes=["pdf.read"])).key_string
    writer = (await operator.create(scopes=["pdf.write"])).key_string
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PURGE"):
        reads = method in {"GET", "HEAD"}
        assert (await ask(address, key=reader, method=method)).status == (200 if reads else 403)
        assert (await ask(address, key=writer, method=method)).status == (403 if reads else 200)


async def test_public_paths_and_preflights_pass_if_stated(serve: Serve, operator: Client) -> None:
    """Exactly these, and only then; whom the last request was from is forgotten."""
    preflight = [("Origin", "https://example.com"), ("Access-Control-Request-Method", "GET")]
    open_address = await serve(Policy(public=["/public"], allow_preflight=True))
    closed_address = await serve()
    assert (await ask(open_address, key=(await operator.create()).key_string)).status == 200
    assert (await ask(open_address, "/public")).body == b"nobody"
    assert (await ask(open_address, "/public?query=1")).status == 200
    assert (await ask(open_address, "/", method="OPTIONS", headers=preflight)).status == 200
    for path in ("/public/", "/public/../", "/", "/PUBLIC"):
        assert (await ask(open_address, path)).status == 401
    assert (await ask(open_address, method="OPTIONS")).status == 401
    assert (await ask(open_address, method="GET", headers=preflight)).status == 401
    assert (await ask(closed_address, "/public")).status == 401
    assert (await ask(closed_address, method="OPTIONS", headers=preflight)).status == 401


async def test_keys_may_come_in_another_header(serve: Serve, operator: Client) -> None:
    """Which holds the key alone; `Authorization` is not looked at then."""
    key = (await operator.create()).key_string
    address = await serve(Policy(header="X-API-Key"))
    assert (await ask(address, headers=[("x-api-key", key)])).status == 200
    assert (await ask(address, headers=[("x-api-key", key), ("x-api-key", key)])).status == 401
    answer = await ask(address, key=key)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'ApiKey realm="api", header="x-api-key"')


async def test_the_request_id_is_given_back(serve: Serve, operator: Client) -> None:
    """If it is one; otherwise the request gets a new one. Refusals have one too."""
    created = await operator.create()
    address = await serve()
    for sent in ("trace-1", "x" * 128):
        answer = await ask(address, key=created.key_string, headers=[("X-Request-Id", sent)])
        assert answer.headers["x-request-id"] == sent
    for bad in ("", "x" * 129, "two words", b"\xff", created.key_string):
        answer = await ask(address, headers=[("X-Request-Id", bad)])
        assert len(answer.headers["x-request-id"]) == 36
        assert answer.headers["x-request-id"] != created.key_string


async def test_the_address_is_that_of_the_peer_or_what_a_trusted_proxy_says(serve: Serve, operator: Client) -> None:
    """What anybody may have put in front of that does not count."""
    local = (await operator.create(ip_allowlist=["127.0.0.1"])).key_string
    remote = (await operator.create(ip_allowlist=["192.0.2.7"])).key_string
    forged = [("X-Forwarded-For", "192.0.2.7")]
    direct = await serve()
    assert (await ask(direct, key=local, headers=forged)).status == 200
    assert (await ask(direct, key=remote, headers=forged)).status == 403
    behind_one, behind_two = await serve(Policy(trusted_proxies=1)), await serve(Policy(trusted_proxies=2))
    assert (await ask(behind_one, key=remote, headers=[("X-Forwarded-For", "203.0.113.9, 192.0.2.7")])).status == 200
    assert (await ask(behind_one, key=remote, headers=[("X-Forwarded-For", "192.0.2.7, 203.0.113.9")])).status == 403
    assert (await ask(behind_two, key=remote, headers=[("X-Forwarded-For", "192.0.2.7, 203.0.113.9")])).status == 200
    for unusable in ([], [("X-Forwarded-For", "unknown")], [("X-Forwarded-For", "")]):
        assert (await ask(behind_one, key=remote, headers=unusable)).status == 403
        assert (await ask(behind_one, key=local, headers=unusable)).status == 403
    assert (await ask(behind_two, key=remote, headers=forged)).status == 403


async def test_outcomes_are_reported_and_nothing_is_counted_twice(
    serve: Serve, operator: Client, deployment: Deployment
) -> None:
    """What was done and what failed, for requests that were let through; each Verify once."""
    created = await operator.create()
    address = await serve()
    statuses = [(await ask(address, path, key=created.key_string)).status for path in ("/", "/", "/missing", "/fail")]
    assert statuses == [200, 200, 404, 500]
    await ask(address, key="nonsense")
    async with AsyncKeysvcClient(deployment.address, api_key=deployment.operator_key) as client:

        async def counted() -> list[tuple[int, int, int]]:
            found = [each async for each in client.usage.query(key_id=created.key.id)]
            counts = [(each.verify_count, each.success_count, each.failure_count) for each in found]
            return counts if counts and counts[0][0] == 4 and sum(counts[0]) >= 8 else []

        assert await eventually(counted) == [(4, 2, 2)]


async def test_the_end_of_an_application_reports_the_rest(
    deployment: Deployment, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lifespan of ASGI waits for it: a server may die by the signal that it was stopped by."""
    monkeypatch.setattr(reporting, "REPORT_SECONDS", 1000)
    created = await operator.create()
    async with AsyncKeysvcClient(deployment.address, api_key=deployment.operator_key) as client:
        async with asgi_server(asgi.KeysvcMiddleware(asgi_app, client)) as address:
            assert (await ask(address, key=created.key_string)).status == 200
        [bucket] = [each async for each in client.usage.query(key_id=created.key.id)]
        assert bucket.success_count == 1


async def test_a_leased_client_serves_from_memory(serve: Serve, operator: Client) -> None:
    """And what is revoked is refused when Revoke has returned."""
    created = await operator.create()
    address = await serve(lease=True)
    for _ in range(20):
        assert (await ask(address, key=created.key_string)).status == 200
    await operator.revoke(created.key.id)
    assert (await ask(address, key=created.key_string)).status == 401
