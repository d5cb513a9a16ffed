"""A server in a thread of its own, for code that cannot wait, and how its messages are written and read."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from keysvc.v1 import key_pb2, key_service_pb2
from tests.deployment import Client, Deployment, Refused
from tests.model.model import SECOND, SYSTEM

T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own, for a server that is called from code that cannot wait."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="event loop")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something there, and wait for it here."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class World:
    """A server, and its first operator."""

    def __init__(self, loop: Loop, deployment: Deployment, client: Client) -> None:
        self.loop = loop
        self.deployment = deployment
        self.numbers = count(1)
        self.caller_strings = [deployment.operator_key]
        self._client = client

    def call(self, key_string: str, service: str, method: str, request: Any, trace_id: str = "test") -> Any:
        """Call a method with a caller's key string; an error is raised as ``Refused``."""
        self._client.key_string = key_string
        return self.loop.run(
            self._client.call(getattr(getattr(self._client, service), method), request, x_request_id=trace_id)
        )

    def only_operator(self) -> key_pb2.Key:
        """The first operator, alone and in office again, whatever an earlier machine has left behind."""
        root = self.deployment.operator_key
        (own,) = [key for key in self._system_keys() if root.startswith(key.secrets[0].hint.removesuffix("…"))]
        self.ask_an_operator("keys", "Resume", key_service_pb2.ResumeRequest(key_id=own.id))
        as_before = key_pb2.Key(id=own.id, scopes=["operator"])
        update = key_service_pb2.UpdateRequest(key=as_before, update_mask={"paths": ["scopes", "owner", "tags"]})
        self.ask_an_operator("keys", "Update", update)
        for key in self._system_keys():
            if key.id != own.id:
                self.call(root, "keys", "Revoke", key_service_pb2.RevokeRequest(key_id=key.id))
        self.caller_strings = [root]
        return self.call(root, "keys", "Get", key_service_pb2.GetRequest(key_id=own.id)).key

    def _system_keys(self) -> list[key_pb2.Key]:
        """The keys of keysvc/system that could be used again."""
        found: list[key_pb2.Key] = []
        for state in (key_pb2.Key.STATE_ACTIVE, key_pb2.Key.STATE_SUSPENDED):
            request = key_service_pb2.ListRequest(workspace=SYSTEM, page_size=1000, filter={"state": state})
            while True:
                page = self.ask_an_operator("keys", "List", request)
                found += page.keys
                # On a busy machine a page ends before it is full.
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
        return found

    def ask_an_operator(self, service: str, method: str, request: Any) -> Any:
        """Call a method as the first of all callers there are that may."""
        for string in self.caller_strings:
            with suppress(Refused):
                return self.call(string, service, method, request)
        raise AssertionError(f"nobody may call {method}")


def nanoseconds(message: Any, name: str) -> int | None:
    """A Timestamp field of a message; absent is None."""
    return getattr(message, name).ToNanoseconds() if message.HasField(name) else None


def a_time(end: int | None) -> Timestamp | None:
    """A Timestamp."""
    return None if end is None else Timestamp(seconds=end // SECOND, nanos=end % SECOND)


def a_span(span: int | None) -> Duration | None:
    """A Duration."""
    return None if span is None else Duration(seconds=span // SECOND, nanos=span % SECOND)


def settled(key: key_pb2.Key) -> key_pb2.Key:
    """A key without what changes by itself: how it is used."""
    key = key_pb2.Key.FromString(key.SerializeToString())
    for each in (key, *key.secrets):
        each.ClearField("last_used_time")
        each.ClearField("usage_total")
    key.ClearField("usage_time")
    return key


def sequence(revision: str) -> int:
    """The place of a revision in the order of changes."""
    return int(revision.rpartition(".")[2])
