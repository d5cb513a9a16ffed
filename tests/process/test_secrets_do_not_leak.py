"""Key strings are handed out once and then known to their holders alone: nothing of ours writes them down."""

import base64
import socket
import string
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from psycopg import sql

from keysvc.rpc.limits import MESSAGE_BYTES_MAX
from keysvc.rpc.server import CONTRACT
from keysvc.store.embedded import Record
from keysvc.v1 import audit_service_pb2, key_pb2, key_service_pb2, verify_pb2, workspace_service_pb2
from tests.deployment import WORKSPACE, Client, Refused
from tests.process.conftest import Used
from tests.process.running import Serving, run
from tests.process.searching import dump, files_since, leaks

pytestmark = pytest.mark.timeout(180)  # on a busy machine each of many processes takes its time

NEEDED = "a planted text that all hiding places have"
"""Shows that a hiding place is one: that what was written there is found there."""


def test_the_search_finds_what_there_is_to_find() -> None:
    """Planted keys are found in every writing, at every place among other bytes, whole and by their random part."""
    signs = string.digits + string.ascii_letters
    key_string, other = "sk_live_1" + (signs * 2)[:64], "sk_live_1" + (signs * 2)[::-1][:64]
    random_part = key_string[24:67]
    for before in range(6):
        for part in (key_string, random_part):
            raw = b"\xfb" * before + part.encode() + b"\xff" * (before % 4)
            for writing in (raw, raw.hex(), raw.hex().upper(), base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
                place = writing.encode() if isinstance(writing, str) else writing
                assert leaks([key_string], {"place": b"x" + place + b"y"})
                assert not leaks([other], {"place": b"x" + place + b"y"})


class Misuse:
    """Calls every method with a key string in every place where a text can be.

    Parameters:
        client: who calls; its metadata may be changed.
        key_strings: taken in turn.
    """

    def __init__(self, client: Client, key_strings: Sequence[str]) -> None:
        self._client = client
        self._key_strings = key_strings
        self.calls = 0
        self.codes = set[grpc.StatusCode]()

    def next(self) -> str:
        """The next key string."""
        self.calls += 1
        return self._key_strings[self.calls % len(self._key_strings)]

    async def everywhere(self, **base: Message) -> None:
        """Call all methods; ``base`` has requests that are good but for what is put into them, by method."""
        for service in CONTRACT:
            for method in service.methods:
                request_class = GetMessageClass(method.input_type)
                good = base.get(method.name, request_class())
                for path in texts_of(method.input_type):
                    for text in (self.next(), f"it was {self.next()}, sorry"):
                        request = request_class()
                        request.CopyFrom(good)
                        put(request, path, text)
                        await self.send(method.full_name, request.SerializeToString())
                for bad in (b"\xff\xff", b"\x0a\x49", b"\x0a\xff\x01", b"\x0a\x4b\xff\xfe"):
                    await self.send(method.full_name, bad + self.next().encode())
                await self.send(f"{service.full_name}.{self.next()}", b"")

    async def send(self, method: str, body: bytes, *metadata: tuple[str, str | bytes]) -> None:
        """Send bytes to a method, with a key string for a request id. What is answered does not matter."""
        name, _, method = method.rpartition(".")
        headers: Any = [("x-request-id", self.next()), *metadata]
        if not any(header == "authorization" for header, _ in metadata):
            headers.append(("authorization", f"Bearer {self._client.key_string}"))
        try:
            await self._client.channel.unary_unary(f"/{name}/{method}")(body, metadata=headers, timeout=20)
        except grpc.aio.AioRpcError as error:
            self.codes.add(error.code())

    async def callers(self) -> None:
        """Key strings as all that `authorization` and other metadata can be."""
        body = key_service_pb2.ListRequest().SerializeToString()
        for value in (
            "Bearer {}",
            "bearer  {} ",
            "Basic {}",
            "{}",
            "Bearer {0} {0}",
            "Bearer x{}",
            "Bearer {}x",
            "Bearer " + "{0}" * 20,
        ):
            await self.send("keysvc.v1.KeyService.List", body, ("authorization", value.format(self.next())))
        for header in ("x-request-id", "authorization-bin", "x-request-id-bin", "cookie", "user-agent"):
            value = self.next()
            await self.send(
                "keysvc.v1.KeyService.List", body, (header, value.encode() if header.endswith("-bin") else value)
            )
        await self.send("keysvc.v1.KeyService.List", body, (self.next().lower(), self.next()))

    async def too_much(self) -> None:
        """A message and metadata beyond all limits."""
        await self.send("keysvc.v1.KeyService.Verify", self.next().encode() * (MESSAGE_BYTES_MAX // 70))
        await self.send("keysvc.v1.KeyService.Verify", b"", ("x-much", self.next() * 150))

    def by_http(self, address: str) -> None:
        """What is no gRPC at all."""
        host, port = address.split(":")
        for text in ("GET /{0} HTTP/1.1\r\nhost: {0}\r\nauthorization: Bearer {0}\r\n\r\n", "{0}\r\n{0}\r\n\r\n"):
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(text.format(self.next()).encode())
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass


def texts_of(descriptor: Descriptor, depth: int = 0) -> Iterator[tuple[FieldDescriptor, ...]]:
    """The paths of all fields of a message, and of messages in it, that hold text."""
    for field in descriptor.fields:
        if field.message_type is None:
            if field.type in {field.TYPE_STRING, field.TYPE_BYTES}:
                yield (field,)
        elif depth < 4:
            yield from ((field, *rest) for rest in texts_of(field.message_type, depth + 1))


def put(message: Any, path: tuple[FieldDescriptor, ...], text: str) -> None:
    """Put a text into the field at a path."""
    field, *rest = path
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value.update({text: "x"} if rest[0].name == "key" else {"x": text})
    elif rest:
        put(value.add() if field.is_repeated else value, tuple(rest), text)
    elif field.is_repeated:
        value.append(text)
    else:
        setattr(message, field.name, text)


async def events_of(operator: Client) -> bytes:
    """All audit events, as the service tells them."""
    told, token = bytearray(), ""
    while True:
        request = audit_service_pb2.ListAuditEventsRequest(page_size=1000, page_token=token)
        page = await operator.call(operator.audit.ListAuditEvents, request)
        told += page.SerializeToString() + str(page).encode()
        token = page.next_page_token
        if not token:
            return bytes(told)


async def test_no_key_string_is_written_down(used: Used) -> None:
    """Not in the log, the audit, the database, PostgreSQL's own log or any file, however it was presented.

    Neither whole nor by its random part alone; as text, in hex or in base64. Calls are good and bad, of all methods,
    by known and unknown callers, with failures of the database in between; the start page goes to no terminal.
    """
    began = time.time() - 2  # what a file system thinks of a time may be coarser than ours
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Serving("--data-dir", used.folder))
        channel = grpc.aio.insecure_channel(address := server.ready())
        stack.push_async_callback(channel.close)
        operator = Client(channel, used.operator_key)
        key_strings = await make_keys(operator)
        await use(operator, key_strings)

        url = Record.read(used.folder / "cluster").url  # type: ignore[union-attr]
        misuse = Misuse(operator, key_strings)
        await misuse.everywhere(**await good_requests(operator))
        await misuse.callers()
        await misuse.too_much()
        misuse.by_http(address)
        await break_the_database(url, misuse, operator, key_strings)
        assert misuse.calls > 300
        assert not misuse.codes & {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}

        plant(url)
        await operator.call(operator.keys.List, key_service_pb2.ListRequest(), x_request_id=NEEDED.replace(" ", "-"))
        await operator.create(owner=NEEDED)
        bootstrap = run("bootstrap", "--another", "--data-dir", used.folder)
        key_strings += [used.operator_key, bootstrap.stdout.strip()]
        places = {
            "audit events": await events_of(operator),
            "database": dump(url),
            "postgres.log": (used.folder / "postgres.log").read_bytes(),
        }
        server.stop()
    places["files"] = b"\0".join(files_since(used.folder, began).values())
    places["log"] = (server.out + server.err).encode()
    assert "call failed" in server.err, "an error of ours was logged, with its traceback"
    assert {name: NEEDED in place.decode(errors="replace").replace("-", " ") for name, place in places.items()} == (
        dict.fromkeys(places, True)
    )
    assert leaks(key_strings, places) == []


async def make_keys(operator: Client) -> list[str]:
    """Keys of all kinds."""
    await operator.create_workspace(roles=[{"name": "exporter", "scopes": ["pdf.export"]}])
    created = [
        await operator.create(request_id=str(uuid4()), role="exporter", metadata={"plan": "gold"}, tags=["a"]),
        await operator.create(environment=key_pb2.ENVIRONMENT_TEST, ip_allowlist=["127.0.0.0/8"]),
        await operator.create(ttl={"nanos": 1_000_000}),
        await operator.create(workspace="keysvc/system", scopes=["verify", "keys.read"]),
    ]
    return [each.key_string for each in created]


async def use(operator: Client, key_strings: Sequence[str]) -> None:
    """Use keys as they are meant to be used, through all their states."""
    for key_string in key_strings:
        answer = await operator.verify(key_string, source_ip="127.0.0.1", required_scopes=["pdf.read"])
        await operator.verify(key_string[:-1] + ("x" if key_string[-1] != "x" else "y"))
        if answer.workspace == WORKSPACE:
            for change in (operator.suspend, operator.resume, operator.revoke):
                await change(answer.key_id, reason="it was seen in a log")
            await operator.verify(key_string)
    batch = verify_pb2.VerifyBatchRequest(requests=[verify_pb2.VerifyRequest(key_string=each) for each in key_strings])
    await operator.call(operator.keys.VerifyBatch, batch)
    for key_string in (*key_strings, used_nowhere := "sk_live_1" + "a" * 64):
        caller = Client(operator.channel, key_string)
        for call in (caller.list(), caller.verify(used_nowhere), caller.create()):
            try:
                await call
            except Refused:
                continue


async def good_requests(operator: Client) -> dict[str, Message]:
    """Requests that succeed as they are, so that what is put into one of their fields gets far."""
    key_id = (await operator.create()).key.id
    return {
        "Create": key_service_pb2.CreateRequest(
            workspace=WORKSPACE, display_name="a key", environment=key_pb2.ENVIRONMENT_LIVE
        ),
        "Get": key_service_pb2.GetRequest(key_id=key_id),
        "Suspend": key_service_pb2.SuspendRequest(key_id=key_id),
        "Resume": key_service_pb2.ResumeRequest(key_id=key_id),
        "Verify": verify_pb2.VerifyRequest(key_string="sk_live_1" + "a" * 64),
        "Revoke": key_service_pb2.RevokeRequest(key_id=key_id),
        "CreateWorkspace": workspace_service_pb2.CreateWorkspaceRequest(workspace={"name": "acme-corp/more"}),
        "UpdateWorkspace": workspace_service_pb2.UpdateWorkspaceRequest(
            workspace={"name": WORKSPACE}, update_mask={"paths": ["display_name", "allowed_scopes", "roles"]}
        ),
        "SuspendWorkspace": workspace_service_pb2.SuspendWorkspaceRequest(name=WORKSPACE),
        "ResumeWorkspace": workspace_service_pb2.ResumeWorkspaceRequest(name=WORKSPACE),
    }


async def break_the_database(url: str, misuse: Misuse, operator: Client, key_strings: Sequence[str]) -> None:
    """Calls while one table, then another, is not what it was: errors of ours, with tracebacks."""
    for table in ("audit_event", "secret", "workspace"):
        with psycopg.connect(url, autocommit=True) as connection:
            away = sql.Identifier(f"{table}_away")
            connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(sql.Identifier(table), away))
            try:
                for key_string in key_strings:
                    request = verify_pb2.VerifyRequest(key_string=key_string).SerializeToString()
                    await misuse.send("keysvc.v1.KeyService.Verify", request)
                    with pytest.raises(Refused) as refused:
                        await operator.create()
                    assert refused.value.code is grpc.StatusCode.INTERNAL
            finally:
                connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(away, sql.Identifier(table)))


def plant(url: str) -> None:
    """Make PostgreSQL write the planted text into its log."""
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute(sql.SQL("SELECT 1 / 0 AS {}").format(sql.Identifier(NEEDED)))


def test_arguments_and_variables_do_not_show_up(used: Used) -> None:
    """A key string in the wrong place of a command line or of the environment is not repeated by a refusal."""
    key_string = used.operator_key
    for arguments, variables in (
        (("serve", "--listen", key_string), {}),
        (("serve", "--data-dir", used.folder), {"KEYSVC_PEPPERS": key_string}),
        (("serve", "--data-dir", used.folder), {"KEYSVC_PEPPERS_FILE": f"/no/{key_string}"}),
        (("serve",), {"KEYSVC_DATABASE_URL": key_string}),
    ):
        refused = run(*arguments, **variables)
        assert refused.returncode != 0
        assert leaks([key_string], {"output": (refused.stdout + refused.stderr).encode()}) == []
