"""What opens a sealed copy is not kept anywhere, nor what is in it."""

import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest

from keysvc.store.embedded import Record
from keysvc.v1 import key_pb2
from tests.deployment import Client, Refused
from tests.process.conftest import Used
from tests.process.running import Serving
from tests.process.searching import dump, files_since, leaks, leaks_of_ids, log_of_changes, traces_of_id

pytestmark = pytest.mark.timeout(180)  # on a busy machine each of many processes takes its time

NAME = "a name that all hiding places have"
"""Shows that a hiding place is one: that what was written there is found there."""


def test_the_search_finds_ids_in_every_writing() -> None:
    """In small and capital letters, with dashes and without, as bytes and in base64, among other bytes."""
    uuid, other = uuid4(), uuid4()
    for writing in (str(uuid), str(uuid).upper(), uuid.hex, uuid.hex.upper(), uuid.bytes, uuid.bytes_le):
        raw = writing.encode() if isinstance(writing, str) else writing
        place = {"place": b"\xfb" + raw + b"\xff"}
        assert leaks_of_ids([uuid], place)
        assert not leaks_of_ids([other], place)


class Repeating:
    """Makes calls with request ids, as clients and their mistakes do.

    Parameters:
        operator: makes them.
        url: of the database.
    """

    def __init__(self, operator: Client, url: str) -> None:
        self._operator = operator
        self._url = url
        self.request_ids = list[UUID]()
        self.key_strings = list[str]()
        self.keys = list[key_pb2.Key]()

    def claim(self) -> dict[str, Any]:
        """A new request id."""
        self.request_ids.append(uuid4())
        return {"request_id": str(self.request_ids[-1])}

    async def create(self) -> None:
        """A key, the same again, and the mistakes that are refused."""
        wanted = {"display_name": NAME, "reason": NAME, **self.claim()}
        created = await self._operator.create(**wanted)
        repeated = await self._operator.create(**wanted | {"request_id": wanted["request_id"].upper()})
        assert repeated.key_string == created.key_string
        self.key_strings.append(created.key_string)
        self.keys.append(created.key)
        await self._refused(grpc.StatusCode.INVALID_ARGUMENT, self._operator.create(**wanted | {"owner": "other"}))
        for fields, code in (
            ({"workspace": "acme-corp/nowhere"}, grpc.StatusCode.NOT_FOUND),
            ({"role": "nobody"}, grpc.StatusCode.INVALID_ARGUMENT),
        ):
            await self._refused(code, self._operator.create(**wanted | self.claim() | fields))

    async def rotate(self) -> None:
        """Another secret of the last key, the same again, and one too many."""
        key_id = self.keys[-1].id
        wanted = self.claim()
        rotated = await self._operator.rotate(key_id, **wanted)
        repeated = await self._operator.rotate(key_id, **wanted)
        assert repeated.key_string == rotated.key_string
        self.key_strings.append(rotated.key_string)
        self.keys.append(rotated.key)
        await self._refused(
            grpc.StatusCode.FAILED_PRECONDITION, self._operator.rotate(key_id, **self.claim(), reason=NAME)
        )

    async def fail(self) -> None:
        """Both, while their requests cannot be kept: a mistake of ours, which is logged with its traceback."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("ALTER TABLE request RENAME TO request_away")
            for call in (
                self._operator.create(display_name=NAME, **self.claim()),
                self._operator.rotate((await self._operator.create()).key.id, **self.claim()),
            ):
                await self._refused(grpc.StatusCode.INTERNAL, call)
            connection.execute("ALTER TABLE request_away RENAME TO request")

    async def _refused(self, code: grpc.StatusCode, call: Any) -> None:
        with pytest.raises(Refused) as refused:
            await call
        assert refused.value.code is code


def checkpoint(cluster: Path) -> None:
    """Write all tables to their files; the write-ahead log must be readable as it is, with its images of pages."""
    record = Record.read(cluster)
    assert record
    with psycopg.connect(record.admin_url, autocommit=True) as connection:
        for setting, wanted in (("wal_compression", "off"), ("full_page_writes", "on")):
            assert connection.execute(f"SHOW {setting}").fetchone() == (wanted,)
        connection.execute("CHECKPOINT")


def files(folder: Path, since: float, when: str) -> dict[str, bytes]:
    """What is in the files of a data folder: tables, the write-ahead log, all others."""
    found = dict.fromkeys((f"{kind}, {when}" for kind in ("tables", "log of changes", "other files")), b"")
    for name, content in files_since(folder, since).items():
        kind = {"base": "tables", "pg_wal": "log of changes"}.get([*name.split("/"), ""][1], "other files")
        found[f"{kind}, {when}"] += b"\0" + content
    found[f"log of changes, {when}"] += log_of_changes(folder / "cluster")
    return found


async def test_neither_keys_nor_request_ids_are_at_rest(used: Used) -> None:
    """Not in a table, not in PostgreSQL's files and its write-ahead log, not in a log of ours, in no writing.

    After good calls, their repeats and their failures; while the server runs, and when it has stopped.
    """
    began = time.time() - 2  # what a file system thinks of a time may be coarser than ours
    cluster = used.folder / "cluster"
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Serving("--data-dir", used.folder))
        channel = grpc.aio.insecure_channel(server.ready())
        stack.push_async_callback(channel.close)
        operator = Client(channel, used.operator_key)
        await operator.create_workspace()
        url = Record.read(cluster).url  # type: ignore[union-attr]
        repeating = Repeating(operator, url)
        for _ in range(2):
            await repeating.create()
            await repeating.rotate()
        await repeating.fail()
        await repeating.create()
        kept = dump(url)
        checkpoint(cluster)
        places = files(used.folder, began, "after a checkpoint")
        server.stop()
    places |= files(used.folder, began, "after the end")
    assert_found(repeating.keys, {**places, "database": kept})
    places |= {"database": kept, "log": (server.out + server.err).encode()}
    assert "call failed" in server.err, "an error of ours was logged, with its traceback"
    assert leaks([*repeating.key_strings, used.operator_key], places) == []
    assert leaks_of_ids(repeating.request_ids, places) == []


def assert_found(keys: list[key_pb2.Key], places: dict[str, bytes]) -> None:
    """What is no secret is found in all places that have what was changed: texts, and UUIDs as they are kept there."""
    for name, place in places.items():
        if name.startswith("other files"):
            continue
        for key in keys:
            form = "usual form as text" if name == "database" else "bytes as text"
            for text in (NAME, key.secrets[-1].id, key.secrets[-1].hint.removesuffix("…")):
                assert text.encode() in place, name
            assert traces_of_id(UUID(key.id))[form] in place, name
