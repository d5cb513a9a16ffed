"""What a protected request costs: with a lease, by RPC, and beside one without protection."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from bench.generator import WrongAnswersError
from bench.result import Column, Row, Topic, percentile
from bench.session import ONE_WORKER, SCOPE, Session
from keysvc_client import AsyncKeysvcClient, KeysvcClient, Policy, Verification, asgi, wsgi

P50_US_MAX: Final = 2.0
P99_US_MAX: Final = 5.0

ROUND: Final = 2_000
"""Calls of a round; of those that cross the network a tenth."""

PRIMED_ASKINGS_MAX: Final = 1_000

COLUMNS: Final = (
    Column("calls", "calls"),
    Column("p50_us", "p50 µs", ",.2f"),
    Column("p99_us", "p99 µs", ",.2f"),
    Column("added_us", "p50 beside unprotected, µs", "+,.2f"),
)

POLICY: Final = Policy(required_scopes=[SCOPE])

Act: TypeAlias = Callable[[], Awaitable[bool]]
"""One call; whether its answer was right."""


@dataclass(slots=True)
class Contender:
    """Somebody who answers.

    Parameters:
        calls: of a round.
        beside: the one without protection; None: this is no request.
        seconds: of each call so far.
    """

    name: str
    run: Callable[["Contender"], Awaitable[None]]
    calls: int = ROUND
    beside: str = ""
    seconds: list[float] = field(default_factory=list)


async def measure(session: Session) -> Topic:
    """In turn, in rounds, in random order."""
    topic = Topic(
        "protect",
        "A protected request",
        "One process calls an application in itself, without a socket, with the same headers each time; each call is "
        "timed. Leased: the client library answers in the process. By RPC: it asks a server with one worker on this "
        "machine. `verify` is the call of the library itself. In rounds, in random order.",
        COLUMNS,
    )
    (key,) = session.pool.take(1)
    with session.deployment.serve(*ONE_WORKER) as served:
        connection: dict[str, Any] = {"target": served.address, "api_key": session.operator.reveal()}
        async with (
            AsyncKeysvcClient(**connection, lease=True) as leased,
            AsyncKeysvcClient(**connection) as remote,
        ):
            with KeysvcClient(**connection, lease=True) as sync_leased, KeysvcClient(**connection) as sync_remote:
                key_string = key.key_string.reveal()
                await _until_own(leased, key_string)
                await asyncio.to_thread(_until_own_sync, sync_leased, key_string)
                asgi_apps = [asgi.KeysvcMiddleware(_asgi_app, each, POLICY) for each in (leased, remote)]
                wsgi_apps = [wsgi.KeysvcMiddleware(_wsgi_app, each, POLICY) for each in (sync_leased, sync_remote)]
                contenders = [
                    *_calls(leased, sync_leased, key_string),
                    *_asgi(asgi_apps[0], asgi_apps[1], key_string),
                    *_wsgi(wsgi_apps[0], wsgi_apps[1], key_string),
                ]
                for _ in range(session.effort.rounds):
                    session.chance.shuffle(contenders)
                    for each in contenders:
                        await each.run(each)
                for protected in asgi_apps:
                    await protected.close()
                for app in wsgi_apps:
                    await asyncio.to_thread(app.close)
    rows = {each.name: each for each in contenders}
    topic.rows.extend(_row(each, rows) for each in sorted(contenders, key=lambda each: each.name))
    topic.checks.append(f"each of {sum(len(each.seconds) for each in contenders):,} answers was what it must be")
    return topic


def _row(contender: Contender, rows: dict[str, Contender]) -> Row:
    times = [1e6 * each for each in contender.seconds]
    figures: dict[str, float | int | None] = {
        "calls": len(times),
        "p50_us": percentile(times, 0.5),
        "p99_us": percentile(times, 0.99),
    }
    if contender.beside:
        beside = [1e6 * each for each in rows[contender.beside].seconds]
        figures["added_us"] = percentile(times, 0.5) - percentile(beside, 0.5)
    if not contender.name.startswith("verify"):
        return Row(contender.name, figures)
    holds = percentile(times, 0.5) <= P50_US_MAX and percentile(times, 0.99) <= P99_US_MAX
    return Row(contender.name, figures, f"p50 at most {P50_US_MAX:g} µs, p99 at most {P99_US_MAX:g} µs", holds)


def _timed(act: Callable[[], bool]) -> Callable[[Contender], Awaitable[None]]:
    """Time calls that wait for nothing of the event loop."""

    def run_all(contender: Contender) -> None:
        for _ in range(contender.calls):
            began = time.perf_counter()
            is_right = act()
            contender.seconds.append(time.perf_counter() - began)
            if not is_right:
                raise WrongAnswersError(f"{contender.name}: not the answer that was expected")

    async def run(contender: Contender) -> None:
        await asyncio.to_thread(run_all, contender)

    return run


def _awaited(act: Act) -> Callable[[Contender], Awaitable[None]]:
    """Time calls that are awaited, one after the other."""

    async def run(contender: Contender) -> None:
        for _ in range(contender.calls):
            began = time.perf_counter()
            is_right = await act()
            contender.seconds.append(time.perf_counter() - began)
            if not is_right:
                raise WrongAnswersError(f"{contender.name}: not the answer that was expected")

    return run


def _calls(leased: AsyncKeysvcClient, sync_leased: KeysvcClient, key_string: str) -> Iterable[Contender]:
    scopes = (SCOPE,)

    async def verify() -> bool:
        return (await leased.verify(key_string, required_scopes=scopes)).valid

    yield Contender("verify, leased, asyncio", _awaited(verify))
    yield Contender("verify, leased", _timed(lambda: sync_leased.verify(key_string, required_scopes=scopes).valid))


async def _asgi_app(_scope: asgi.Scope, _receive: asgi.Receive, send: asgi.Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


def _wsgi_app(_environ: wsgi.Environ, start_response: wsgi.StartResponse) -> list[bytes]:
    start_response("200 OK", [])
    return [b"done"]


def _asgi(leased: asgi.App, remote: asgi.App, key_string: str) -> Iterable[Contender]:
    async def receive() -> asgi.Message:
        return {"type": "http.request", "body": b""}

    def act(protected: asgi.App) -> Act:
        async def call() -> bool:
            statuses = []

            async def send(message: asgi.Message) -> None:
                statuses.append(message.get("status"))

            headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {key_string}".encode())]
            scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": ("192.0.2.7", 1)}
            await protected(scope, receive, send)
            return statuses == [200, None]

        return call

    beside = "ASGI, unprotected"
    yield Contender(beside, _awaited(act(_asgi_app)))
    yield Contender("ASGI, leased", _awaited(act(leased)), beside=beside)
    yield Contender("ASGI, by RPC", _awaited(act(remote)), ROUND // 10, beside)


def _wsgi(leased: wsgi.App, remote: wsgi.App, key_string: str) -> Iterable[Contender]:
    def act(protected: wsgi.App) -> Callable[[], bool]:
        def call() -> bool:
            def start(status: str, *_: object) -> Callable[[bytes], object]:
                statuses.append(status)
                return written.append

            written: list[bytes] = []
            statuses: list[str] = []
            environ: wsgi.Environ = {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": "/",
                "REMOTE_ADDR": "192.0.2.7",
                "HTTP_AUTHORIZATION": f"Bearer {key_string}",
            }
            answer = protected(environ, start)
            body = b"".join(answer)
            if hasattr(answer, "close"):
                answer.close()
            return (statuses, body) == (["200 OK"], b"done")

        return call

    beside = "WSGI, unprotected"
    yield Contender(beside, _timed(act(_wsgi_app)))
    yield Contender("WSGI, leased", _timed(act(leased)), beside=beside)
    yield Contender("WSGI, by RPC", _timed(act(remote)), ROUND // 10, beside)


def _is_own(verification: Verification) -> bool:
    return verification.holder.endswith("(client)")


async def _until_own(client: AsyncKeysvcClient, key_string: str) -> None:
    """Wait until the client answers by itself."""
    for _ in range(PRIMED_ASKINGS_MAX):
        if _is_own(await client.verify(key_string, required_scopes=(SCOPE,), source_ip="192.0.2.7")):
            return
        await asyncio.sleep(0.01)
    raise WrongAnswersError("the client never answered by itself")


def _until_own_sync(client: KeysvcClient, key_string: str) -> None:
    for _ in range(PRIMED_ASKINGS_MAX):
        if _is_own(client.verify(key_string, required_scopes=(SCOPE,), source_ip="192.0.2.7")):
            return
        time.sleep(0.01)
    raise WrongAnswersError("the client never answered by itself")
