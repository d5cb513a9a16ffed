"""Repeated calls: a Create or Rotate with a request_id makes one secret, and answers it again for a while."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid1

import psycopg
import pytest

from keysvc.v1 import key_service_pb2
from tests.deployment import WORKSPACE, Client, Deployment, Refused, eventually, request_id


@pytest.fixture
async def operator(deployment: Deployment) -> Client:
    """An operator with one workspace."""
    operator = await deployment.client()
    await operator.create_workspace()
    return operator


def make_older(deployment: Deployment, minutes: float) -> None:
    """Let all requests be from so long ago."""
    with psycopg.connect(deployment.database_url, autocommit=True) as connection:
        connection.execute("UPDATE request SET create_time = create_time - %s", [timedelta(minutes=minutes)])


async def has_sealed_copies(deployment: Deployment, number: int) -> bool:
    """Whether there are so many."""
    with psycopg.connect(deployment.database_url, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM request WHERE num_nonnulls(sealed, sealed_pepper) > 0")
        return row.fetchone() == (number,)


async def refusal(attempt: Any) -> Refused:
    """How a call was refused."""
    with pytest.raises(Refused) as refused:
        await attempt
    return refused.value


async def test_a_hundred_concurrent_creates_make_one_key(operator: Client) -> None:
    """All of them succeed, with the same key and the same key string, which is good."""
    wanted = {"display_name": "once", "request_id": request_id()}
    created = await asyncio.gather(*(operator.create(**wanted) for _ in range(100)))
    assert len({each.key.id for each in created}) == 1
    assert len({each.key_string for each in created}) == 1
    assert len((await operator.list(workspace=WORKSPACE)).keys) == 1
    assert await operator.verdict(created[0].key_string) == "VALID"


async def test_a_hundred_concurrent_rotations_make_one_secret(operator: Client) -> None:
    """All of them succeed, with the same new secret; the rule of two living secrets does not stop a repeat."""
    key_id = (await operator.create()).key.id
    wanted = {"request_id": request_id()}
    rotated = await asyncio.gather(*(operator.rotate(key_id, **wanted) for _ in range(100)))
    assert len({each.key_string for each in rotated}) == 1
    assert len((await operator.get(key_id)).secrets) == 2
    assert await operator.verdict(rotated[0].key_string) == "VALID"


async def test_a_repeat_tells_the_key_as_it_is_by_then(operator: Client) -> None:
    """What a repeat answers is the first call's key string, and the key of now."""
    wanted = {"request_id": request_id()}
    created = await operator.create(**wanted)
    await operator.revoke(created.key.id)
    repeated = await operator.create(**wanted)
    assert repeated.key_string == created.key_string
    assert repeated.key.HasField("revocation")


async def test_a_repeat_is_not_judged_by_the_time_that_passed(operator: Client) -> None:
    """An expiry that was in the future for the first call may have passed, and the workspace may be full."""
    wanted = {
        "request_id": request_id(),
        "expire_time": datetime.now(UTC) + timedelta(seconds=0.3),
    }
    created = await operator.create(**wanted)

    async def has_expired() -> bool:
        return await operator.verdict(created.key_string) == "EXPIRED"

    await eventually(has_expired)
    assert (await operator.create(**wanted)).key_string == created.key_string


Repeatable = Callable[[Client, dict[str, Any]], Any]


async def create(operator: Client, fields: dict[str, Any]) -> key_service_pb2.CreateResponse:
    """A Create."""
    return await operator.create(**fields)


@pytest.fixture
async def rotate(operator: Client) -> Repeatable:
    """A Rotate of one key."""
    key_id = (await operator.create()).key.id
    return lambda operator, fields: operator.rotate(key_id, **fields)


@pytest.fixture(params=["Create", "Rotate"])
def repeatable(request: pytest.FixtureRequest, rotate: Repeatable) -> Repeatable:
    """Each of the methods that take a request_id."""
    return create if request.param == "Create" else rotate


async def test_after_ten_minutes_a_repeat_names_what_was_made(
    deployment: Deployment, operator: Client, repeatable: Repeatable
) -> None:
    """FAILED_PRECONDITION with key and secret: the caller knows what to revoke."""
    wanted = {"request_id": request_id()}
    made = await repeatable(operator, wanted)
    make_older(deployment, 9.8)
    assert (await repeatable(operator, wanted)).key_string == made.key_string
    make_older(deployment, 0.2)
    late = await refusal(repeatable(operator, wanted))
    assert late.code.name == "FAILED_PRECONDITION"
    assert late.metadata == {"key_id": made.key.id, "secret_id": made.key.secrets[-1].id}


async def test_another_body_is_no_repeat(operator: Client, repeatable: Repeatable) -> None:
    """A request_id belongs to what was asked for; a repeat that asks for something else is a mistake."""
    wanted = {"request_id": request_id()}
    await repeatable(operator, wanted)
    assert set((await refusal(repeatable(operator, wanted | {"reason": "other"}))).violations) == {"request_id"}


async def test_a_request_id_belongs_to_its_caller_and_method(deployment: Deployment, operator: Client) -> None:
    """Two callers may use the same id by chance: neither gets the other's key string."""
    wanted = {"request_id": request_id()}
    mine = await operator.create(**wanted)
    other = await deployment.caller("keys.write")
    assert (await other.create(**wanted)).key_string != mine.key_string
    rotated = await operator.rotate(mine.key.id, **wanted)
    assert rotated.key_string != mine.key_string


async def test_a_repeat_needs_the_permission_still(deployment: Deployment, operator: Client) -> None:
    """A caller that may no longer grant what the key has does not get its key string again."""
    caller_key = await operator.create(workspace="keysvc/system", scopes=["keys.write", "pdf.*"])
    caller = await deployment.client(caller_key.key_string)
    wanted = {"request_id": request_id(), "scopes": ["pdf.read"]}
    await caller.create(**wanted)
    await operator.update(caller_key.key.id, scopes=["keys.write"])
    assert (await refusal(caller.create(**wanted))).code.name == "PERMISSION_DENIED"


@pytest.mark.parametrize("bad", [str(uuid1()), str(UUID(int=7))], ids=["of-time-and-place", "made-up"])
async def test_a_request_id_must_be_random(operator: Client, repeatable: Repeatable, bad: str) -> None:
    """It opens the sealed copy, so nobody may be able to guess it."""
    assert set((await refusal(repeatable(operator, {"request_id": bad}))).violations) == {"request_id"}


@pytest.mark.parametrize("spelled", ["{}", "{0.hex}", "create-{}/2"], ids=["the-same", "digits-alone", "in-a-text"])
async def test_a_request_id_is_not_the_trace_id(operator: Client, spelled: str) -> None:
    """What is sent as x-request-id is written to logs and audit events: with it a dump could be opened.

    However it is spelled there, and whatever stands beside it.
    """
    wanted = request_id()
    request = key_service_pb2.CreateRequest(
        workspace=WORKSPACE, display_name="a key", environment="ENVIRONMENT_LIVE", request_id=wanted
    )
    attempt = operator.call(operator.keys.Create, request, x_request_id=spelled.format(UUID(wanted)).upper())
    assert set((await refusal(attempt)).violations) == {"request_id"}
    assert not (await operator.list(workspace=WORKSPACE)).keys


async def test_sealed_copies_are_removed(deployment: Deployment, operator: Client) -> None:
    """A copy is gone from the tables soon after its time, the claim stays."""
    wanted = {"request_id": request_id()}
    await operator.create(**wanted)
    await operator.create()
    assert await has_sealed_copies(deployment, 1)
    make_older(deployment, 10)
    await eventually(lambda: has_sealed_copies(deployment, 0))
    assert (await refusal(operator.create(**wanted))).code.name == "FAILED_PRECONDITION"
