"""What whoever can connect may ask of a server, and that others are answered while it is asked for too much.

Most limits are options of gRPC, which takes a name that it does not know without a word: here each has an effect.
"""

import asyncio
import gzip
import resource
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, GoAwayFrame, PingFrame, RstStreamFrame, SettingsFrame

from keysvc.core.pepper import Peppers
from keysvc.rpc.limits import FILES_KEPT, METADATA_BYTES_MAX, STREAMS_MAX, Limits
from keysvc.v1 import verify_pb2
from tests.authority import NEEDS_OPENSSL, Authority
from tests.deployment import Client, Deployment, Refused, eventually
from tests.http2 import PREFACE, connected, message

VERIFY: Final = "/keysvc.v1.KeyService/Verify"
OK, RESOURCE_EXHAUSTED, UNAUTHENTICATED = 0, 8, 16
REFUSED_STREAM, ENHANCE_YOUR_CALM = 7, 11
ANSWERS_MIN: Final = 3

Start = Callable[..., Awaitable[Deployment]]


@pytest.fixture
async def start(database_url: str, peppers: Peppers) -> AsyncIterator[Start]:
    """Starts a server with other limits; files of TLS may be given too."""
    async with AsyncExitStack() as stack:

        async def start(tls: dict[str, Path] | None = None, **limits: float) -> Deployment:
            return await Deployment.open(stack, database_url, peppers, server_limits=Limits(**limits), **tls or {})

        yield start


@asynccontextmanager
async def others_answered(deployment: Deployment) -> AsyncIterator[None]:
    """Another client's Verify is answered all the time, and some more times before this ends."""
    client = await deployment.client()
    await client.create_workspace()
    created = await client.create()
    answers = 0

    async def verify() -> None:
        nonlocal answers
        while True:
            assert await client.verdict(created.key_string) == "VALID"
            answers += 1
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        verifying = group.create_task(verify())
        yield
        enough = answers + ANSWERS_MIN
        while answers < enough:  # noqa: ASYNC110 (it is counted by what may fail)
            await asyncio.sleep(0.01)
        verifying.cancel()


def request(deployment: Deployment) -> tuple[bytes, tuple[str, str]]:
    """The request of a sound Verify, and the header that allows it."""
    asked = verify_pb2.VerifyRequest(key_string=deployment.operator_key)
    return asked.SerializeToString(), ("authorization", f"Bearer {deployment.operator_key}")


async def verified(client: Client) -> str:
    """The verdict on a key string that nobody has, or the status."""
    try:
        return await client.verdict("sk_live_nobody")
    except Refused as refused:
        return f"{refused.code.name}: {refused.message}"


async def test_what_is_told_of_the_limits(deployment: Deployment) -> None:
    """Clients hear how many calls and how much metadata a server takes, so that sound ones keep to it."""
    async with connected(deployment.address) as connection:
        assert connection.settings[0x3] == STREAMS_MAX
        assert connection.settings[0x6] == METADATA_BYTES_MAX


async def test_a_large_message_is_refused_before_it_has_come(start: Start) -> None:
    """By its length: a client that promises a gigabyte cannot have a server keep what it sends of it."""
    deployment = await start()
    async with others_answered(deployment), connected(deployment.address) as connection:
        stream = await connection.begin(VERIFY)
        await connection.send(message(stream, b"begin", length=1 << 30))
        code, text = await connection.status(stream)
        assert code == RESOURCE_EXHAUSTED
        assert "larger than max" in text


async def test_a_message_that_unpacks_to_a_large_one_is_refused(start: Start) -> None:
    """While it is unpacked, not when it all lies in memory."""
    deployment = await start()
    async with others_answered(deployment), connected(deployment.address) as connection:
        stream = await connection.begin(VERIFY, ("grpc-encoding", "gzip"))
        await connection.send(message(stream, gzip.compress(bytes(2 << 20)), packed=True))
        assert await connection.status(stream) == (RESOURCE_EXHAUSTED, "Decompressed message larger than max")


async def test_too_much_metadata_is_refused_and_no_less(start: Start) -> None:
    """There is one limit, and no chance in it."""
    deployment = await start(metadata_bytes_max=20_000)
    body, authorized = request(deployment)
    async with others_answered(deployment), connected(deployment.address) as connection:
        for size, code in ((19_000, OK), (20_000, RESOURCE_EXHAUSTED)) * 10:
            stream = await connection.begin(VERIFY, authorized, ("x-much", "~" * size))
            await connection.send(message(stream, body))
            answered = await connection.status(stream)
            assert answered[0] == code, answered


async def test_endless_headers_do_no_harm(start: Start) -> None:
    """Headers that go on for megabytes are not kept, and their call is refused at their end."""
    deployment = await start()
    async with others_answered(deployment), connected(deployment.address) as connection:
        stream, frames = connection.call(VERIFY, *[(f"x-{number}", "~" * 8000) for number in range(300)])
        await connection.send(*frames)
        assert (await connection.status(stream))[0] == RESOURCE_EXHAUSTED
        _, frames = connection.call(VERIFY, finished=False)
        await connection.send(*frames, *[ContinuationFrame(frames[0].stream_id) for _ in range(1000)])
        await connection.closed()


async def test_calls_beyond_those_of_one_connection_are_refused(start: Start) -> None:
    """Whoever does not keep to the number that it was told gets nothing for it."""
    deployment = await start(streams_max=3)
    async with others_answered(deployment), connected(deployment.address) as connection:
        taken = [await connection.begin(VERIFY) for _ in range(3)]
        refused = [await connection.begin(VERIFY) for _ in range(2)]
        for stream in refused:
            reset = await connection.wait(RstStreamFrame, lambda frame, stream=stream: frame.stream_id == stream)
            assert reset.error_code == REFUSED_STREAM
        for stream in taken:
            await connection.send(message(stream, b""))
            assert (await connection.status(stream))[0] == UNAUTHENTICATED


async def test_connections_beyond_the_limit_are_closed_at_once(start: Start) -> None:
    """Those that are open go on, and when one of them ends another one is taken."""
    deployment = await start(connections_max=3)
    async with others_answered(deployment):
        async with connected(deployment.address), connected(deployment.address):
            with pytest.raises(ConnectionError):
                async with connected(deployment.address):
                    pass

        async def taken() -> bool:
            with suppress(ConnectionError):
                async with connected(deployment.address):
                    return True
            return False

        await eventually(taken)


def test_connections_leave_files_for_others() -> None:
    """Nobody who can connect keeps a server from its database."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert Limits().connections_max == max(1, files - FILES_KEPT)


@pytest.mark.parametrize("sent", [b"", PREFACE[:-1], PREFACE, b"GET / HTTP/1.1\r\n\r\n"])
async def test_who_never_begins_to_speak_http2_is_hung_up_on(start: Start, sent: bytes) -> None:
    """In time."""
    deployment = await start(handshake_seconds_max=0.5)
    async with others_answered(deployment), connected(deployment.address, sends=sent) as connection:
        await connection.hung_up(1.5)


@NEEDS_OPENSSL
@pytest.mark.parametrize("begun", [False, True])
async def test_who_never_ends_its_handshake_is_hung_up_on(start: Start, tmp_path: Path, begun: bool) -> None:
    """Neither the beginning of TLS nor TLS without HTTP/2 keeps a connection."""
    authority = Authority.create(tmp_path, "ca")
    cert, key = authority.sign("server")
    deployment = await start({"tls_cert": cert, "tls_key": key}, handshake_seconds_max=0.5)
    context = ssl.create_default_context(cafile=authority.certificate)
    context.set_alpn_protocols(["h2"])
    if begun:
        async with connected(deployment.address, sends=b"", tls=context) as connection:
            await connection.hung_up(1.5)
    else:
        async with connected(deployment.address, sends=b"\x16\x03\x01\x02\x00\x01\x00") as connection:
            await connection.hung_up(1.5)


async def test_calls_that_wait_for_their_request_count(start: Start) -> None:
    """So that they cannot fill the memory; the price is that others are refused meanwhile, until they are gone."""
    deployment = await start(calls_max=3, connection_seconds_max=2, connection_grace_seconds=1)
    client = await deployment.client()
    async with connected(deployment.address) as connection:
        for _ in range(3):
            await connection.begin(VERIFY)
        answers = set()

        async def refused() -> bool:
            answers.add(await verified(client))
            return "RESOURCE_EXHAUSTED: Concurrent RPC limit exceeded!" in answers

        await eventually(refused)
        assert answers <= {"MALFORMED", "RESOURCE_EXHAUSTED: Concurrent RPC limit exceeded!"}

        async def answered() -> bool:
            return await verified(client) == "MALFORMED"

        await eventually(answered)


async def test_who_does_not_answer_is_hung_up_on(start: Start) -> None:
    """Whether it is gone, hangs, or reads nothing: it does not say that it is there when it is asked."""
    deployment = await start(keepalive_seconds=0.3, keepalive_seconds_max=0.2)
    async with others_answered(deployment), connected(deployment.address) as connection:
        await connection.begin(VERIFY)
        await connection.hung_up(1.5)


async def test_pings_that_come_too_often_end_the_connection(start: Start) -> None:
    """With a reason that a client's author can look up."""
    deployment = await start()
    async with others_answered(deployment), connected(deployment.address) as connection:
        await connection.send(*[PingFrame(opaque_data=bytes(8)) for _ in range(1000)])
        told = await connection.wait(GoAwayFrame)
        assert (told.error_code, told.additional_data) == (ENHANCE_YOUR_CALM, b"too_many_pings")
        await connection.closed()


async def test_some_pings_are_fine(start: Start) -> None:
    """Without any call, and a few sooner than they should; gRPC's own limits allow neither so many nor so soon."""
    deployment = await start(ping_seconds_min=0.05, ping_strikes_max=5)
    async with connected(deployment.address) as connection:
        for pause in (0.1,) * 10 + (0,) * 4:
            await asyncio.sleep(pause)
            await connection.send(PingFrame(opaque_data=bytes(8)))
            await connection.wait(PingFrame, lambda frame: "ACK" in frame.flags)
        await connection.send(*[PingFrame(opaque_data=bytes(8)) for _ in range(10)])
        assert (await connection.wait(GoAwayFrame)).error_code == ENHANCE_YOUR_CALM


async def test_calls_that_are_reset_at_once_do_no_harm(start: Start) -> None:
    """HTTP/2 rapid reset: no more of it is under way than of calls that are not reset."""
    deployment = await start()
    _, authorized = request(deployment)
    async with others_answered(deployment), connected(deployment.address) as connection:
        for _ in range(100):
            batch = []
            for _ in range(100):
                stream, frames = connection.call(VERIFY, authorized)
                batch += [*frames, RstStreamFrame(stream, error_code=8)]
            await connection.send(*batch)
    async with connected(deployment.address) as connection:
        stream = await connection.begin(VERIFY)
        await connection.send(message(stream, b""))
        assert (await connection.status(stream))[0] == UNAUTHENTICATED


async def test_empty_frames_do_no_harm(start: Start) -> None:
    """Data without bytes ends the connection, settings without values are answered."""
    deployment = await start()
    async with others_answered(deployment), connected(deployment.address) as connection:
        stream = await connection.begin(VERIFY)
        await connection.send(*[DataFrame(stream) for _ in range(20_000)])
        await connection.closed()
        async with connected(deployment.address) as other:
            await other.send(*[SettingsFrame() for _ in range(10_000)])
            for _ in range(10_000):
                await other.wait(SettingsFrame, lambda frame: "ACK" in frame.flags)


async def test_a_call_is_not_cut_by_the_age_of_its_connection(start: Start) -> None:
    """The client hears that it should leave, and the call under way is answered."""
    deployment = await start(connection_seconds_max=0.5, connection_grace_seconds=30)
    body, authorized = request(deployment)
    async with connected(deployment.address) as connection:
        stream = await connection.begin(VERIFY, authorized)
        assert (await connection.wait(GoAwayFrame)).error_code == 0
        await connection.send(message(stream, body))
        assert (await connection.status(stream))[0] == OK
        await connection.closed()


async def test_a_call_that_does_not_end_is_cut_after_the_grace(start: Start) -> None:
    """So nobody keeps a connection, or a call, for longer than its age and the grace."""
    deployment = await start(connection_seconds_max=0.5, connection_grace_seconds=0.5)
    async with connected(deployment.address) as connection:
        await connection.begin(VERIFY)
        await connection.closed(3)


async def test_clients_connect_again_without_failed_calls(start: Start) -> None:
    """When their connections have reached their age, again and again, while they call."""
    deployment = await start(connection_seconds_max=0.2, connection_grace_seconds=30)
    async with others_answered(deployment):
        for _ in range(10):
            async with connected(deployment.address) as connection:
                await connection.wait(GoAwayFrame)


async def test_a_connection_without_calls_is_closed(start: Start) -> None:
    """In time, with a word of good-bye."""
    deployment = await start(connection_idle_seconds_max=0.5)
    async with connected(deployment.address) as connection:
        assert (await connection.wait(GoAwayFrame, seconds=1.5)).additional_data == b"connection idle"
        await connection.closed()
