"""What both interceptors do with a call, over a socket and with a real keysvc."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from keysvc.v1.verify_pb2 import Verdict, VerifyResponse
from keysvc_client import AsyncKeysvcClient, ConfigurationError, KeysvcClient, Policy
from keysvc_client.grpc import AsyncKeysvcInterceptor, KeysvcInterceptor, requires_scopes
from tests.cli.peer import Peer
from tests.client.middleware.pdf import KINDS, SERVICE, AsyncPdf, Pdf, register
from tests.deployment import Client, Deployment, Refused, eventually
from tests.guides.guide import free_address

Serve = Callable[..., Awaitable[str]]
STATED = {f"/{SERVICE}/Stated": ["pdf.read"]}
POLICY = Policy(public=[f"/{SERVICE}/Public"])


@pytest.fixture(params=["aio", "sync"])
async def serve(request: pytest.FixtureRequest, deployment: Deployment) -> AsyncIterator[Serve]:
    """Serves the methods behind each kind of interceptor."""
    async with AsyncExitStack() as stack:

        async def serve(policy: Policy = POLICY, address: str = deployment.address, **stated: Any) -> str:
            scopes = {"scopes": STATED, **stated}
            if request.param == "aio":
                client = await stack.enter_async_context(AsyncKeysvcClient(address, api_key=deployment.operator_key))
                guard = AsyncKeysvcInterceptor(client, policy=policy, **scopes)
                server = grpc.aio.server(interceptors=[guard])
                register(server, AsyncPdf())
                port = server.add_insecure_port("127.0.0.1:0")
                await server.start()
                stack.push_async_callback(guard.close)
                stack.push_async_callback(server.stop, 0)
                return f"127.0.0.1:{port}"
            blocking = stack.enter_context(KeysvcClient(address, api_key=deployment.operator_key))
            interceptor = KeysvcInterceptor(blocking, policy=policy, **scopes)
            threads = grpc.server(ThreadPoolExecutor(max_workers=1), interceptors=[interceptor])
            register(threads, Pdf())
            port = threads.add_insecure_port("127.0.0.1:0")
            threads.start()
            stack.push_async_callback(asyncio.to_thread, interceptor.close)
            stack.push_async_callback(asyncio.to_thread, lambda: threads.stop(0).wait())
            return f"127.0.0.1:{port}"

        yield serve


async def ask(
    address: str, name: str = "Read", *, key: str | None = None, text: str = "page", **metadata: str
) -> tuple[list[str], dict[str, Any]]:
    """Call a method; what it answers, and the trailing metadata."""
    sent = [(word.replace("_", "-"), value) for word, value in metadata.items()]
    if key is not None:
        sent.append(("authorization", f"Bearer {key}"))
    return await ask_with(address, name, text, sent)


async def ask_with(address: str, name: str, text: str, sent: Any) -> tuple[list[str], dict[str, Any]]:
    """The same with any metadata.

    By a client without asyncio: that with it answers INTERNAL when a server ends a call whose stream it still writes.
    """
    return await asyncio.to_thread(_ask, address, name, text, sent)


def _ask(address: str, name: str, text: str, sent: Any) -> tuple[list[str], dict[str, Any]]:
    kind = KINDS.get(name, "unary_unary")
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        method = getattr(channel, kind)(
            f"/{SERVICE}/{name}",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )
        request = StringValue(value=text)
        requests = iter([request, request]) if kind.startswith("stream") else request
        try:
            if kind.endswith("stream"):
                call = method(requests, metadata=sent, timeout=20)
                answers = [each.value for each in call]
            else:
                answer, call = method.with_call(requests, metadata=sent, timeout=20)
                answers = [answer.value]
        except grpc.RpcError as error:
            refused = Refused.of(error)  # type: ignore[arg-type]
            refused.metadata = dict(error.trailing_metadata() or ())
            raise refused from None
        return answers, dict(call.trailing_metadata())


async def refusal(*arguments: Any, **named: Any) -> Refused:
    """The error of a call that is refused."""
    with pytest.raises(Refused) as raised:
        await ask(*arguments, **named)
    return raised.value


async def test_every_kind_of_method_is_served_to_keys_with_its_scopes(serve: Serve, operator: Client) -> None:
    """And knows whom the call is from, to its end."""
    both = (await operator.create(scopes=["pdf.*"], owner="both")).key_string
    reader = (await operator.create(scopes=["pdf.read"], owner="reader")).key_string
    address = await serve()
    expected = {"Read": ["page"], "ReadMany": ["page"] * 2, "Write": ["page page"], "Talk": ["page"] * 2}
    for name, texts in expected.items():
        assert (await ask(address, name, key=both))[0] == [f"{text} for both" for text in texts]
    assert (await ask(address, "Stated", key=reader))[0] == ["page for reader"]
    for name in (*expected, "Stated"):
        assert (await refusal(address, name)).code is grpc.StatusCode.UNAUTHENTICATED
    assert (await refusal(address, "Write", key=reader)).code is grpc.StatusCode.PERMISSION_DENIED


async def test_what_nobody_has_stated_scopes_for_is_closed(
    serve: Serve, operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names it. Public methods are those that are stated; one word opens all others to valid keys."""
    key = (await operator.create(owner="somebody")).key_string
    address = await serve()
    await ask(address, "Talk", key=key)
    assert (await refusal(address, "Forgotten", key=key)).code is grpc.StatusCode.UNIMPLEMENTED
    assert f"/{SERVICE}/Forgotten is not served" in caplog.text
    assert (await refusal(address, "Missing", key=key)).code is grpc.StatusCode.UNIMPLEMENTED
    assert (await ask(address, "Public"))[0] == ["page"]
    open_address = await serve(scopes={"*": []})
    assert (await ask(open_address, "Forgotten", key=key))[0] == ["page for somebody"]
    assert (await refusal(open_address, "Forgotten")).code is grpc.StatusCode.UNAUTHENTICATED
    assert (await refusal(open_address, "Read", key=key)).code is grpc.StatusCode.PERMISSION_DENIED


async def test_refusals_of_a_status_are_all_the_same(
    serve: Serve, operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """They do not tell why, and the log does; the key string is nowhere."""
    caplog.set_level(logging.INFO, "keysvc_client")
    revoked = await operator.create(scopes=["pdf.read"])
    await operator.revoke(revoked.key.id)
    elsewhere = await operator.create(scopes=["pdf.read"], ip_allowlist=["192.0.2.1"])
    poor = await operator.create()
    address = await serve()
    found = [await refusal(address, key=key) for key in (revoked.key_string, "nonsense", "", None)]
    assert {(each.code.name, each.message) for each in found} == {("UNAUTHENTICATED", "a valid API key is needed")}
    found = [await refusal(address, key=key) for key in (elsewhere.key_string, poor.key_string)]
    assert {(each.code.name, each.message) for each in found} == {
        ("PERMISSION_DENIED", "the API key does not allow this")
    }
    for verdict in ("revoked", "malformed", "ip_not_allowed", "insufficient_scope"):
        assert verdict in caplog.text
    assert revoked.key_string not in caplog.text


async def test_several_keys_and_other_schemes_are_none(serve: Serve, operator: Client) -> None:
    """Nobody can tell which one counts."""
    value = f"Bearer {(await operator.create(scopes=['pdf.read'])).key_string}"
    address = await serve()
    for sent in ([("authorization", value)] * 2, [("authorization", "Basic dTpw")]):
        with pytest.raises(Refused) as raised:
            await ask_with(address, "Read", "page", sent)
        assert raised.value.code is grpc.StatusCode.UNAUTHENTICATED


async def test_too_many_calls_are_told_when_to_try_again(serve: Serve, peer: Peer) -> None:
    """The server has no such verdict yet: the peer gives it."""
    peer.answers("Verify", VerifyResponse(verdict=Verdict.VERDICT_RATE_LIMITED))
    refused = await refusal(await serve(address=peer.address), key="sk_live_anything")
    assert (refused.code, refused.retry_after_seconds) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 1)


async def test_while_keysvc_is_away_it_is_unavailable(serve: Serve) -> None:
    """With the time after which to try again; nobody is told that a key is bad."""
    refused = await refusal(await serve(address=free_address()), key="sk_live_anything")
    assert (refused.code, refused.message) == (grpc.StatusCode.UNAVAILABLE, "try again later")
    assert refused.retry_after_seconds == 1


async def test_the_request_id_is_given_back(serve: Serve, operator: Client) -> None:
    """Also where a method sets trailing metadata of its own, or fails, and with a refusal."""
    key = (await operator.create(scopes=["pdf.read"])).key_string
    address = await serve()
    assert (await ask(address, key=key, x_request_id="trace-1"))[1]["x-request-id"] == "trace-1"
    assert (await ask(address, "Fail", key=key, x_request_id="trace-2"))[1] == {
        "x-own": "1", "x-request-id": "trace-2",
    }  # fmt: skip
    assert (await refusal(address, x_request_id="trace-3")).metadata["x-request-id"] == "trace-3"
    assert len((await ask(address, key=key, x_request_id="x" * 129))[1]["x-request-id"]) == 36


async def test_keys_and_addresses_may_come_in_other_metadata(serve: Serve, operator: Client) -> None:
    """As for HTTP."""
    key = (await operator.create(scopes=["pdf.read"], ip_allowlist=["192.0.2.7"])).key_string
    address = await serve(Policy(header="X-API-Key", trusted_proxies=1))
    await ask(address, x_api_key=key, x_forwarded_for="203.0.113.9, 192.0.2.7")
    assert (await refusal(address, x_api_key=key)).code is grpc.StatusCode.PERMISSION_DENIED
    assert (await refusal(address, key=key)).code is grpc.StatusCode.UNAUTHENTICATED
    local = (await operator.create(scopes=["pdf.read"], ip_allowlist=["127.0.0.1"])).key_string
    await ask(await serve(), key=local)


async def test_outcomes_are_reported(serve: Serve, operator: Client, deployment: Deployment) -> None:
    """What was done and what failed, however a method says so."""
    created = await operator.create(scopes=["pdf.read"])
    address = await serve()
    await ask(address, key=created.key_string)
    await ask(address, "ReadMany", key=created.key_string)
    for text, code in (("abort", "NOT_FOUND"), ("code", "OUT_OF_RANGE"), ("fail", "UNKNOWN")):
        assert (await refusal(address, "Fail", key=created.key_string, text=text)).code.name == code
    async with AsyncKeysvcClient(deployment.address, api_key=deployment.operator_key) as client:

        async def counted() -> list[tuple[int, int, int]]:
            found = [each async for each in client.usage.query(key_id=created.key.id)]
            counts = [(each.verify_count, each.success_count, each.failure_count) for each in found]
            return counts if counts and sum(counts[0]) >= 10 else []

        assert await eventually(counted) == [(5, 2, 3)]


async def test_methods_that_are_not_asynchronous_are_not_served_by_asyncio(
    deployment: Deployment, operator: Client
) -> None:
    """They would stop the event loop; the key is not even looked at."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncKeysvcClient(deployment.address, api_key=deployment.operator_key))
        server = grpc.aio.server(interceptors=[AsyncKeysvcInterceptor(client)])
        register(server, Pdf())
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, 0)
        key = (await operator.create(scopes=["pdf.read"])).key_string
        assert (await refusal(f"127.0.0.1:{port}", key=key)).code is grpc.StatusCode.UNKNOWN


def test_what_is_no_method_or_scope_is_told_at_once() -> None:
    """And not when a call comes."""
    with KeysvcClient(api_key="sk_live_anything") as client:
        with pytest.raises(ConfigurationError, match="Read"):
            KeysvcInterceptor(client, {"Read": ["pdf.read"]})
        with pytest.raises(ConfigurationError, match="several"):
            KeysvcInterceptor(client, {"/pdf.v1.Pdf/Read": "pdf.read"})
    with pytest.raises(ConfigurationError, match="dotted"):
        requires_scopes("pdf.*")
