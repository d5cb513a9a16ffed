"""The fake as tests of services use it."""

import asyncio
import io
import sys
import threading
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from keysvc.fake.server import NOT_COVERED
from keysvc.rpc.server import CONTRACT
from keysvc.v1 import key_service_pb2
from keysvc.v1.key_service_pb2_grpc import KeyServiceStub
from keysvc.v1.verify_pb2 import VERDICT_VALID, VerifyRequest
from keysvc_client import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unimplemented,
    UsageRecord,
    Verdict,
)
from keysvc_client.testing import FakeKeysvc
from tests.deployment import request_id

DAY = timedelta(days=1)


def test_a_key_by_either_client_and_by_the_stubs(fake: FakeKeysvc) -> None:
    """Whoever speaks the contract gets the same answer."""
    key_string = fake.create_key(workspace="acme-corp/support", scopes=["pdf.read"], owner="team-a")
    with fake.client() as client:
        verification = client.verify(key_string, workspace="acme-corp/support", required_scopes=["pdf.read"])
    assert verification.valid
    assert verification.owner == "team-a"

    async def ask() -> Verdict:
        async with fake.async_client() as client:
            return (await client.verify(key_string)).verdict

    assert asyncio.run(ask()) is Verdict.VALID
    with grpc.insecure_channel(fake.address) as channel:
        metadata = [("authorization", f"Bearer {fake.create_caller()}")]
        answer = KeyServiceStub(channel).Verify(VerifyRequest(key_string=key_string), metadata=metadata, timeout=20)
    assert answer.verdict == VERDICT_VALID


def test_the_life_of_a_key(fake: FakeKeysvc) -> None:
    """Suspended, resumed, rotated with an overlap, revoked: each is true as soon as the call has returned."""
    client = fake.client()
    key_string = fake.create_key()
    fake.suspend(key_string)
    assert client.verify(key_string).verdict is Verdict.SUSPENDED
    fake.resume(key_string)
    new = fake.rotate(key_string, overlap=DAY)
    assert client.verify(key_string).retire_time is not None
    assert client.verify(new).valid
    fake.advance(DAY)
    assert client.verify(key_string).verdict is Verdict.EXPIRED
    assert client.verify(new).valid
    fake.revoke(new)
    assert client.verify(new).verdict is Verdict.REVOKED
    with pytest.raises(FailedPrecondition):
        fake.resume(new)


def test_time_is_what_a_test_says() -> None:
    """A clock of the test's own; keys end by it, and only forward."""
    now = datetime(2030, 1, 1, tzinfo=UTC)
    with FakeKeysvc(clock=lambda: now) as fake:
        client = fake.client()
        key_string = fake.create_key(expire_time=now + DAY)
        fake.advance(DAY - timedelta(seconds=1))
        assert client.verify(key_string).valid
        fake.advance(timedelta(seconds=1))
        assert client.verify(key_string).verdict is Verdict.EXPIRED
        with pytest.raises(InvalidArgument) as refused:
            fake.create_key(expire_time=now)
        assert set(refused.value.violations) == {"expire_time"}
        with pytest.raises(ValueError, match="must not be negative"):
            fake.advance(-DAY)


def test_a_key_expires_when_a_test_wants_it(fake: FakeKeysvc) -> None:
    """One that had no end, and no other one."""
    client = fake.client()
    expired, other = fake.create_key(), fake.create_key()
    fake.expire(expired)
    assert client.verify(expired).verdict is Verdict.EXPIRED
    assert client.verify(other).valid


def test_a_keysvc_that_is_down(fake: FakeKeysvc) -> None:
    """Every call is Unavailable, sent once; afterwards everything is as it was."""
    client, key_string = fake.client(), fake.create_key()
    fake.go_down()
    for _ in range(3):
        with pytest.raises(Unavailable) as refused:
            client.verify(key_string)
        assert refused.value.reason == "UNAVAILABLE"
    fake.come_back()
    assert client.verify(key_string).valid


def test_a_repeat_after_ten_minutes_names_what_was_made(fake: FakeKeysvc) -> None:
    """As the server does: the key string is answered again for ten minutes, and then no more."""
    fields = {"workspace": "acme-corp/sales", "display_name": "a key", "environment": "live"}
    fake.operator.workspaces.create("acme-corp/sales")
    repeated = request_id()
    first = fake.operator.keys.create(**fields, request_id=repeated)
    assert fake.operator.keys.create(**fields, request_id=repeated).key_string == first.key_string
    fake.advance(timedelta(minutes=10))
    with pytest.raises(FailedPrecondition) as refused:
        fake.operator.keys.create(**fields, request_id=repeated)
    assert refused.value.metadata["key_id"] == first.key.id


def test_what_is_not_covered_says_so_by_its_name(fake: FakeKeysvc) -> None:
    """Never a wrong answer; nor anything that the contract has not."""
    operator = fake.operator
    verification = operator.verify(fake.create_key())
    record = UsageRecord(key_id=verification.key_id, secret_id=verification.secret_id, outcome="success")
    with pytest.raises(Unimplemented, match="RecordUsage"):
        operator.usage.record("a-source", 1, [record])
    with pytest.raises(Unimplemented, match="QueryUsage"):
        next(operator.usage.query())
    with pytest.raises(Unimplemented, match="idle_since in List"):
        next(operator.keys.list(idle_since=datetime.now(UTC)))
    with grpc.insecure_channel(fake.address) as channel:
        watching = KeyServiceStub(channel).WatchWakeUps(
            key_service_pb2.WatchWakeUpsRequest(), metadata=[("authorization", f"Bearer {fake.operator_key}")]
        )
        with pytest.raises(grpc.RpcError) as refused:
            next(watching)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert {method.name for service in CONTRACT for method in service.methods} >= NOT_COVERED


def test_a_client_with_a_lease_does_without(fake: FakeKeysvc) -> None:
    """It asks each time, so a revoked key is refused at once."""
    client = fake.client(api_key=fake.create_caller(["verify", "usage.write"]), lease=True)
    key_string = fake.create_key()
    assert client.verify(key_string).valid
    fake.revoke(key_string)
    assert client.verify(key_string).verdict is Verdict.REVOKED


def test_callers_may_do_what_they_may(fake: FakeKeysvc) -> None:
    """Permissions and workspaces of callers are those of the server."""
    verifier = fake.client()
    with pytest.raises(PermissionDenied) as refused:
        verifier.keys.revoke(fake.key_id(fake.create_key()))
    assert refused.value.metadata["permission"] == "keys.revoke"
    limited = fake.client(api_key=fake.create_caller(["keys.read"], workspaces=["acme-corp/support"]))
    with pytest.raises(NotFound):
        limited.keys.get(fake.key_id(fake.create_key()))


def test_a_text_that_is_no_key_string_of_it(fake: FakeKeysvc) -> None:
    """Nothing can be done with it, and its key string is in no message."""
    with FakeKeysvc() as other:
        foreign = other.create_key()
    assert fake.client().verify(foreign).verdict is Verdict.MALFORMED
    with pytest.raises(ValueError, match="no key string") as refused:
        fake.revoke(foreign)
    assert foreign not in str(refused.value)


def test_nothing_is_left_and_nothing_is_said() -> None:
    """It writes nothing to the output of tests, and its threads end with it."""
    said = io.StringIO()
    with redirect_stdout(said):
        with FakeKeysvc() as fake:
            address = fake.address
            fake.revoke(fake.create_key())
        assert fake.address == address
        fake.close()
    assert not said.getvalue()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("keysvc fake")]


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only which module is missing."""
    for name in [name for name in sys.modules if name.startswith(("keysvc.fake", "keysvc_client.testing"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "structlog", None)
    with pytest.raises(ModuleNotFoundError, match=r"install keysvc-client\[testing\]"):
        __import__("keysvc_client.testing")
